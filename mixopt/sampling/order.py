"""The order of samples: how many samples of each domain a window has, and which rows.

A window is the global batch of the sampler that began the stream. Each window owes each domain its
share. The domain gets the whole samples of this debt; the rest of the window goes to the domains
whose next samples are due first, and the remaining debt is carried, so that the error never grows:
under constant shares, a domain is within one sample of their integral at the end of every window.
(No rule can guarantee this under all changes: an adversary who sees which domain was rounded down
can move all weight there, again and again.) If lengths differ, mixopt.sampling.token_order owes
tokens. Windows shuffle their samples, epochs permute the rows (mixopt.sampling.permutation).

A window depends only on the debts and draws before it and on its shares: not on ranks, workers,
restarts, or the number of windows laid out at once. All arithmetic is on integers: a weight times
2^42 is exact in binary floating point, so its floor is too; the remainder goes to the largest
fractions. A share is within 2^-42 of its weight: 0.2 samples after 10^12.

Shapes: D domains, W samples of a window, K windows, B samples of a batch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from copy import copy
from functools import lru_cache
from itertools import accumulate, pairwise, repeat
from typing import Any, Literal, NamedTuple

import numpy as np

from mixopt.sampling.permutation import RowOrder, domain_key, window_order
from mixopt.system import AnyArray, IntArray, int_array

Shares = tuple[int, ...]  # of domains, adding up to UNIT
Unit = Literal["samples", "tokens", "supervised"]

UNIT_BITS = 42
UNIT = 1 << UNIT_BITS  # a share of 1
_NO_LIMIT = 1 << 62
_RECENT_WINDOWS = 1024  # whose places stay in memory; of older windows, one in so many
_MAX_STRETCH = 256  # windows
_FINER_BITS = 14
_MAX_INT64_DEBT = 16  # samples; with finer units, a larger debt may exceed 64 bits
_NEVER = 1 << 62


def whole_shares(weights_D: Sequence[float]) -> Shares:
    """Round weights to multiples of 1 / UNIT that keep their sum."""
    total = math.fsum(weights_D)
    exact = [weight / total * UNIT for weight in weights_D]
    shares = [max(int(value), 1) if value > 0 else 0 for value in exact]
    missing = UNIT - sum(shares)
    if missing < 0:  # weights below 1 / UNIT were rounded up
        shares[max(range(len(shares)), key=shares.__getitem__)] += missing
        return tuple(shares)
    fraction = [value - share for value, share in zip(exact, shares, strict=True)]
    order = sorted(range(len(shares)), key=lambda d: (-fraction[d], d))
    for k in range(missing):
        shares[order[k % len(order)]] += 1
    return tuple(shares)


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

    def arrived(self, window: int) -> Shares | None:
        """Return the shares from a window on if they are constant; None on a ramp."""
        return self.end_shares if window >= self.end_window else None

    def parts(self, window: int, exhausted: Collection[int] = ()) -> list[int]:
        """Return the proportions of a window, 0 for exhausted domains; on a ramp, at mid-window."""
        parts: Sequence[int] | None = self.arrived(window)
        if parts is None:
            length, passed = 2 * (self.end_window - self.window), 2 * (window - self.window) + 1
            pairs = zip(self.shares, self.end_shares, strict=True)
            parts = [(length - passed) * first + passed * last for first, last in pairs]
        return [0 if d in exhausted else part for d, part in enumerate(parts)]


class Place(NamedTuple):
    """The progress of an order before a window, shape (D,) each."""

    window: int
    counts_D: IntArray  # samples drawn from each domain
    # Integral of the shares - had_D, times UNIT.
    owed_D: AnyArray
    had_D: IntArray  # samples or tokens drawn from each domain
    # (window, domain) of the domains that ran out.
    ended: tuple[tuple[int, int], ...] = ()


class Stretch(NamedTuple):
    """Consecutive windows, computed together."""

    before: Place  # the place before the first window
    counts_KD: IntArray  # Place.counts_D after each window
    owed_KD: AnyArray  # Place.owed_D after each window
    had_KD: IntArray  # Place.had_D after each window
    ended: tuple[tuple[int, int], ...]  # after the last; a window in which a domain ends is alone
    # Domain and ordinal of each sample, if they are not sorted by domain.
    samples_KW: tuple[IntArray, IntArray] | None = None

    @classmethod
    def single(cls, before: Place, after: Place, samples: Any = None) -> Stretch:
        """Return a stretch of one window."""
        _, counts_D, owed_D, had_D, exhausted = after
        return cls(before, counts_D[None], owed_D[None], had_D[None], exhausted, samples)

    def place(self, window: int) -> Place:
        """Return the place before a window of the stretch, or after its last."""
        k = window - self.before.window - 1
        if k < 0:
            return self.before
        return Place(window, self.counts_KD[k], self.owed_KD[k], self.had_KD[k], self.ended)


class OrderLayout(NamedTuple):
    """The domains and settings of an order of samples."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]  # rows of each domain
    seed: int  # of the order of rows and of the shuffle in a window
    window_size: int  # samples of a global window
    limits: tuple[int | None, ...]  # maximum draws of each domain; None: no limit
    stops: bool  # whether the stream ends at a limit; else the others take the domain's share
    unit: Unit  # unit of the debts
    # Tokens of each row of each domain, or one number for all rows; empty for unit "samples".
    lengths: tuple[int | IntArray, ...]

    def start(self) -> Place:
        """Return the place before the first window."""
        zeros = np.zeros(len(self.names), np.int64)
        return Place(0, zeros, zeros if self.unit == "samples" else zeros.astype(object), zeros)


