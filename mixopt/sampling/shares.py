"""Shares of domains as whole numbers, and their changes.

A weight times 2^42 is exact in binary floating point, so its floor is too; the remainder goes to
the largest fractions. A share is within 2^-42 of its weight: 0.2 samples after 10^12.

Shapes: D domains.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

Shares = tuple[int, ...]  # of domains, adding up to UNIT

UNIT_BITS = 42
UNIT = 1 << UNIT_BITS  # a share of 1


def whole_shares(weights_D: Sequence[float]) -> Shares:
    """Round weights to multiples of 1 / UNIT that keep their sum."""
    total = math.fsum(weights_D)
    exact = [weight / total * UNIT for weight in weights_D]
    shares = [_whole_share(value) for value in exact]
    missing = UNIT - sum(shares)
    if missing < 0:  # weights below 1 / UNIT were rounded up
        largest = shares.index(max(shares))
        shares[largest] += missing
        return tuple(shares)
    fraction = [value - share for value, share in zip(exact, shares, strict=True)]
    by_fraction = sorted(range(len(shares)), key=lambda d: -fraction[d])
    for k in range(missing):
        shares[by_fraction[k % len(shares)]] += 1
    return tuple(shares)


def _whole_share(exact: float) -> int:
    """Round down, but a weight above 0 to at least 1."""
    return max(int(exact), 1) if exact > 0 else 0


def spread(parts_D: Sequence[int], total: int) -> list[int]:
    """Divide an integer in proportion to parts >= 0, not all 0, each with an error below 1."""
    of_parts = sum(parts_D)
    ends = [before * total // of_parts for before in accumulate(parts_D, initial=0)]
    return [after - before for before, after in pairwise(ends)]


class ShareChange(NamedTuple):
    """Shares (`whole_shares`) from a window on, shape (D,); for a ramp, at both ends."""

    window: int
    shares: Shares
    end_window: int
    end_shares: Shares

    @classmethod
    def at(cls, window: int, shares: Shares) -> ShareChange:
        """Return a change to constant shares."""
        return cls(window, shares, window, shares)

    def constant_shares(self, window: int) -> Shares | None:
        """Return the shares from a window on if they are constant; None on a ramp."""
        return self.end_shares if window >= self.end_window else None

    def parts(self, window: int, exhausted: Collection[int] = ()) -> list[int]:
        """Return the proportions of a window, 0 for exhausted domains; on a ramp, at mid-window."""
        parts = list(self.constant_shares(window) or self._ramp_parts(window))
        for d in exhausted:
            parts[d] = 0
        return parts

    def _ramp_parts(self, window: int) -> Sequence[int]:
        half_windows = 2 * (self.end_window - self.window)
        passed = 2 * (window - self.window) + 1
        pairs = zip(self.shares, self.end_shares, strict=True)
        return [(half_windows - passed) * first + passed * last for first, last in pairs]


def insert_change(changes: Sequence[ShareChange], change: ShareChange) -> list[ShareChange]:
    """Return sorted changes with `change` added; it replaces a change of the same window."""
    remaining = [earlier for earlier in changes if earlier.window != change.window]
    return sorted([*remaining, change], key=lambda entry: entry.window)
