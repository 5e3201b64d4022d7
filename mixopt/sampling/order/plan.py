"""The domain of each position of the stream, over any number of weight changes.

A plan is a row of pieces. In each of them shares do not change and a `SplitTree` deals the
positions out, or they go linearly from one mixture to another and a `RampSplit` does. What a domain
is owed at the end of a piece (the integral of its shares less its count) goes into the next one.
After a change some domains are ahead of shares that are now tiny; in one tree with the others they
would hold them back. They sleep, for pieces that double in length, until their integral has caught
up with their count.

Between changes a domain is within 2 samples of its integral by proof. Over changes no rule that
does not know the future can promise a number for any number of domains: whoever sees which half
of the domains was rounded down can move all weight to that half, again and again, and so force
an error of half the binary logarithm of D. Random and extreme changes stay below 1.8, and a
search for the worst changes found 1.91 (tests/sampling/test_sample_order.py; 12,000 logs of 24
domains). Where shares go linearly, a prefix may be off by a little more than 2.

Positions count samples from 0. Shapes: D domains.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from mixopt.sampling.order.pieces import (
    Exhausted,
    Origin,
    Piece,
    ShareChange,
    ShareLine,
    awake_line,
)
from mixopt.sampling.order.ramp_split import RampSplit
from mixopt.sampling.order.split_tree import SplitTree
from mixopt.sampling.order.timeline import Timeline
from mixopt.system import IntArray

_SETTLING = 4
_SPLITS_KEPT = 16


class DrawPlan:
    """Domains and ordinals of all positions: a pure function of its arguments."""

    def __init__(
        self,
        changes: Iterable[ShareChange],
        *,
        origin: Origin,
        limits_D: Sequence[int | None],
        stops: bool = False,
    ) -> None:
        """Lay out the first piece; the others follow when they are asked for.

        Args:
            changes: Shares, in order of position; the first holds from the origin.
            origin: Where the plan starts.
            limits_D: How often each domain may be drawn; None for no limit.
            stops: Whether the stream ends when a limit is reached; else the domain's share goes
                to the others.
        """
        self.changes = changes if isinstance(changes, Timeline) else Timeline(changes)
        self.origin = origin
        self.limits_D = tuple(limits_D)
        self.stops = stops
        self.end: int | None = None
        self._last_out: tuple[int, ...] = ()  # what ran out at the end
        self._splits: dict[int, SplitTree | RampSplit] = {}
        self._pieces: Timeline[Piece] = Timeline()
        self._lock = threading.RLock()
        self._append_first()

    def changed(self, change: ShareChange) -> DrawPlan:
        """Return the plan with shares that hold from a position on; it keeps later changes."""
        plan = DrawPlan.__new__(DrawPlan)
        with self._lock:
            plan.__setstate__(self.__getstate__())
        plan.changes = self.changes.changed(change)
        plan._cut(change.position)
        return plan

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock, which belongs to this process."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make another lock."""
        vars(self).update(state, _lock=threading.RLock())

    @property
    def exhausted(self) -> list[Exhausted]:
        """The domains that ran out in what was laid out so far."""
        events = [Exhausted(piece.position, d) for piece in self._pieces for d in piece.ran_out]
        end = self.end
        return events if end is None else [*events, *(Exhausted(end, d) for d in self._last_out)]

    def counts(self, position: int) -> IntArray:
        """Count the positions before `position` by domain, shape (D,)."""
        return self._state(position)[0]

    def owed(self, position: int) -> IntArray:
        """Return the integral of each domain's shares less its count, in samples / UNIT."""
        return self._state(position)[1]

    def shares_at(self, position: int) -> tuple[int, ...]:
        """Return the shares in force, 0 for domains that are exhausted."""
        return self._piece(position).shares.at(position)

    def reach(self, position: int) -> int:
        """Return `position`, or the end of the stream where that comes before it."""
        self._extend(position)
        return position if self.end is None else min(position, self.end)

    def draw(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Return the domain of positions [start, stop), and its count before each of them."""
        domains, ordinals = [], []
        while start < stop:
            piece = self._piece(start)
            split = self._split(piece)
            last = min(stop, start + split.longest, stop if piece.stop is None else piece.stop)
            domain, ordinal = split.draw(start - piece.position, last - start)
            domains.append(domain)
            ordinals.append(ordinal + piece.counts_D[domain])
            start = last
        if len(domains) == 1:
            return domains[0], ordinals[0]
        empty = [np.empty(0, np.int64)]
        return np.concatenate(domains or empty), np.concatenate(ordinals or empty)

    def when_drawn(self, domain: int, count: int, before: int) -> int | None:
        """Return after how many positions a domain has been drawn `count` times.

        Args:
            domain: Its number.
            count: Draws, >= 1.
            before: Look no further than this position.
        """
        before = self.reach(before)
        if self.counts(before)[domain] < count:
            return None
        first, last = self.origin.position, before
        while first < last:
            middle = (first + last) // 2
            if self.counts(middle)[domain] < count:
                first = middle + 1
            else:
                last = middle
        return first

    def _state(self, position: int) -> tuple[IntArray, IntArray]:
        """Return counts and what is owed; at the start of a piece it knows them already."""
        piece = self._piece(position)
        if position == piece.position:
            return piece.counts_D.copy(), piece.owed_D.copy()
        return self._after(piece, position)

    def _after(self, piece: Piece, position: int) -> tuple[IntArray, IntArray]:
        split, length = self._split(piece), position - piece.position
        drawn = np.zeros(len(piece.counts_D), np.int64)
        drawn[split.domains] = split.counts(length)
        return piece.counts_D + drawn, piece.owed_after(drawn, length)

    def _piece(self, position: int) -> Piece:
        self._extend(position)
        piece = self._pieces.at(position)
        if piece is None or (self.end is not None and position > self.end):
            raise IndexError(f"position {position} is not in [{self.origin.position}, {self.end}]")
        return piece

    def _extend(self, position: int) -> None:
        with self._lock:
            while self.end is None:
                piece = self._pieces.last
                if piece is None or piece.stop is None or piece.stop > position:
                    return
                self._follow(piece, piece.stop)

    def _follow(self, piece: Piece, start: int) -> None:
        counts, owed = self._after(piece, start)
        change = self.changes.at(start)
        if change is not None and change.position == start:
            self._append(start, counts, owed, ShareLine.of(change), None)
        elif start == piece.asked.stop > piece.position:  # the end of a ramp
            last = piece.asked.last
            self._append(start, counts, owed, ShareLine(start, start, last, last), None)
        else:
            self._append(start, counts, owed, piece.asked, piece.length * 2)

    def _append(
        self, start: int, counts_D: IntArray, owed_D: IntArray, asked: ShareLine, length: int | None
    ) -> None:
        out = self._ran_out(counts_D, asked)
        if out:
            asked, length = asked.without(out, start), None
        if (self.stops and out) or not any(asked.first):
            self.end, self._last_out = start, out
            return
        length = length or _SETTLING * len(counts_D)
        shares = asked.whole()
        awake = awake_line(shares, owed_D.tolist(), start, length)
        stop = None if awake == shares else start + length
        piece = Piece(start, stop, asked, shares, awake, counts_D, owed_D, length, out)
        self._pieces = self._pieces.changed(replace(piece, stop=self._stop(piece)))

    def _append_first(self) -> None:
        counts, owed = (np.array(c, np.int64) for c in (self.origin.counts_D, self.origin.owed_D))
        first = next(iter(self.changes))
        self._append(self.origin.position, counts, owed, ShareLine.of(first), None)

    def _ran_out(self, counts_D: IntArray, asked: ShareLine) -> tuple[int, ...]:
        """Return the domains that have a share and were drawn as often as they may be."""
        return tuple(
            d
            for d, limit in enumerate(self.limits_D)
            if limit is not None and (asked.first[d] or asked.last[d]) and counts_D[d] >= limit
        )

    def _stop(self, piece: Piece) -> int | None:
        start = piece.position
        stops = [] if piece.stop is None else [piece.stop]
        stops += [change.position for change in islice(self.changes.after(start), 1)]
        if piece.asked.stop > start:
            stops.append(piece.asked.stop)
        if any(limit is not None for limit in self.limits_D):
            split = self._split(piece)
            full = split.first_full(self._left(piece, split.domains))
            stops += [] if full is None else [start + full]
        return min(stops, default=None)

    def _left(self, piece: Piece, domains: list[int]) -> dict[int, int]:
        """Return how often domains may still be drawn from a piece on, where there is a limit."""
        limits = ((d, self.limits_D[d]) for d in domains)
        return {d: limit - int(piece.counts_D[d]) for d, limit in limits if limit is not None}

    def _split(self, piece: Piece) -> SplitTree | RampSplit:
        split = self._splits.get(piece.position)
        if split is None:
            if len(self._splits) >= _SPLITS_KEPT:
                self._splits = {}
            split = self._splits[piece.position] = _split_of(piece)
        return split

    def _cut(self, position: int) -> None:
        """Forget what was laid out from `position` on."""
        self._pieces = self._pieces.before(position)
        self._splits = {start: one for start, one in self._splits.items() if start < position}
        if self.end is not None and self.end >= position:
            self.end, self._last_out = None, ()
        last = self._pieces.last
        if last is None:
            self._append_first()
        elif last.stop is None or last.stop > position:
            self._pieces = self._pieces.changed(replace(last, stop=position))


def _split_of(piece: Piece) -> SplitTree | RampSplit:
    """Return what deals a piece out; what is owed to domains that are not drawn is spread."""
    line, owed = piece.awake, piece.owed_D.tolist()
    drawn = [d for d, shares in enumerate(zip(line.first, line.last, strict=True)) if any(shares)]
    mean = sum(owed[d] for d in drawn) // len(drawn)
    debts = [debt - mean for debt in owed]
    if line.stays(piece.position):
        return SplitTree(line.last, debts)
    return RampSplit(line, piece.position, debts, piece.length)
