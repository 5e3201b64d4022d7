"""Shares as whole numbers that add up to `UNIT`, and what is due of them; the same on any machine.

All decisions of an order are made with these integers. A weight times 2^42 is exact in binary
floating point, so its floor is too; what is left over goes to the largest fractions. A share is
within 2^-42 of its weight: 0.2 samples after 10^12.

Shapes: D domains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush
from itertools import accumulate, pairwise
from typing import NamedTuple

UNIT_BITS = 42
UNIT = 1 << UNIT_BITS


def whole_shares(weights_D: Sequence[float]) -> tuple[int, ...]:
    """Round weights to multiples of 1 / UNIT that keep their sum."""
    total = math.fsum(weights_D)
    exact = [weight / total * UNIT for weight in weights_D]
    shares = [max(int(value), 1) if value > 0 else 0 for value in exact]
    missing = UNIT - sum(shares)
    if missing < 0:  # what weights below 1 / UNIT were rounded up by
        shares[max(range(len(shares)), key=shares.__getitem__)] += missing
        return tuple(shares)
    fraction = [value - share for value, share in zip(exact, shares, strict=True)]
    order = sorted(range(len(shares)), key=lambda d: (-fraction[d], d))
    for k in range(missing):
        shares[order[k % len(order)]] += 1
    return tuple(shares)


def spread(parts_D: Sequence[int], total: int) -> list[int]:
    """Divide a whole number in proportion to parts >= 0, not all 0; each is off by less than 1."""
    whole = sum(parts_D)
    ends = [before * total // whole for before in accumulate(parts_D, initial=0)]
    return [after - before for before, after in pairwise(ends)]


class ShareChange(NamedTuple):
    """Shares (`whole_shares`) from a window on.

    Attributes:
        window: The first.
        shares: Of each domain, shape (D,).
        end_window: Where a ramp arrives: up to there shares go linearly; None where they stay.
        end_shares: The shares from there on.
    """

    window: int
    shares: tuple[int, ...]
    end_window: int | None = None
    end_shares: tuple[int, ...] | None = None

    def arrived(self, window: int) -> tuple[int, ...] | None:
        """Return the shares of a window where they stay from it on; None on a ramp."""
        if self.end_window is None or self.end_shares is None:
            return self.shares
        return self.end_shares if window >= self.end_window else None

    def parts(self, window: int, out: Collection[int] = ()) -> list[int]:
        """Return in which proportion a window is divided: of a ramp that of the window's middle."""
        parts: Sequence[int] | None = self.arrived(window)
        if parts is None:
            parts = self.between(2 * (window - self.window) + 1, 2)
        return [0 if d in out else part for d, part in enumerate(parts)]

    def between(self, gone: int, parts: int = 1) -> list[int]:
        """Return the proportion of shares on a ramp."""
        whole = parts * ((self.end_window or self.window) - self.window)
        pairs = zip(self.shares, self.end_shares or self.shares, strict=True)
        return [(whole - gone) * first + gone * last for first, last in pairs]


class FairQueue:
    """The samples of a stretch in which shares do not change."""

    __slots__ = ("_before", "_length", "_next", "_owed", "_ready", "_shares", "_tokens", "_waiting")

    def __init__(
        self, shares_D: Sequence[int], owed_D: Sequence[int], length: Callable[[int], int]
    ) -> None:
        self._shares = shares_D
        self._owed = owed_D
        self._length = length
        self._next = [length(d) if share else 0 for d, share in enumerate(shares_D)]
        self._before = [0] * len(shares_D)
        self._tokens = 0
        starts = [
            (-owed // share, d)
            for d, (share, owed) in enumerate(zip(shares_D, owed_D, strict=True))
            if share
        ]
        self._ready = [(self._finish(d), d) for start, d in starts if start <= 0]
        self._waiting = [(start, d) for start, d in starts if start > 0]
        heapify(self._ready)
        heapify(self._waiting)

    def take(self) -> int:
        """Take the next sample; return its domain."""
        ready, waiting = self._ready, self._waiting
        if not ready:  # what a domain without a share is owed is missing from the others
            _, first = heappop(waiting)
            ready.append((self._finish(first), first))
        finish, d = heappop(ready)
        tokens = self._next[d]
        self._tokens += tokens
        self._before[d] += tokens
        self._next[d] = self._length(d)
        if finish <= self._tokens:
            heappush(ready, (self._finish(d), d))
        else:
            heappush(waiting, (finish, d))
        while waiting and waiting[0][0] <= self._tokens:
            _, other = heappop(waiting)
            heappush(ready, (self._finish(other), other))
        return d

    def taken(self) -> list[int]:
        """Return the tokens taken of each domain so far."""
        return list(self._before)

    def owed(self, tokens_D: Sequence[int] | None = None) -> list[int]:
        """Return what each domain is owed now."""
        taken = self._before if tokens_D is None else tokens_D
        total = sum(taken)
        return [
            owed + share * total - UNIT * tokens
            for owed, share, tokens in zip(self._owed, self._shares, taken, strict=True)
        ]

    def _finish(self, d: int) -> int:
        """Return after how many tokens the ideal stream ends a domain's next sample."""
        return (UNIT * (self._before[d] + self._next[d]) - self._owed[d]) // self._shares[d]
