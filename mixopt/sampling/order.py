"""The order of samples: how many samples of each domain a window has, and which rows.

A window is the global batch of the sampler that began the stream. Each window owes each domain its
share. The domain gets the whole samples of this debt; the rest of the window goes to the domains
whose next samples are due first, and the remaining debt is carried, so that the error never grows:
under constant shares, a domain is within one sample of their integral at the end of every window.
(No rule can guarantee this under all changes: an adversary who sees which domain was rounded down
can move all weight there, again and again.) If lengths differ, mixopt.sampling.token_order owes
tokens. Windows shuffle their samples, epochs permute the rows (mixopt.sampling.permutation).

A window depends only on the debts and draws before it and on its shares: not on ranks, workers,
restarts, or the number of windows laid out at once. All arithmetic is on integers
(mixopt.sampling.shares).

Shapes: D domains, W samples of a window, K windows, B samples of a batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np

from mixopt.sampling.permutation import RowOrder, domain_key, window_order
from mixopt.sampling.shares import UNIT, UNIT_BITS, ShareChange, spread
from mixopt.system import AnyArray, IntArray, int_array

Unit = Literal["samples", "tokens", "supervised"]

_NO_LIMIT = 1 << 62  # draws of a domain
_RECENT_WINDOWS = 1024  # whose places stay in memory; of older windows, one in 1024
_MAX_STRETCH = 256  # windows
_FINER_BITS = 14  # of the debts in _deal_windows, beyond those of UNIT
_MAX_INT64_DEBT = 16  # samples; with finer units, a larger debt may exceed 64 bits
_NEVER = 1 << 62  # the deadline of a sample that is not open yet


class Exhaustion(NamedTuple):
    """A domain that ran out, and the window in which it did."""

    window: int
    domain: int


class Place(NamedTuple):
    """The progress of an order before a window, shape (D,) each."""

    window: int
    counts_D: IntArray  # samples drawn from each domain
    # Integral of the shares - had_D, times UNIT.
    owed_D: AnyArray
    had_D: IntArray  # samples or tokens drawn from each domain
    exhausted: tuple[Exhaustion, ...] = ()

    def exhausted_domains(self) -> list[int]:
        """Return the domains that ran out."""
        return [exhaustion.domain for exhaustion in self.exhausted]

    def copy(self) -> Place:
        """Return an equal place that does not keep the arrays of its stretch in memory."""
        return Place(
            window=self.window,
            counts_D=self.counts_D.copy(),
            owed_D=self.owed_D.copy(),
            had_D=self.had_D.copy(),
            exhausted=self.exhausted,
        )


class Samples(NamedTuple):
    """The samples of consecutive windows, not shuffled."""

    domains_KW: IntArray  # domain of each sample
    ordinals_KW: IntArray  # number of the draw from its domain, from 0


class Stretch(NamedTuple):
    """Consecutive windows, computed together."""

    before: Place  # the place before the first window
    counts_KD: IntArray  # Place.counts_D after each window
    owed_KD: AnyArray  # Place.owed_D after each window
    had_KD: IntArray  # Place.had_D after each window
    # Place.exhausted after the last window; a window in which a domain runs out is alone.
    exhausted: tuple[Exhaustion, ...]
    samples: Samples | None = None  # if they are not sorted by domain

    @classmethod
    def single(cls, before: Place, after: Place, samples: Samples | None = None) -> Stretch:
        """Return a stretch of one window."""
        return cls(
            before=before,
            counts_KD=after.counts_D[None],
            owed_KD=after.owed_D[None],
            had_KD=after.had_D[None],
            exhausted=after.exhausted,
            samples=samples,
        )

    def place(self, window: int) -> Place:
        """Return the place before a window of the stretch, or after its last."""
        k = window - self.before.window - 1
        if k < 0:
            return self.before
        return Place(window, self.counts_KD[k], self.owed_KD[k], self.had_KD[k], self.exhausted)


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

    @property
    def debt_type(self) -> Any:
        """The dtype of debts: those in tokens may exceed 64 bits."""
        return np.int64 if self.unit == "samples" else object

    def limits_or(self, no_limit: int) -> list[int]:
        """Return the maximum draws of each domain, with a number for no limit."""
        return [no_limit if limit is None else limit for limit in self.limits]

    def start(self) -> Place:
        """Return the place before the first window."""
        zeros = np.zeros(len(self.names), np.int64)
        return Place(window=0, counts_D=zeros, owed_D=zeros.astype(self.debt_type), had_D=zeros)


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
        self._limits = int_array(layout.limits_or(_NO_LIMIT))
        self._has_limits = any(limit is not None for limit in layout.limits)
        # By window: the stretch that contains the place before it.
        self._stretches = {start.window: Stretch.single(start, start)}
        self._end: int | None = None

    def changed(self, changes: Sequence[ShareChange], window: int) -> SampleOrder:
        """Return the order with other shares from a window on."""
        changed = copy(self)
        changed.changes = tuple(changes)
        changed._change_windows = [change.window for change in changes]
        changed._stretches = {w: s for w, s in list(self._stretches.items()) if w <= window}
        if self._end is not None and self._end >= window:
            changed._end = None
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
                place = stretch.place(w).copy()
                self._stretches[w] = Stretch.single(place, place)

    def rows(self, window: int, max_windows: int = 1) -> IntArray:
        """Return rows as integers into the concatenation of the domains, shape (K, W)."""
        samples = self._lay_out(window, max_windows)
        domains = samples.domains_KW.ravel()
        rows = self._rows.rows(domains, samples.ordinals_KW.ravel()) + self._offsets[domains]
        return self._shuffled(window, rows.reshape(samples.domains_KW.shape))

    def domains(self, window: int) -> IntArray:
        """Return the domains of a window's samples, shape (W,)."""
        domains: IntArray = self._shuffled(window, self._lay_out(window, 1).domains_KW)[0]
        return domains

    def _shuffled(self, window: int, values_KW: IntArray) -> IntArray:
        order = window_order(self._shuffle, window, *values_KW.shape)
        return np.take_along_axis(values_KW, order, axis=1)

    def _lay_out(self, window: int, max_windows: int) -> Samples:
        stretches: list[Stretch] = []
        windows = 0
        place = self.place(window)
        while place is not None and windows < max_windows:
            stretch = self._next(place, max_windows - windows)
            if stretch is None:
                break
            stretches.append(stretch)
            windows += len(stretch.counts_KD)
            place = stretch.place(window + windows)
        if not stretches:
            empty = np.empty((0, self.layout.window_size), np.int64)
            return Samples(empty, empty)
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
        self._stretches |= dict.fromkeys(range(place.window + 1, last + 1), stretch)
        if place.window // _RECENT_WINDOWS != last // _RECENT_WINDOWS:
            self._prune(place.window)
        return stretch

    def _deal(self, place: Place, max_windows: int) -> Stretch | None:
        """Deal some windows; None if the stream ends before a whole window."""
        change = self.change_at(place.window)
        parts = change.parts(place.window, place.exhausted_domains())
        if not any(parts):
            return None
        due = _due(tuple(parts), self.layout.window_size)
        windows = min(max_windows, self._windows_of_equal_shares(place.window))
        counts_KD, owed_KD = _deal_windows(place, due, windows)
        if self._has_limits:
            windows = self._windows_within_limits(place.counts_D, counts_KD, due)
            if not windows:
                return self._deal_at_limits(place)
        counts_KD = counts_KD[:windows]
        return Stretch(
            before=place,
            counts_KD=counts_KD,
            owed_KD=owed_KD[:windows],
            had_KD=counts_KD,
            exhausted=place.exhausted,
        )

    def _windows_of_equal_shares(self, window: int) -> int:
        """Return how many windows from `window` on have the same shares, or _MAX_STRETCH."""
        if self.change_at(window).constant_shares(window) is None:
            return 1
        later = bisect_right(self._change_windows, window)
        if later < len(self._change_windows):
            return self._change_windows[later] - window
        return _MAX_STRETCH

    def _windows_within_limits(self, before_D: IntArray, counts_KD: IntArray, due: _Due) -> int:
        """Return how many windows come before the first that needs more rows than a limit."""
        before_KD = np.concatenate([before_D[None], counts_KD[:-1]])
        is_full_KD = before_KD >= self._limits
        is_over = (counts_KD > self._limits).any(axis=1)
        is_over |= is_full_KD[:, due.drawn_from].any(axis=1)
        if not is_over.any():
            return len(counts_KD)
        return int(np.argmax(is_over))

    def _deal_at_limits(self, place: Place) -> Stretch | None:
        """Deal a window in which domains run out; their remaining debts go to the others."""
        if self.layout.stops:
            return None
        change = self.change_at(place.window)
        owed = place.owed_D.tolist()
        remaining = np.maximum(self._limits - place.counts_D, 0).tolist()
        earlier = place.exhausted_domains()
        parts = change.parts(place.window, earlier)
        full = [d for d, part in enumerate(parts) if part and not remaining[d]]
        last = dict.fromkeys(full, 0)  # the last samples of domains that run out
        while True:
            parts = change.parts(place.window, [*earlier, *last])
            dealt = _deal_beside(last, parts, owed, self.layout.window_size)
            if dealt is None:
                return None
            drawn, debts = dealt
            over = [d for d, rows in enumerate(drawn) if d not in last and rows > remaining[d]]
            if not over:
                break
            for d in over:
                last[d] = remaining[d]
        counts_D = place.counts_D + np.array(drawn)
        exhausted = [Exhaustion(place.window, d) for d in sorted(last)]
        after = Place(
            window=place.window + 1,
            counts_D=counts_D,
            owed_D=int_array(debts),
            had_D=counts_D,
            exhausted=(*place.exhausted, *exhausted),
        )
        return Stretch.single(place, after)

    def _samples(self, stretches: list[Stretch]) -> Samples:
        """Return the samples, each window sorted by domain."""
        blocks = [stretches[0].before.counts_D[None]]
        blocks += [stretch.counts_KD for stretch in stretches]
        counts_KD = np.concatenate(blocks)
        drawn = np.diff(counts_KD, axis=0).ravel()
        windows = len(counts_KD) - 1
        domain_KD = np.tile(np.arange(len(self.layout.names)), windows)
        domains = np.repeat(domain_KD, drawn)
        ahead = counts_KD[:-1].ravel() - (np.cumsum(drawn) - drawn)
        ordinals = np.arange(len(domains)) + np.repeat(ahead, drawn)
        return Samples(domains.reshape(windows, -1), ordinals.reshape(windows, -1))


