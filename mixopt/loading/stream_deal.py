"""Deal the samples of a global batch to lanes, so that each has its part of every domain.

The samples are sorted by domain and dealt in turn, beginning with another lane in each batch: by
multiples of the golden ratio, whose fractions are spread evenly at every length. So a lane has
given its part of a domain to within a few rows at any time, and lanes come to the end of their
documents together. In a lane the samples keep the order that they have in the batch.

Shapes: B samples of a global batch, G lanes, S = B / G.
"""

from __future__ import annotations

import numpy as np

from mixopt.system import IntArray

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio


def deal(domain_B: IntArray, lanes: int, batch: int) -> IntArray:
    """Return the domains of the samples of each lane.

    Args:
        domain_B: Domains of the batch's samples; the lanes divide their number.
        lanes: How many lanes.
        batch: Number of the batch.

    Returns:
        Domains, shape (G, S).
    """
    turn = (batch * _GOLDEN % (1 << 64)) * lanes >> 64
    lane_B = np.empty_like(domain_B)
    lane_B[_sorted(domain_B)] = (np.arange(len(domain_B)) + turn) % lanes
    return domain_B[_sorted(lane_B)].reshape(lanes, -1)


def _sorted(numbers: IntArray) -> IntArray:
    """Return the order that sorts small numbers, equal ones as they are; 16 bits are quickest."""
    small = numbers.astype(np.uint16) if numbers.max(initial=0) < 1 << 16 else numbers
    return np.argsort(small, kind="stable")
