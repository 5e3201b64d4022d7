"""Scale weights into bounds: the mixture in them that is proportional to the weights elsewhere.

It is the nearest in KL divergence, and unlike the nearest in Euclidean distance it takes no
domain to 0 because another is large.

Shapes: D domains.
"""

from __future__ import annotations

import numpy as np

from mixopt.system import Array

LEAST, MOST = 1e-12, 1e15  # of weights; of the scale
HALVINGS = 100


def scaled_within(weights_D: Array, lower_D: Array, upper_D: Array) -> Array:
    """Return clip(scale x weights, lower, upper) at the scale where it adds up to 1.

    Args:
        weights_D: >= 0.
        lower_D: Least shares; they add up to at most 1.
        upper_D: Most shares; they add up to at least 1.
    """
    weights_D = np.maximum(weights_D, LEAST)
    low, high = 0.0, 1.0
    while np.clip(high * weights_D, lower_D, upper_D).sum() < 1.0 and high < MOST:
        high *= 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        if np.clip(middle * weights_D, lower_D, upper_D).sum() < 1.0:
            low = middle
        else:
            high = middle
    shares_D: Array = np.clip(high * weights_D, lower_D, upper_D)
    return shares_D
