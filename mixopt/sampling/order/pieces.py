"""The pieces of a plan: stretches of positions in which shares stay, or go along one line.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from mixopt.sampling.order.shares import UNIT, whole_shares
from mixopt.system import IntArray


class RampEnd(NamedTuple):
    """Where shares that go linearly arrive, and the shares from there on, shape (D,)."""

    position: int
    shares: tuple[int, ...]


class ShareChange(NamedTuple):
    """Shares of the samples (mixopt.sampling.order.shares), shape (D,), from a position on.

    Attributes:
        position: Where they begin to hold.
        shares: The shares there.
        end: Where a ramp arrives: up to there shares go linearly to its own. None if they stay.
    """

    position: int
    shares: tuple[int, ...]
    end: RampEnd | None = None


class Exhausted(NamedTuple):
    """A domain that was drawn as often as it may be, from a position on."""

    position: int
    domain: int


class Origin(NamedTuple):
    """Where an order continues, shape (D,): how often each domain was drawn, and what it is owed.

    That is in samples / UNIT, or in tokens / UNIT where tokens are owed; `tokens_D` is then how
    many each domain has had.
    """

    position: int
    counts_D: tuple[int, ...]
    owed_D: tuple[int, ...]
    tokens_D: tuple[int, ...] | None = None


class ShareLine(NamedTuple):
    """Shares that go linearly from `first` at `start` to `last` at `stop`, and stay there.

    Shares that do not change have `first` and `last` alike.
    """

    start: int
    stop: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    @classmethod
    def of(cls, change: ShareChange) -> ShareLine:
        """Return the shares from a change on."""
        stop, last = change.end or (change.position, change.shares)
        return cls(change.position, stop, change.shares, last)

    @property
    def length(self) -> int:
        """Positions of the ramp."""
        return self.stop - self.start

    def stays(self, position: int) -> bool:
        """Whether shares no longer change from a position on."""
        return position >= self.stop or self.first == self.last

    def at(self, position: int) -> tuple[int, ...]:
        """Return the shares at a position, adding up to UNIT."""
        if self.stays(position):
            return self.last
        gone, left = position - self.start, self.stop - position
        pairs = zip(self.first, self.last, strict=True)
        return _whole([left * before + gone * after for before, after in pairs])

    def without(self, domains: Collection[int], position: int) -> ShareLine:
        """Return the shares from a position on, without some domains; they may be all 0."""
        last = _zeroed(self.last, domains)
        first = last if self.stays(position) else _zeroed(self.whole().at(position), domains)
        if first is last or not any(first):
            return ShareLine(position, position, last, last)
        return ShareLine(position, self.stop, _whole(first), last)

    def whole(self) -> ShareLine:
        """Return the same with shares that add up to UNIT; those that arrive at none stay."""
        first = _whole(self.first)
        is_level = self.first is self.last or not any(self.last)
        return self._replace(first=first, last=first if is_level else _whole(self.last))

    def integral(self, position: int, length: int) -> list[int]:
        """Return what is due to each domain in `length` positions, in samples / UNIT.

        That of a ramp is rounded, so that the sum is exact and each is off by less than 1.
        """
        if self.stays(position):
            return [share * length for share in self.last]
        whole = 2 * self.length
        moved = moved_by(position - self.start, length)
        kept = whole * length - moved
        pairs = zip(self.first, self.last, strict=True)
        sums = accumulate((kept * before + moved * after for before, after in pairs), initial=0)
        rounded = [total // whole for total in sums]
        return [after - before for before, after in pairwise(rounded)]


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions [position, stop) that are dealt out by one rule.

    Attributes:
        position: The first.
        stop: Position after the last; None for no end.
        asked: Shares that were set, 0 for domains that ran out.
        shares: The same, adding up: what the integral is of.
        awake: The same without the domains that sleep: what is drawn.
        counts_D: How often each domain was drawn before `position`.
        owed_D: What each is owed at `position`, in samples / UNIT.
        length: How long domains sleep at most, in positions.
        ran_out: Domains that were drawn as often as they may be.
    """

    position: int
    stop: int | None
    asked: ShareLine
    shares: ShareLine
    awake: ShareLine
    counts_D: IntArray
    owed_D: IntArray
    length: int
    ran_out: tuple[int, ...]

    def owed_after(self, drawn_D: IntArray, length: int) -> IntArray:
        """Return what is owed after `length` positions; whole numbers of any size on the way."""
        due = self.shares.integral(self.position, length)
        owed = [
            before + coming - UNIT * count
            for before, coming, count in zip(
                self.owed_D.tolist(), due, drawn_D.tolist(), strict=True
            )
        ]
        return np.array(owed, np.int64)


def moved_by(offset: int, length: int) -> int:
    """Return how much of `length` positions belongs to a ramp's end, times 2 of its length."""
    return length * (2 * offset + length)


def awake_line(shares: ShareLine, owed: Sequence[int], position: int, length: int) -> ShareLine:
    """Put to sleep the domains that need no sample for `length` positions after a change.

    Those that stay ahead of their integral, and those of next to no share that are owed less than
    three quarters of a sample. In one tree with the others they would pass their debts on to them.
    """
    if not any(owed):
        return shares
    if not shares.stays(position):
        length = min(length, shares.stop - position)
    due = shares.integral(position, length)
    asleep = {
        d
        for d, (coming, debt) in enumerate(zip(due, owed, strict=True))
        if _can_sleep(coming, debt)
    }
    first = _zeroed(shares.first, asleep)
    last = first if shares.first is shares.last else _zeroed(shares.last, asleep)
    if not any(first) or not any(last):
        return shares
    return shares._replace(first=first, last=last).whole()


def _can_sleep(coming: int, debt: int) -> bool:
    stays_ahead = debt < 0 and debt + coming < 0
    is_idle = coming * 20 < UNIT and (debt + coming) * 4 < 3 * UNIT
    return stays_ahead or is_idle


def _zeroed(shares: tuple[int, ...], domains: Collection[int]) -> tuple[int, ...]:
    if not any(shares[d] for d in domains):
        return shares
    return tuple(0 if d in domains else share for d, share in enumerate(shares))


def _whole(shares: Sequence[int]) -> tuple[int, ...]:
    """Return shares that add up to UNIT; the same object where they do."""
    whole = tuple(whole_shares(shares))
    return shares if whole == shares and isinstance(shares, tuple) else whole
