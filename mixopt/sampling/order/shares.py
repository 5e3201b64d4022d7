"""Turn weights into whole numbers that add up to `UNIT`, the same on every machine.

All decisions of a schedule are made with these integers. A weight times 2^46 is exact in binary
floating point, so its floor is too; what is left over goes to the largest fractions. A share is
within 2^-46 of its weight: 0.02 samples after 10^12.

Shapes: D domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

UNIT = 1 << 46


def whole_shares(weights_D: Sequence[float]) -> list[int]:
    """Round weights to multiples of 1 / UNIT that keep their sum.

    Args:
        weights_D: Weights >= 0, finite, not all zero; they need not add up to 1. Shares stay as
            they are.

    Returns:
        Integers that add up to UNIT; 0 where the weight is 0, else >= 1.
    """
    total = math.fsum(weights_D)
    if total == UNIT and all(isinstance(weight, int) for weight in weights_D):
        return [int(weight) for weight in weights_D]
    exact = [weight / total * UNIT for weight in weights_D]
    shares = [max(int(value), 1) if value > 0 else 0 for value in exact]
    missing = UNIT - sum(shares)
    if missing < 0:  # what weights below 1 / UNIT were rounded up by
        shares[max(range(len(shares)), key=shares.__getitem__)] += missing
        return shares
    fraction = [value - share for value, share in zip(exact, shares, strict=True)]
    order = sorted(range(len(shares)), key=lambda d: (-fraction[d], d))
    for k in range(missing):
        shares[order[k % len(order)]] += 1
    return shares
