"""Choose the next domain where samples differ in length: weighted fair queueing of tokens.

Of the domains whose next sample an ideal, infinitely divisible stream would have begun by now, the
one whose next sample that stream would finish first is taken (worst-case fair weighted fair
queueing, WF2Q; Bennett and Zhang 1996). With shares that do not change no domain is then further
than its longest sample from its share of the tokens, on either side, whatever the lengths are.

It is sequential: what comes next follows from what is owed, which is all of its state. Everything
is an integer, so two machines agree, and a queue that resumes from what is owed takes the same
samples as one that was not interrupted.

Shapes: D domains. "Owed" is in tokens / UNIT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from mixopt.sampling.shares import UNIT


class FairQueue:
    """The samples of a stretch in which shares do not change."""

    __slots__ = ("_before", "_length", "_next", "_owed", "_ready", "_shares", "_tokens", "_waiting")

    def __init__(
        self, shares_D: Sequence[int], owed_D: Sequence[int], length: Callable[[int], int]
    ) -> None:
        """Begin with what is owed."""
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
