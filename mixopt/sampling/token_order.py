"""The order of samples that differ in length: each domain is owed tokens, not samples.

The batches come one after the other, since what is taken next depends on how long what came before
was (mixopt.sampling.order.fair_queue). What is kept of a batch is its `Origin`, of a few numbers a
domain, from which the order resumes; those that a loop can still ask for are kept. Within a batch
samples are shuffled, and rows come in a fresh permutation each epoch, as in SampleOrder.

Where lengths are not known, the next batch is laid out when `settle` has said how long the samples
of the last one were.

Shapes: D domains, B samples of a global batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.sampling.order import (
    UNIT,
    Exhausted,
    FairQueue,
    Origin,
    ShareChange,
    ShareLine,
    Timeline,
    whole_shares,
    window_order,
)
from mixopt.sampling.sample_lengths import SampleLengths, guessed_lengths
from mixopt.sampling.sample_order import StreamLayout, row_order, window_key
from mixopt.system import IntArray

KEPT = 64  # batches before the one that the loop is at
_BLOCK = 256  # samples of a domain whose lengths are looked up at once
_MOST_CHANGES = 1000  # of which it is kept what domains had had
_MOST_NUMBERS = 1 << 18  # that are kept of it
_AHEAD = 64  # batches that are laid out at once, at most


class TokenOrder:
    """Domain and row of every sample, batch after batch."""

    def __init__(
        self,
        layout: StreamLayout,
        lengths: SampleLengths,
        changes: Iterable[ShareChange],
        origin: Origin | None = None,
    ) -> None:
        """Begin at an origin.

        Args:
            layout: Domains, seed, batch size (its window) and limits.
            lengths: Tokens of each sample.
            changes: Shares of the tokens, in order of position; the first holds from the origin.
                Those of a ramp are, for the whole of a batch, what they are in its middle.
            origin: Where the order resumes, on a batch boundary; at the beginning if None.
        """
        zeros = (0,) * len(layout.names)
        self.layout = layout
        self.lengths = lengths
        self.changes = changes if isinstance(changes, Timeline) else Timeline(changes)
        self.rows = row_order(layout)
        self.shift = np.array(layout.shift or zeros, np.int64)
        place = origin or Origin(0, zeros, zeros, zeros)
        self._places = {place.position: place}
        self._exhausted: dict[int, Exhausted] = {}
        self._had = {place.position: place.tokens_D or zeros}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock, which belongs to this process."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make another lock."""
        vars(self).update(state, _lock=threading.Lock())

    def changed(self, change: ShareChange) -> TokenOrder:
        """Return the order with other shares from a position on; later changes are kept."""
        other = TokenOrder.__new__(TokenOrder)
        with self._lock:
            other.__setstate__(self.__getstate__())
            other._places = {p: o for p, o in self._places.items() if p <= change.position}
            other._had = {p: had for p, had in self._had.items() if p <= change.position}
            other._exhausted = {
                d: event for d, event in self._exhausted.items() if event.position < change.position
            }
        other.changes = self.changes.changed(change)
        return other

    def asked_at(self, position: int) -> tuple[tuple[int, ...], int | None]:
        """Return the shares that were set for a position, and where they change next."""
        change = self.changes.at(position) or next(iter(self.changes))
        later = [one.position for one in islice(self.changes.after(position), 1)]
        line, window = ShareLine.of(change), self.layout.window
        start = position - position % window
        if position < line.stop:
            later.append(start + window)
        return line.at(max(start + window // 2, line.start)), min(later, default=None)

    def begins_at(self, position: int) -> bool:
        """Whether weights that were set begin to hold at a position."""
        change = self.changes.at(position)
        return change is not None and change.position == position

    @property
    def first(self) -> int:
        """The first position that is kept."""
        with self._lock:
            return min(self._places)

    def batches(self, batch_size: int) -> TokenBatches:
        """Return what lays out batches from any one that is known, for one thread."""
        return TokenBatches(self, batch_size)

    def place(self, position: int) -> Origin:
        """Return what the order resumes from at a batch boundary, laying batches out up to there.

        Raises:
            SamplerError: It is long past, after the end, or follows from lengths that are not known
                yet.
        """
        with self._lock:
            place = self._places.get(position)
        if place is not None:
            return place
        if not self.lengths.are_known:
            batch = position // self.layout.window - 1
            raise SamplerError(
                f"batch {batch + 1} depends on the lengths of the samples of batch {batch}, which "
                "are unknown: iterate over a MixtureLoader without workers, or give "
                "MixtureSampler(lengths=)"
            )
        with self._lock:
            first = max((p for p in self._places if p <= position), default=None)
        if first is None:
            raise SamplerError(
                f"sample {position} is more than {KEPT} batches ago, and an order by tokens is "
                "not kept that long; load a state of that time"
            )
        size = self.layout.window
        reader = self.batches(size)
        for batch in range(first // size, position // size):
            if not len(reader.some(batch, 1)):
                break
        with self._lock:
            if position not in self._places:
                raise SamplerError(f"sample {position} is after the end of the stream")
            return self._places[position]

    def note(self, place: Origin) -> None:
        """Keep where a batch ended."""
        with self._lock:
            self._places[place.position] = place

    def forget(self, position: int) -> None:
        """Forget the places before a position."""
        with self._lock:
            for past in [p for p in self._places if p < position]:
                del self._places[past]

    def had(self, position: int) -> tuple[int, ...] | None:
        """Return the tokens of each domain before a position at which weights changed, or None.

        None where it is not known: nothing is laid out up to there, or a state that was loaded
        lies between.
        """
        with self._lock:
            place = self._places.get(position)
            return self._had.get(position) if place is None else place.tokens_D

    def changes_at(self, position: int, tokens_D: Sequence[int]) -> None:
        """Keep what each domain had had when weights changed."""
        with self._lock:
            while len(self._had) >= min(_MOST_CHANGES, max(_MOST_NUMBERS // len(tokens_D), 1)):
                del self._had[next(iter(self._had))]
            self._had[position] = tuple(tokens_D)

    def ran_out(self, event: Exhausted) -> None:
        """Keep that a domain ran out."""
        with self._lock:
            known = self._exhausted.get(event.domain)
            if known is None or event.position < known.position:
                self._exhausted[event.domain] = event

    def reach(self, position: int) -> int:
        """Return `position`, or the last one that is known where that comes first."""
        with self._lock:
            return min(position, max(self._places))

    def exhausted(self, position: int) -> list[Exhausted]:
        """Return the domains that ran out up to a position that was laid out."""
        with self._lock:
            events = sorted(self._exhausted.values())
        return [event for event in events if event.position <= position]

    def shares_at(self, position: int) -> tuple[int, ...]:
        """Return the shares of tokens in force at a position, 0 for domains that ran out.

        At the end of the stream, where nothing is left, those that were in force until then.
        """
        asked, events = self.asked_at(position)[0], self.exhausted(position)
        left = _left(asked, {event.domain for event in events})
        if not any(left):
            left = _left(asked, {event.domain for event in events if event.position < position})
        return left


class TokenBatches:
    """Rows of each global batch, as integers into the concatenation of the domains."""

    def __init__(self, order: TokenOrder, batch_size: int) -> None:
        """Lay nothing out yet.

        Args:
            order: The order of samples.
            batch_size: Samples of a global batch.
        """
        self.order = order
        self._size = batch_size
        self._offsets = np.array([0, *accumulate(order.layout.sizes)], np.int64)
        self._most = _AHEAD if order.lengths.are_known else 1
        self._first, self._block = 0, np.empty((0, batch_size), np.int64)
        self._cursor: _Cursor | None = None
        self._ahead = 1

    def has(self, batch: int) -> bool:
        """Whether the stream has the whole of a batch."""
        return len(self.some(batch, 1)) == 1

    def of(self, batch: int) -> IntArray:
        """Return the rows of a batch in the order of the ranks, shape (B,)."""
        rows: IntArray = self.some(batch, 1)[0]
        return rows

    def some(self, batch: int, most: int) -> IntArray:
        """Return rows of the batches from one on, shape (batches, B): `most` of them at most."""
        if not self._first <= batch < self._first + len(self._block):
            self._first, self._block = batch, self._lay_out(batch)
        return self._block[batch - self._first : batch - self._first + most]

    def settle(self, batch: int, tokens_D: Sequence[int]) -> None:
        """Record how many tokens of each domain a batch had, where lengths are learned.

        The next batch is laid out from there. All ranks say the same.
        """
        cursor = self._cursor
        if cursor is None or cursor.position != (batch + 1) * self._size:
            raise SamplerError(f"batch {batch} is not the one that was laid out last")
        cursor.settle(tokens_D)
        self.order.note(cursor.place())

    def _lay_out(self, batch: int) -> IntArray:
        position, order = batch * self._size, self.order
        cursor = self._cursor if order.lengths.are_known else None
        if cursor is None or cursor.position != position:
            cursor = self._cursor = _Cursor(order, order.place(position))
        domains, ordinals = list[int](), list[int]()
        for _ in range(self._ahead):
            drawn = cursor.draw(self._size)
            if drawn is None:
                break
            domains += drawn[0]
            ordinals += drawn[1]
            if order.lengths.are_known:
                order.note(cursor.place())
        self._ahead = min(self._ahead * 2, self._most)
        domain = np.array(domains, np.int64)
        row = order.rows.rows(domain, np.array(ordinals, np.int64) + order.shift[domain])
        rows_NB = (row + self._offsets[domain]).reshape(-1, self._size)
        places = window_order(window_key(order.layout), batch, len(rows_NB), self._size)
        return np.take_along_axis(rows_NB, places, axis=1)


class _Cursor:
    """Draws samples one after the other from a place on."""

    def __init__(self, order: TokenOrder, place: Origin) -> None:
        self._order = order
        self.position = place.position
        self._counts = list(place.counts_D)
        self._tokens = list(place.tokens_D or (0,) * len(place.counts_D))
        self._settle_here()
        self._asked_for = list(self._counts)
        self._ahead: list[list[int]] = [[] for _ in self._counts]
        self._begin(list(place.owed_D))

    def place(self) -> Origin:
        """Return what resumes from here."""
        owed = tuple(self._queue.owed())
        return Origin(self.position, tuple(self._counts), owed, tuple(self._had()))

    def draw(self, samples: int) -> tuple[list[int], list[int]] | None:
        """Draw the next samples; None where the stream ends before.

        Returns:
            The domain of each, and how often that was drawn before since the origin.
        """
        domains, ordinals = list[int](), list[int]()
        limits, counts = self._order.layout.limits, self._counts
        stop = self.position + samples
        while self.position < stop:
            if not any(self._shares):
                return None
            until = stop if self._change is None else min(stop, self._change)
            for _ in range(until - self.position):
                d = self._queue.take()
                domains.append(d)
                ordinals.append(counts[d])
                counts[d] += 1
                self.position += 1
                if counts[d] == limits[d]:
                    self._again(is_noted=True)
                    break
            if self.position == self._change:
                self._again(is_noted=self._order.begins_at(self.position))
        return domains, ordinals

    def settle(self, tokens_D: Sequence[int]) -> None:
        """Replace what the samples since the last time were guessed to have."""
        owed = self._queue.owed()
        had = self._had()
        guessed = [now - then for now, then in zip(had, self._settled, strict=True)]
        off = [actual - guess for actual, guess in zip(tokens_D, guessed, strict=True)]
        total = sum(off)
        self._tokens = [before + more for before, more in zip(had, off, strict=True)]
        owed = [
            before + share * total - UNIT * more
            for before, share, more in zip(owed, self._shares, off, strict=True)
        ]
        self._settle_here()
        if self._order.had(self.position) is not None:
            self._order.changes_at(self.position, self._tokens)
        self._begin(owed)

    def _settle_here(self) -> None:
        """Guess lengths by what is known to have been delivered up to here."""
        self._settled = list(self._tokens)
        self._guesses = guessed_lengths(self._counts, self._tokens)

    def _had(self) -> list[int]:
        """Return the tokens of each domain up to here."""
        return [b + more for b, more in zip(self._tokens, self._queue.taken(), strict=True)]

    def _again(self, *, is_noted: bool) -> None:
        """Begin another stretch with what is owed now; a batch of a ramp is none to note."""
        self._tokens, owed = self._had(), self._queue.owed()
        if is_noted:
            self._order.changes_at(self.position, self._tokens)
        self._begin(owed)

    def _begin(self, owed: list[int]) -> None:
        order, position = self._order, self.position
        asked, self._change = order.asked_at(position)
        out = self._out(asked)
        self._shares = (0,) * len(asked) if out and order.layout.stops else _left(asked, out)
        for d in range(len(self._counts)):
            self._hand_back(d)
        self._queue = FairQueue(self._shares, owed, self._length)

    def _out(self, asked: tuple[int, ...]) -> set[int]:
        """Return the domains that have a share and were drawn as often as they may be."""
        pairs = zip(self._counts, self._order.layout.limits, strict=True)
        out = {
            d
            for d, (count, limit) in enumerate(pairs)
            if asked[d] and limit is not None and count >= limit
        }
        for d in out:
            self._order.ran_out(Exhausted(self.position, d))
        return out

    def _length(self, d: int) -> int:
        lengths = self._order.lengths
        alike = lengths.alike(d)
        if alike is not None:
            return alike
        if not lengths.is_known(d):
            return self._guesses[d]
        ahead = self._ahead[d]
        if not ahead:
            first = self._asked_for[d] + int(self._order.shift[d])
            ordinal = np.arange(first, first + _BLOCK)
            rows = self._order.rows.rows(np.full(_BLOCK, d), ordinal)
            ahead.extend(reversed(lengths.of(d, rows)))
        self._asked_for[d] += 1
        return ahead.pop()

    def _hand_back(self, d: int) -> None:
        """Forget the length of a next sample that an ended stretch had asked for."""
        if self._asked_for[d] != self._counts[d]:
            self._asked_for[d] = self._counts[d]
            self._ahead[d] = []


def _left(asked: tuple[int, ...], out: set[int]) -> tuple[int, ...]:
    left = [0 if d in out else share for d, share in enumerate(asked)]
    return tuple(whole_shares(left)) if any(left) else tuple(left)