class SampleOrder:
    """Rows of each global window; immutable except for its cache of places."""

    def __init__(self, layout: OrderLayout, changes: Sequence[ShareChange], start: Place) -> None:
        self.layout = layout
        self.changes = tuple(changes)
        self.start = start
        self._change_windows = [change.window for change in changes]
        keys = [domain_key(layout.seed, name) for name in layout.names]
        self._rows = RowOrder(layout.sizes, keys)
        self._offsets = int_array([*accumulate(layout.sizes, initial=0)][:-1])
        self._shuffle = domain_key(layout.seed, "\nwindows")
        limits = [_NO_LIMIT if limit is None else limit for limit in layout.limits]
        self._limits = int_array(limits)
        self._has_limits = any(limit is not None for limit in layout.limits)
        self._stretches = {start.window: Stretch.single(start, start)}  # each has its window
        self._end: int | None = None

    def changed(self, changes: Sequence[ShareChange], window: int) -> SampleOrder:
        """Return the order with other shares from a window on."""
        changed = copy(self)
        changed.changes = tuple(changes)
        changed._change_windows = [change.window for change in changes]
        changed._stretches = {w: s for w, s in list(self._stretches.items()) if w <= window}
        changed._end = self._end if self._end is not None and self._end < window else None
        return changed

    def change_at(self, window: int) -> ShareChange:
        """Return the change that applies to a window; before all changes, the first."""
        return self.changes[max(bisect_right(self._change_windows, window) - 1, 0)]

    def place(self, window: int) -> Place | None:
        """Return the place before a window; None if the stream does not contain it."""
        cached = self._stretches.get(window)
        if cached is not None:
            return cached.place(window)
        if window < self.start.window:
            return None
        stretches = dict(self._stretches)  # a loader's thread may drop some meanwhile
        nearest = max(w for w in stretches if w <= window)
        place = stretches[nearest].place(nearest)
        while place.window < window:
            stretch = self._next(place, window - place.window)
            if stretch is None:
                return None
            place = stretch.place(place.window + len(stretch.counts_KD))
        return place

    def has(self, window: int) -> bool:
        """Whether the stream contains the whole window."""
        return self.place(window + 1) is not None

    def end(self) -> int | None:
        """Return the number of windows of the stream; None: it does not end."""
        last = self.changes[-1]
        window = max(last.end_window, self.start.window)
        pairs = zip(last.parts(window), self.layout.limits, strict=True)
        limited = [limit is not None for part, limit in pairs if part]
        may_end = any(limited) if self.layout.stops else all(limited)
        while self.has(window) and may_end:
            window += 1
        return self._end

    def _prune(self, window: int) -> None:
        """Drop places long before a window, except some from which the others are computed."""
        for w, stretch in list(self._stretches.items()):
            if not self.start.window < w < window - _RECENT_WINDOWS:
                continue
            if w % _RECENT_WINDOWS:
                self._stretches.pop(w, None)
            elif stretch.before.window < w:  # frees the rest of its stretch
                _, counts_D, owed_D, had_D, ended = stretch.place(w)
                place = Place(w, counts_D.copy(), owed_D.copy(), had_D.copy(), ended)
                self._stretches[w] = Stretch.single(place, place)

    def rows(self, window: int, max_windows: int = 1) -> IntArray:
        """Return rows as integers into the concatenation of the domains, shape (K, W)."""
        domain_KW, ordinal_KW = self._lay_out(window, max_windows)
        domain = domain_KW.ravel()
        rows = self._rows.rows(domain, ordinal_KW.ravel()) + self._offsets[domain]
        return self._shuffled(window, rows.reshape(domain_KW.shape))

    def domains(self, window: int) -> IntArray:
        """Return the domains of a window's samples, shape (W,)."""
        domains: IntArray = self._shuffled(window, self._lay_out(window, 1)[0])[0]
        return domains

    def _shuffled(self, window: int, values_KW: IntArray) -> IntArray:
        order = window_order(self._shuffle, window, *values_KW.shape)
        return np.take_along_axis(values_KW, order, axis=1)

    def _lay_out(self, window: int, max_windows: int) -> tuple[IntArray, IntArray]:
        """Return the domain and ordinal of each sample, not shuffled, shape (K, W)."""
        place, stretches, windows = self.place(window), list[Stretch](), 0
        while place is not None and windows < max_windows:
            stretch = self._next(place, max_windows - windows)
            if stretch is None:
                break
            stretches.append(stretch)
            windows += len(stretch.counts_KD)
            place = stretch.place(window + windows)
        if not stretches:
            empty = np.empty((0, self.layout.window_size), np.int64)
            return empty, empty
        return self._samples(stretches)

    def _next(self, place: Place, max_windows: int) -> Stretch | None:
        """Deal some windows and cache their places; None at the end of the stream."""
        if self._end == place.window:
            return None
        stretch = self._deal(place, min(max_windows, _MAX_STRETCH))
        if stretch is None:
            self._end = place.window
            return None
        last = place.window + len(stretch.counts_KD)
        self._stretches.update(zip(range(place.window + 1, last + 1), repeat(stretch)))
        if place.window // _RECENT_WINDOWS != last // _RECENT_WINDOWS:
            self._prune(place.window)
        return stretch

    def _deal(self, place: Place, max_windows: int) -> Stretch | None:
        """Deal some windows; None if the stream ends before a whole window."""
        change = self.change_at(place.window)
        parts = change.parts(place.window, [d for _, d in place.ended])
        if not any(parts):
            return None
        due = _due(tuple(parts), self.layout.window_size)
        later = bisect_right(self._change_windows, place.window)
        if later < len(self._change_windows):
            max_windows = min(max_windows, self._change_windows[later] - place.window)
        if change.arrived(place.window) is None:
            max_windows = 1
        counts_KD, owed_KD = _deal_windows(place, due, max_windows)
        if self._has_limits:
            before_KD = np.concatenate([place.counts_D[None], counts_KD[:-1]])
            is_over = (counts_KD > self._limits).any(axis=1)
            full_KD = before_KD >= self._limits
            is_over |= full_KD[:, due.drawn_from].any(axis=1)
            max_windows = int(np.argmax(is_over)) if is_over.any() else max_windows
            if not max_windows:
                last = None if self.layout.stops else self._deal_to_limits(place)
                return None if last is None else Stretch.single(place, last)
        counts_KD = counts_KD[:max_windows]
        return Stretch(place, counts_KD, owed_KD[:max_windows], counts_KD, place.ended)

    def _deal_to_limits(self, place: Place) -> Place | None:
        """Deal a window in which domains run out; their remaining debts go to the others."""
        change, exhausted = self.change_at(place.window), [d for _, d in place.ended]
        counts, owed = place.counts_D, place.owed_D.tolist()
        remaining = np.maximum(self._limits - counts, 0).tolist()
        parts = change.parts(place.window, exhausted)
        last = {d: 0 for d, part in enumerate(parts) if part and not remaining[d]}
        while True:
            size = self.layout.window_size - sum(last.values())
            parts = change.parts(place.window, [*exhausted, *last])
            rest = [0 if d in last else debt for d, debt in enumerate(owed)]
            drawn = [last.get(d, 0) for d in range(len(owed))]
            if any(parts):
                more = spread(parts, (size << UNIT_BITS) + sum(owed[d] for d in last))
                rest = [debt + due for debt, due in zip(rest, more, strict=True)]
            elif size:
                return None
            for _ in range(size if any(parts) else 0):  # each sample to the largest debt
                d = max((d for d, part in enumerate(parts) if part), key=lambda d: (rest[d], -d))
                drawn[d] += 1
                rest[d] -= UNIT
            over = [d for d, rows in enumerate(drawn) if d not in last and rows > remaining[d]]
            if not over:
                break
            last |= {d: remaining[d] for d in over}
        counts_D, owed_D = counts + np.array(drawn), int_array(rest)
        exhausted_now = tuple((place.window, d) for d in sorted(last))
        return Place(place.window + 1, counts_D, owed_D, counts_D, (*place.ended, *exhausted_now))

    def _samples(self, stretches: list[Stretch]) -> tuple[IntArray, IntArray]:
        """Return the domain and ordinal of each sample, each window sorted by domain."""
        first = stretches[0].before.counts_D[None]
        counts_KD = np.concatenate([first, *(stretch.counts_KD for stretch in stretches)])
        drawn = np.diff(counts_KD, axis=0).ravel()
        windows, domains = len(counts_KD) - 1, len(self.layout.names)
        domain = np.repeat(np.tile(np.arange(domains), windows), drawn)
        ahead = counts_KD[:-1].ravel() - (np.cumsum(drawn) - drawn)
        ordinal = np.arange(len(domain)) + np.repeat(ahead, drawn)
        return domain.reshape(windows, -1), ordinal.reshape(windows, -1)


