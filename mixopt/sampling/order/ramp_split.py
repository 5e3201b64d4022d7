"""Split positions among domains whose shares change linearly between two mixtures.

The positions are divided between the two mixtures first: of the first x positions of a ramp of
length L, the mixture that it goes to has x^2 / 2L, rounded, which grows by 0 or 1 at each. Each
mixture then deals out its own with a tree of its own (mixopt.sampling.order.split_tree), which
costs what one tree costs. A domain is off by what it is off in each tree, and by half of what its
share changes.

What a domain is owed from before goes into the phases of the tree that is to draw more of it soon;
one that is ahead waits in both. What the domains of one tree are owed together goes into the
division between the two, up to one sample; more would hold up the heavy ones.

Everything is an integer. Shapes: D domains.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from mixopt.sampling.order.pieces import ShareLine, moved_by
from mixopt.sampling.order.shares import UNIT
from mixopt.sampling.order.split_tree import LONGEST, Places, SplitTree
from mixopt.system import IntArray

_MOST = 1 << 61  # of a ramp's length times the positions of one draw


class RampSplit:
    """Which domain each position of a part of a ramp goes to."""

    __slots__ = ("_first", "_last", "_length", "_offset", "_phase", "_whole", "domains", "longest")

    def __init__(self, line: ShareLine, start: int, owed_D: list[int], soon: int) -> None:
        """Build both trees.

        Args:
            line: The ramp; `first` and `last` add up to UNIT each.
            start: The first position of the part.
            owed_D: What each domain is owed at `start`, in samples / UNIT, adding up to 0.
            soon: Positions in which what is owed is to be paid.
        """
        self._offset, self._whole = start - line.start, 2 * line.length
        self._length = line.stop - start
        owed_first, owed_last = self._shared(line, owed_D, min(soon, self._length))
        carried = max(min(sum(owed_last), UNIT), -UNIT)
        self._first = SplitTree(line.first, _owed_in_all(owed_first, line.first, -carried))
        self._last = SplitTree(line.last, _owed_in_all(owed_last, line.last, carried))
        self._phase = line.length + self._whole * carried // UNIT
        self.domains = sorted({*self._first.domains, *self._last.domains})
        self.longest = min(LONGEST, _MOST // line.length)

    def counts(self, items: int) -> list[int]:
        """Count the first `items` positions by active domain, in the order of `domains`."""
        count = self._counted(items)
        return [count[d] for d in self.domains]

    def draw(self, start: int, length: int) -> tuple[IntArray, IntArray]:
        """Return the domain of each position, and how many of that domain came before it.

        Args:
            start: First position, from the start of the part.
            length: Positions, at most `longest`.

        Returns:
            Domains and ordinals within the part, each of shape (length,).
        """
        steps = np.arange(length + 1, dtype=np.int64)
        moved, is_last = self._divided(start, steps)
        before = self._counted(start)
        first = self._first.places(start - moved, steps[:-1][~is_last], steps)
        last = self._last.places(moved, steps[:-1][is_last], steps)
        domain = np.empty(length, np.int64)
        ordinal = np.empty(length, np.int64)
        for d in {**first, **last}:
            where = _merged(first.get(d), last.get(d))
            domain[where] = d
            ordinal[where] = steps[: len(where)] + before[d]
        return domain, ordinal

    def first_full(self, limits: dict[int, int]) -> int | None:
        """Return after how many positions the first domain has been drawn as often as it may.

        Args:
            limits: How often an active domain may be drawn, >= 1.

        Returns:
            Positions from the start of the part; None if none is in what is left of the ramp.
        """
        if not self._is_full(limits, self._length):
            return None
        low, high = 0, self._length  # not full after `low`, full after `high`
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_full(limits, middle):
                high = middle
            else:
                low = middle
        return high

    def _shared(self, line: ShareLine, owed_D: list[int], soon: int) -> tuple[list[int], list[int]]:
        """Share out what is owed: debts to the tree that draws more soon, what is ahead to both.

        A domain that is ahead waits in both trees until its integral has caught up with its count.
        """
        owed_first, owed_last = [0] * len(owed_D), [0] * len(owed_D)
        for d, (a, b, owed) in enumerate(zip(line.first, line.last, owed_D, strict=True)):
            if not a and not b:
                continue
            length = soon if owed >= 0 else min(self._caught_up(a, b, -owed), soon)
            last = b * moved_by(self._offset, length)
            first = a * (self._whole * length - moved_by(self._offset, length))
            if owed >= 0:
                owed_first[d] = owed if first >= last else 0
            else:
                owed_first[d] = owed * first // (first + last)
            owed_last[d] = owed - owed_first[d]
        return owed_first, owed_last

    def _caught_up(self, a: int, b: int, ahead: int) -> int:
        """Return after how many positions `ahead` > 0 is due to a domain; the ramp may be over."""
        rate = self._whole * a + 2 * self._offset * (b - a)
        square = rate * rate + 4 * (b - a) * self._whole * ahead
        if square < 0:  # it is never
            return self._length
        return -(-2 * self._whole * ahead // max(rate + isqrt(square), 1))

    def _is_full(self, limits: dict[int, int], items: int) -> bool:
        count = self._counted(items)
        return any(count.get(d, 0) >= limit for d, limit in limits.items())

    def _counted(self, items: int) -> dict[int, int]:
        moved = self._moved(items)
        count = dict(zip(self._first.domains, self._first.counts(items - moved), strict=True))
        for d, more in zip(self._last.domains, self._last.counts(moved), strict=True):
            count[d] = count.get(d, 0) + more
        return count

    def _moved(self, items: int) -> int:
        """Count the first `items` positions that belong to the mixture at the ramp's end."""
        moved = (moved_by(self._offset, items) + self._phase) // self._whole
        return min(max(moved, 0), items)

    def _divided(self, start: int, steps: IntArray) -> tuple[int, NDArray[np.bool_]]:
        """Return `_moved(start)`, and which of the positions after it belong to the end."""
        base = self._moved(start)
        quotient, rest = divmod(moved_by(self._offset, start) + self._phase, self._whole)
        moved = (steps * (2 * (self._offset + start) + steps) + rest) // self._whole + quotient
        moved = np.minimum(np.maximum(moved, 0), steps + start)
        return base, moved[1:] != moved[:-1]


def _owed_in_all(owed_D: list[int], shares_D: tuple[int, ...], total: int) -> list[int]:
    """Spread evenly over a tree what its domains are owed beyond what is carried into it."""
    drawn = [d for d, share in enumerate(shares_D) if share]
    mean = (sum(owed_D[d] for d in drawn) - total) // len(drawn)
    return [owed - mean for owed in owed_D]


def _merged(one: Places | None, other: Places | None) -> IntArray:
    """Return the positions of a domain in both trees, in order."""
    if one is None or other is None:
        return (one or other or (0, np.empty(0, np.int64)))[1]
    return np.sort(np.concatenate([one[1], other[1]]), kind="stable")
