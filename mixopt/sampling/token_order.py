"""The order of samples of different lengths, with debts in tokens: fair queueing.

Samples of a window are taken one by one. A domain's next sample is eligible once the ideal stream
would have begun it; the eligible sample that the ideal stream would end first is taken next.

Shapes: D domains.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from mixopt.sampling.order import (
    UNIT,
    OrderLayout,
    Place,
    SampleOrder,
    ShareChange,
    Stretch,
    spread,
)
from mixopt.system import IntArray, int_array

_LENGTHS_AHEAD = 64


class TokenOrder(SampleOrder):
    """Rows of each global window, with debts in tokens."""

    def __init__(self, layout: OrderLayout, changes: Sequence[ShareChange], start: Place) -> None:
        super().__init__(layout, changes, start)
        self._ahead: list[tuple[int, list[int]]] = [(-1, [])] * len(layout.names)

    def _deal(self, place: Place, max_windows: int) -> Stretch | None:
        change = self.change_at(place.window)
        window = _TokenWindow(self, place, change.parts(place.window, [d for _, d in place.ended]))
        while len(window.domains) < self.layout.window_size:
            if not window.take():
                return None
        samples = (int_array([window.domains]), int_array([window.ordinals]))
        return Stretch.single(place, window.place(), samples)

    def _samples(self, stretches: list[Stretch]) -> tuple[IntArray, IntArray]:
        parts = [stretch.samples_KW for stretch in stretches if stretch.samples_KW is not None]
        domains, ordinals = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return domains, ordinals

    def length(self, domain: int, ordinal: int) -> int:
        """Return the tokens of the sample of a domain's draw number `ordinal`."""
        lengths = self.layout.lengths[domain]
        if isinstance(lengths, int):
            return lengths
        number, place = divmod(ordinal, _LENGTHS_AHEAD)
        cached, ahead = self._ahead[domain]
        if cached != number:
            ordinals = np.arange(number * _LENGTHS_AHEAD, (number + 1) * _LENGTHS_AHEAD)
            rows = self._rows.rows(np.full(_LENGTHS_AHEAD, domain), ordinals)
            ahead = lengths[rows].tolist()
            self._ahead[domain] = number, ahead
        return ahead[place]


class _TokenWindow:
    """The samples of one window, taken one by one."""

    def __init__(self, order: TokenOrder, place: Place, parts: list[int]) -> None:
        self._order, self._window, self._parts = order, place.window, parts
        self._counts: list[int] = place.counts_D.tolist()
        self._had: list[int] = place.had_D.tolist()
        self._owed: list[int] = place.owed_D.tolist()
        self._ended = list(place.ended)
        self._left = np.maximum(order._limits - place.counts_D, 0).tolist()
        self.domains: list[int] = []
        self.ordinals: list[int] = []
        self._begin()

    def take(self) -> bool:
        """Take a sample; return False at the end of the stream."""
        ready, waiting = self._ready, self._waiting
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
            self._settle()
            self._begin()
        return True

    def place(self) -> Place:
        """Return the place after the window."""
        self._settle()
        counts_D, had_D = int_array(self._counts), int_array(self._had)
        owed_D = np.array(self._owed, object)
        return Place(self._window + 1, counts_D, owed_D, had_D, tuple(self._ended))

    def _begin(self) -> None:
        """Queue the domains that have samples left; divide the debts of the others among them."""
        if not self._order.layout.stops:
            for d in [d for d, part in enumerate(self._parts) if part and not self._left[d]]:
                self._ended.append((self._window, d))
                self._parts[d] = 0
                if any(self._parts):
                    more = spread(self._parts, self._owed[d])
                    self._owed[d] = 0
                    self._owed = [a + b for a, b in zip(self._owed, more, strict=True)]
        count = len(self._parts)
        self._shares = spread(self._parts, UNIT) if any(self._parts) else [0] * count
        self._taken, self._tokens, self._next = [0] * count, 0, [0] * count
        starts = []
        for d, share in enumerate(self._shares):
            if share:
                self._next[d] = self._order.length(d, self._counts[d])
                starts.append((-self._owed[d] // share, d))
        self._ready = [(self._finish(d), d) for start, d in starts if start <= 0]
        self._waiting = [(start, d) for start, d in starts if start > 0]
        heapify(self._ready)
        heapify(self._waiting)

    def _settle(self) -> None:
        """Add the tokens taken under the current shares to the totals."""
        for d, (share, tokens) in enumerate(zip(self._shares, self._taken, strict=True)):
            self._had[d] += tokens
            self._owed[d] += share * self._tokens - UNIT * tokens

    def _finish(self, d: int) -> int:
        """Return the tokens after which the ideal stream ends a domain's next sample."""
        return (UNIT * (self._taken[d] + self._next[d]) - self._owed[d]) // self._shares[d]