class _Due(NamedTuple):
    """Samples due in a window."""

    whole_D: IntArray  # whole samples of each domain
    rest_D: IntArray  # the fractions beyond them, times UNIT
    missing: int  # samples that go to the domains that are due first
    drawn_from: IntArray  # the domains that have a share


@lru_cache(maxsize=64)
def _due(parts: tuple[int, ...], size: int) -> _Due:
    """Return the samples due in a window of `size` samples, in proportion to `parts`."""
    due = spread(parts, size << UNIT_BITS)
    wholes = [amount >> UNIT_BITS for amount in due]
    rest = int_array([amount & (UNIT - 1) for amount in due])
    drawn_from = np.array([d for d, amount in enumerate(due) if amount])
    return _Due(int_array(wholes), rest, size - sum(wholes), drawn_from)


def _deal_windows(place: Place, due: _Due, windows: int) -> tuple[IntArray, IntArray]:
    """Return counts and debts after each of some windows with equal shares, shape (K, D).

    A domain's next sample opens once part of it is owed; its deadline is the window that would
    leave the whole sample owed. The rest of a window goes to the earliest deadlines; a domain may
    get two samples, so it has two entries below. The fractional shares fill all windows with each
    sample between opening and deadline, and earliest deadline first succeeds whenever a schedule
    exists: a domain that starts without debt is never off by a whole sample.
    """
    drawn_from = due.drawn_from
    is_small = np.abs(place.owed_D).max() < _MAX_INT64_DEBT * UNIT
    kind: Any = np.int64 if is_small else object
    owed, rest = place.owed_D[drawn_from].astype(kind), due.rest_D[drawn_from].astype(kind)
    # Shares until two samples of each domain are due, in finer units than UNIT.
    ahead = np.concatenate([UNIT - 1 - owed, 2 * UNIT - 1 - owed]) << _FINER_BITS
    step, unit = np.concatenate([rest, rest]) << _FINER_BITS, UNIT << _FINER_BITS
    pace = np.maximum(np.concatenate([rest, rest]), 1)
    twin = np.roll(np.arange(2 * len(drawn_from)), len(drawn_from))
    first_K, time, closed = np.empty((windows, due.missing), np.int64), pace.copy(), unit - 1
    for k in range(windows):
        ahead -= step
        np.floor_divide(ahead, pace, out=time)
        np.putmask(time, ahead >= closed, _NEVER)
        first = time.argsort(kind="stable")[: due.missing]
        ahead[first] += unit
        ahead[twin[first]] += unit
        first_K[k] = first
    domains, number = len(due.whole_D), np.arange(windows)[:, None]
    places = drawn_from[first_K % len(drawn_from)] + number * domains
    extra_KD = np.bincount(places.ravel(), minlength=windows * domains).reshape(windows, domains)
    counts_KD = place.counts_D + np.cumsum(extra_KD + due.whole_D, axis=0)
    owed_KD = place.owed_D + (number + 1) * due.rest_D - np.cumsum(extra_KD, axis=0) * UNIT
    return counts_KD, owed_KD
