"""The order of samples of different lengths, with debts in tokens: fair queueing.

Samples of a window are taken one by one. A domain's next sample is eligible once the ideal stream
would have begun it; the eligible sample that the ideal stream would end first is taken next.

Shapes: D domains.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np

from mixopt.sampling.order import Exhaustion, OrderLayout, Place, SampleOrder, Samples, Stretch
from mixopt.sampling.shares import UNIT, ShareChange, spread
from mixopt.system import int_array

_LENGTHS_AHEAD = 64  # draws of a domain whose lengths are looked up together


class _LengthBlock(NamedTuple):
    """The lengths of consecutive draws of a domain."""

    number: int  # of the block; -1: of none
    lengths: list[int]


class TokenOrder(SampleOrder):
    """Rows of each global window, with debts in tokens."""

    def __init__(self, layout: OrderLayout, changes: Sequence[ShareChange], start: Place) -> None:
        super().__init__(layout, changes, start)
        self._blocks = [_LengthBlock(-1, [])] * len(layout.names)

    def _deal(self, place: Place, max_windows: int) -> Stretch | None:
        change = self.change_at(place.window)
        parts = change.parts(place.window, place.exhausted_domains())
        window = _TokenWindow(self, place, parts)
        while len(window.domains) < self.layout.window_size:
            if not window.take():
                return None
        samples = Samples(int_array([window.domains]), int_array([window.ordinals]))
        return Stretch.single(place, window.place(), samples)

    def _samples(self, stretches: list[Stretch]) -> Samples:
        blocks = [stretch.samples for stretch in stretches if stretch.samples is not None]
        domains_KW = np.concatenate([block.domains_KW for block in blocks])
        ordinals_KW = np.concatenate([block.ordinals_KW for block in blocks])
        return Samples(domains_KW, ordinals_KW)

    def length(self, domain: int, ordinal: int) -> int:
        """Return the tokens of the sample of a domain's draw number `ordinal`."""
        lengths = self.layout.lengths[domain]
        if isinstance(lengths, int):
            return lengths
        number, offset = divmod(ordinal, _LENGTHS_AHEAD)
        block = self._blocks[domain]  # read once: loader threads call
        if block.number != number:
            ordinals = np.arange(number * _LENGTHS_AHEAD, (number + 1) * _LENGTHS_AHEAD)
            rows = self._rows.rows(np.full(_LENGTHS_AHEAD, domain), ordinals)
            block = _LengthBlock(number, lengths[rows].tolist())
            self._blocks[domain] = block
        return block.lengths[offset]


class _TokenWindow:
    """The samples of one window, taken one by one."""

    def __init__(self, order: TokenOrder, place: Place, parts: list[int]) -> None:
        self._order = order
        self._window = place.window
        self._parts = parts
        self._counts: list[int] = place.counts_D.tolist()
        self._had: list[int] = place.had_D.tolist()
        self._owed: list[int] = place.owed_D.tolist()
        self._exhausted = list(place.exhausted)
        self._left = np.maximum(order._limits - place.counts_D, 0).tolist()
        self.domains: list[int] = []
        self.ordinals: list[int] = []
        self._queue_domains()

    def take(self) -> bool:
        """Take a sample; return False at the end of the stream."""
        ready = self._ready
        waiting = self._waiting
        if not ready and not waiting:
            return False
        if not ready:  # the debt of a domain without a share is missing from the others
            _, first = heappop(waiting)
            ready.append((self._finish(first), first))
        finish, d = heappop(ready)
        if not self._left[d]:
            return False
        self.domains.append(d)
        self.ordinals.append(self._counts[d])
        self._counts[d] += 1
        self._left[d] -= 1
        self._tokens += self._next[d]
        self._taken[d] += self._next[d]
        self._next[d] = self._order.length(d, self._counts[d])
        if finish <= self._tokens:
            heappush(ready, (self._finish(d), d))
        else:
            heappush(waiting, (finish, d))
        while waiting and waiting[0][0] <= self._tokens:
            _, domain = heappop(waiting)
            heappush(ready, (self._finish(domain), domain))
        if not self._left[d] and not self._order.layout.stops:
            self._add_to_totals()
            self._queue_domains()
        return True

    def place(self) -> Place:
        """Return the place after the window."""
        self._add_to_totals()
        return Place(
            window=self._window + 1,
            counts_D=int_array(self._counts),
            owed_D=np.array(self._owed, object),
            had_D=int_array(self._had),
            exhausted=tuple(self._exhausted),
        )

    def _queue_domains(self) -> None:
        """Queue the domains that have samples left; divide the debts of the others among them."""
        if not self._order.layout.stops:
            self._drop_exhausted()
        domains = len(self._parts)
        self._shares = spread(self._parts, UNIT) if any(self._parts) else [0] * domains
        self._taken = [0] * domains  # tokens of each domain under the current shares
        self._tokens = 0  # their sum
        self._next = [0] * domains  # tokens of each domain's next sample
        self._ready: list[tuple[int, int]] = []  # (finish, domain) of eligible samples
        self._waiting: list[tuple[int, int]] = []  # (start, domain) of the others
        for d, share in enumerate(self._shares):
            if share:
                self._next[d] = self._order.length(d, self._counts[d])
                start = -self._owed[d] // share
                if start <= 0:
                    self._ready.append((self._finish(d), d))
                else:
                    self._waiting.append((start, d))
        heapify(self._ready)
        heapify(self._waiting)

    def _drop_exhausted(self) -> None:
        """Divide the debts of domains without samples left among the domains that remain."""
        for d, part in enumerate(self._parts):
            if not part or self._left[d]:
                continue
            self._exhausted.append(Exhaustion(self._window, d))
            self._parts[d] = 0
            if any(self._parts):
                more = spread(self._parts, self._owed[d])
                self._owed[d] = 0
                self._owed = [debt + due for debt, due in zip(self._owed, more, strict=True)]

    def _add_to_totals(self) -> None:
        """Add the tokens taken under the current shares to the totals."""
        for d, (share, tokens) in enumerate(zip(self._shares, self._taken, strict=True)):
            self._had[d] += tokens
            self._owed[d] += share * self._tokens - UNIT * tokens

    def _finish(self, d: int) -> int:
        """Return the tokens after which the ideal stream ends a domain's next sample."""
        return (UNIT * (self._taken[d] + self._next[d]) - self._owed[d]) // self._shares[d]
