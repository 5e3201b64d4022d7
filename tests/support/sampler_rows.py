"""The domains and rows of a sampler's global batches."""

import numpy as np


def located(sampler, start, stop):
    """Return domain and row of each sample of the global batches [start, stop)."""
    rows = sampler.order.rows(start, stop - start).ravel()
    offsets = np.cumsum([0, *sampler.sizes.values()])
    domain = np.searchsorted(offsets, rows, side="right") - 1
    return domain, rows - offsets[domain]


def pairs_of(batches):
    return [list(zip(b["domain"].tolist(), b["row"].tolist(), strict=True)) for b in batches]


def pairs_in_order(order, batches):
    places = [located(order, k, k + 1) for k in range(batches)]
    return [list(zip(domain.tolist(), row.tolist(), strict=True)) for domain, row in places]