def _deal_beside(
    last: Mapping[int, int], parts: Sequence[int], owed: Sequence[int], window_size: int
) -> tuple[list[int], list[int]] | None:
    """Deal a window to exhausted domains, their `last` samples, and to the others by `parts`.

    Returns the samples drawn from each domain and the debts after the window; None if no other
    domain can fill it.
    """
    size = window_size - sum(last.values())
    sharing = [d for d, part in enumerate(parts) if part]
    if size and not sharing:
        return None
    drawn = [last.get(d, 0) for d in range(len(owed))]
    debts = list(owed)
    for d in last:
        debts[d] = 0
    if not sharing:
        return drawn, debts
    more = spread(parts, (size << UNIT_BITS) + sum(owed[d] for d in last))
    debts = [debt + due for debt, due in zip(debts, more, strict=True)]
    for _ in range(size):
        largest = max(sharing, key=debts.__getitem__)
        drawn[largest] += 1
        debts[largest] -= UNIT
    return drawn, debts


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
    integer: Any = np.int64 if is_small else object
    owed = place.owed_D[drawn_from].astype(integer)
    rest = due.rest_D[drawn_from].astype(integer)
    rest_twice = np.concatenate([rest, rest])
    # Shares until two samples of each domain are due, in finer units than UNIT.
    ahead = np.concatenate([UNIT - 1 - owed, 2 * UNIT - 1 - owed]) << _FINER_BITS
    step = rest_twice << _FINER_BITS
    unit = UNIT << _FINER_BITS
    pace = np.maximum(rest_twice, 1)
    twin = np.roll(np.arange(2 * len(drawn_from)), len(drawn_from))
    deadline = pace.copy()
    first_K = np.empty((windows, due.missing), np.int64)
    for k in range(windows):
        ahead -= step
        np.floor_divide(ahead, pace, out=deadline)
        np.putmask(deadline, ahead >= unit - 1, _NEVER)  # not open yet
        first = deadline.argsort(kind="stable")[: due.missing]
        ahead[first] += unit
        ahead[twin[first]] += unit
        first_K[k] = first
    domains = len(due.whole_D)
    window_K = np.arange(windows)[:, None]
    cells = drawn_from[first_K % len(drawn_from)] + window_K * domains
    extra_KD = np.bincount(cells.ravel(), minlength=windows * domains).reshape(windows, domains)
    counts_KD = place.counts_D + np.cumsum(extra_KD + due.whole_D, axis=0)
    owed_KD = place.owed_D + (window_K + 1) * due.rest_D - np.cumsum(extra_KD, axis=0) * UNIT
    return counts_KD, owed_KD
