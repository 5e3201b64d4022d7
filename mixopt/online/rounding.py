"""Round planned shares, so that rounding errors of other machines do not show in them.

Losses that were computed on other numbers of ranks differ in their last digits, and so do the
shares that an estimator makes of them. Planned shares are therefore multiples of 1/10,000 (finer
where the reference mixture has shares below 1/1000), which all but always takes the difference
out: it remains where a share falls between two multiples to within that difference.

Shapes: D domains.
"""

from __future__ import annotations

import numpy as np

from mixopt.system import Array, IntArray

Whole = IntArray

COARSEST = 10_000
FINEST = 1_000_000_000
_UNITS_OF_A_SHARE = 10  # the least share of the reference mixture is at least so many units
_EVEN = 2  # digits of a unit to which fractions count as even


def rounded_shares(weights_D: Array, reference_D: Array, lower_D: Array, upper_D: Array) -> Array:
    """Round shares to whole units that add up to 1 and keep to the bounds.

    Args:
        weights_D: Shares within the bounds, adding up to 1.
        reference_D: The mixture that says how fine the unit is.
        lower_D: Least share of each domain.
        upper_D: Most share of each domain.

    Returns:
        The nearest shares, to a unit: largest remainders first, domains in order where they are
        even. Bounds between which there is no multiple are met to 1e-9.
    """
    unit = COARSEST
    while unit * reference_D[reference_D > 0].min() < _UNITS_OF_A_SHARE and unit < FINEST:
        unit *= 10
    while unit < FINEST:
        least_D = np.ceil(lower_D * unit - 1e-6).astype(np.int64)
        most_D = np.floor(np.minimum(upper_D, 1.0) * unit + 1e-6).astype(np.int64)
        if (least_D <= most_D).all() and least_D.sum() <= unit <= most_D.sum():
            return np.asarray(_whole(weights_D, unit, least_D, most_D) / unit)
        unit *= 10
    least_D = np.floor(lower_D * unit).astype(np.int64)
    most_D = np.ceil(upper_D * unit).astype(np.int64)
    return np.asarray(_whole(weights_D, unit, least_D, most_D) / unit)


def _whole(weights_D: Array, unit: int, least_D: Whole, most_D: Whole) -> Whole:
    exact_D = np.clip(weights_D * unit, least_D, most_D)
    units_D = np.floor(exact_D).astype(np.int64)
    fractions = np.round(exact_D - units_D, _EVEN).tolist()
    order = sorted(range(len(fractions)), key=lambda d: (-fractions[d], d))
    missing = unit - int(units_D.sum())
    while missing:
        step = 1 if missing > 0 else -1
        for d in order if step > 0 else order[::-1]:
            if missing and least_D[d] <= units_D[d] + step <= most_D[d]:
                units_D[d] += step
                missing -= step
    return units_D
