"""The domains and rows of a sampler's global batches."""

from __future__ import annotations

import numpy as np


def located(sampler, start, stop):
    """Return domain and row of each sample of the global batches [start, stop)."""
    rows = sampler.order.rows(start, stop - start).ravel()
    offsets = np.cumsum([0, *sampler.sizes.values()])
    domain = np.searchsorted(offsets, rows, side="right") - 1
    return domain, rows - offsets[domain]
