"""The order of samples: how many of each domain a window has, and which rows.

A window is the global batch of the sampler with which a stream began. A domain is owed its share of
each. The window gives what is whole of that, those get what is left whose next sample is due first,
and what is owed is carried, so that the error never grows: while shares stay as they are, a domain
is within one sample of their integral at the end of every window. (No rule can promise it for every
change: whoever sees which half was rounded down can move all weight there, again and again.) Where
samples differ in length tokens are owed (mixopt.sampling.token_order). Samples of a window are
shuffled; rows come in a fresh permutation each epoch (mixopt.sampling.permutation).

A window follows from what is owed and drawn before it and from the shares then: not from ranks,
workers, restarts, or how many windows are laid out at once. Integers decide everything: a weight
times 2^42 is exact in binary floating point, so its floor is too; what is left over goes to the
largest fractions. A share is within 2^-42 of its weight: 0.2 samples after 10^12.

Shapes: D domains, W samples of a window, K windows, B samples of a batch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from copy import copy
from itertools import accumulate, pairwise, repeat
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.sampling.permutation import RowOrder, domain_key, window_order
from mixopt.system import IntArray

Unit = Literal["samples", "tokens", "supervised"]

UNIT_BITS = 42
UNIT = 1 << UNIT_BITS  # of a share
_NO_LIMIT = 1 << 62
_KEPT = 256  # places of the past, and every so many of those long past
_KEPT_FOREVER = 1024
_DEALT_AT_ONCE = 256  # windows
_FINER_BITS = 14
_FEW = 16  # samples that a domain may be owed in 64 bits with finer units
_NEVER = 1 << 62


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
    """Shares (`whole_shares`) from a window on, shape (D,); of a ramp those at both ends."""

    window: int
    shares: tuple[int, ...]
    end_window: int
    end_shares: tuple[int, ...]

    @classmethod
    def at(cls, window: int, shares: tuple[int, ...]) -> ShareChange:
        """Return shares that stay as they are."""
        return cls(window, shares, window, shares)

    def arrived(self, window: int) -> tuple[int, ...] | None:
        """Return the shares of a window where they stay from it on; None on a ramp."""
        return self.end_shares if window >= self.end_window else None

    def parts(self, window: int, out: Collection[int] = ()) -> list[int]:
        """Return in which proportion a window is divided: of a ramp that of the window's middle."""
        parts: Sequence[int] | None = self.arrived(window)
        if parts is None:
            whole, gone = 2 * (self.end_window - self.window), 2 * (window - self.window) + 1
            pairs = zip(self.shares, self.end_shares, strict=True)
            parts = [(whole - gone) * first + gone * last for first, last in pairs]
        return [0 if d in out else part for d, part in enumerate(parts)]


class Place(NamedTuple):
    """Where an order is before a window, shape (D,) each."""

    window: int
    counts_D: IntArray  # how often each domain was drawn
    # The integral of its shares less what it had, in samples or tokens, times UNIT.
    owed_D: NDArray[Any]
    had_D: IntArray  # the samples or tokens that it had
    # The domains that ran out, with the window in which they did.
    out: tuple[tuple[int, int], ...] = ()


class Stretch(NamedTuple):
    """Windows that were dealt one after the other."""

    before: Place  # the place before the first
    counts_KD: IntArray  # as those of a place, after each window; so are the next two
    owed_KD: NDArray[Any]  # the same of what is owed
    had_KD: IntArray  # the same of what was had
    out: tuple[tuple[int, int], ...]  # that of the last; a window in which domains run out is alone
    # Domains of the samples, and counts before them, where they are not sorted.
    samples_KW: tuple[IntArray, IntArray] | None = None

    @classmethod
    def one(cls, before: Place, after: Place, samples: Any = None) -> Stretch:
        """Return a stretch of one window."""
        _, counts_D, owed_D, had_D, out = after
        return cls(before, counts_D[None], owed_D[None], had_D[None], out, samples)

    def place(self, window: int) -> Place:
        """Return the place before a window, of the first or after it."""
        k = window - self.before.window - 1
        if k < 0:
            return self.before
        return Place(window, self.counts_KD[k], self.owed_KD[k], self.had_KD[k], self.out)


class OrderLayout(NamedTuple):
    """What an order of samples is laid out over."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]  # rows of each domain
    seed: int  # of the order of rows and of the shuffle in a window
    window_size: int  # samples of a global window
    limits: tuple[int | None, ...]  # how often each domain may be drawn; None for no limit
    stops: bool  # whether the stream ends at a limit; else the others take the domain's share
    unit: Unit  # what a domain is owed
    # Of each domain the tokens of each row, or of all, where tokens are owed.
    lengths: tuple[int | IntArray, ...]

    def start(self) -> Place:
        """Return the place before the first window."""
        zeros = np.zeros(len(self.names), np.int64)
        return Place(0, zeros, zeros if self.unit == "samples" else zeros.astype(object), zeros)


class SampleOrder:
    """Rows of each global window; it never changes but for the places that it remembers."""

    def __init__(self, layout: OrderLayout, changes: Sequence[ShareChange], start: Place) -> None:
        self.layout = layout
        self.changes = tuple(changes)
        self.start = start
        self._begins = [change.window for change in changes]
        keys = [domain_key(layout.seed, name) for name in layout.names]
        self._rows = RowOrder(layout.sizes, keys)
        self._offsets = np.array([*accumulate(layout.sizes, initial=0)][:-1], np.int64)
        self._shuffle = domain_key(layout.seed, "\nwindows")
        limits = [_NO_LIMIT if limit is None else limit for limit in layout.limits]
        self._limits = np.array(limits, np.int64)
        self._has_limits = any(limit is not None for limit in layout.limits)
        self._known = {start.window: Stretch.one(start, start)}  # has the place before a window
        self._end: int | None = None
        self._due: tuple[Any, _Due | None] = (None, None)

    def changed(self, changes: Sequence[ShareChange], window: int) -> SampleOrder:
        """Return the order with other shares from a window on."""
        other = copy(self)
        other.changes = tuple(changes)
        other._begins = [change.window for change in changes]
        other._known = {b: one for b, one in list(self._known.items()) if b <= window}
        other._end = self._end if self._end is not None and self._end < window else None
        other._due = (None, None)
        return other

    def change_at(self, window: int) -> ShareChange:
        """Return the shares that hold at a window; the first before it."""
        return self.changes[max(bisect_right(self._begins, window) - 1, 0)]

    def place(self, window: int) -> Place | None:
        """Return the place before a window; None where the stream does not have it."""
        known = self._known.get(window)
        if known is not None:
            return known.place(window)
        if window < self.start.window:
            return None
        nearest = max(w for w in list(self._known) if w <= window)
        place = self._known[nearest].place(nearest)
        while place.window < window:
            stretch = self._next(place, window - place.window)
            if stretch is None:
                return None
            place = stretch.place(place.window + len(stretch.counts_KD))
        return place

    def has(self, window: int) -> bool:
        """Whether the stream has the whole of a window."""
        return self.place(window + 1) is not None

    def end(self) -> int | None:
        """Return how many windows the stream has; None where it does not end."""
        last = self.changes[-1]
        window = max(last.end_window, self.start.window)
        pairs = zip(last.parts(window), self.layout.limits, strict=True)
        limited = [limit is not None for part, limit in pairs if part]
        may_end = any(limited) if self.layout.stops else all(limited)
        while self.has(window) and may_end:
            window += 1
        return self._end

    def _forget(self, window: int) -> None:
        """Drop most places of long before a window; from those that are left others follow."""
        old = sorted(b for b in list(self._known) if b < window - _KEPT)
        for b in old[:-1]:
            if b % _KEPT_FOREVER and b != self.start.window:
                self._known.pop(b, None)
            elif len(self._known[b].counts_KD) > 1:  # without the others of its stretch
                _, counts_D, owed_D, had_D, out = self._known[b].place(b)
                place = Place(b, counts_D.copy(), owed_D.copy(), had_D.copy(), out)
                self._known[b] = Stretch.one(place, place)

    def rows(self, window: int, most: int = 1) -> IntArray:
        """Return rows as integers into the concatenation of the domains, shape (K, W)."""
        domain_KW, ordinal_KW = self._laid_out(window, most)
        domain = domain_KW.ravel()
        rows = self._rows.rows(domain, ordinal_KW.ravel()) + self._offsets[domain]
        return self._shuffled(window, rows.reshape(domain_KW.shape))

    def domains(self, window: int) -> IntArray:
        """Return the domains of a window's samples, shape (W,)."""
        domains: IntArray = self._shuffled(window, self._laid_out(window, 1)[0])[0]
        return domains

    def _shuffled(self, window: int, values_KW: IntArray) -> IntArray:
        order = window_order(self._shuffle, window, *values_KW.shape)
        return np.take_along_axis(values_KW, order, axis=1)

    def _laid_out(self, window: int, most: int) -> tuple[IntArray, IntArray]:
        """Return domains and counts before them, not shuffled, shape (K, W)."""
        place, stretches, windows = self.place(window), list[Stretch](), 0
        while place is not None and windows < most:
            stretch = self._next(place, most - windows)
            if stretch is None:
                break
            stretches.append(stretch)
            windows += len(stretch.counts_KD)
            place = stretch.place(window + windows)
        if not stretches:
            nothing = np.empty((0, self.layout.window_size), np.int64)
            return nothing, nothing
        return self._arranged(stretches)

    def _next(self, place: Place, most: int) -> Stretch | None:
        """Deal some windows, none where the stream ends; remember the places."""
        if self._end == place.window:
            return None
        stretch = self._deal(place, min(most, _DEALT_AT_ONCE))
        if stretch is None:
            self._end = place.window
            return None
        last = place.window + len(stretch.counts_KD)
        self._known.update(zip(range(place.window + 1, last + 1), repeat(stretch)))
        if place.window // _KEPT_FOREVER != last // _KEPT_FOREVER:
            self._forget(place.window)
        return stretch

    def _deal(self, place: Place, most: int) -> Stretch | None:
        """Deal some windows; None where there is no whole one."""
        due = self._due_in(place)
        if due is None:
            return None
        later = bisect_right(self._begins, place.window)
        if later < len(self._begins):
            most = min(most, self._begins[later] - place.window)
        if self.change_at(place.window).arrived(place.window) is None:
            most = 1
        counts_KD, owed_KD = _dealt(place, due, most)
        if self._has_limits:
            before_KD = np.concatenate([place.counts_D[None], counts_KD[:-1]])
            is_over = (counts_KD > self._limits).any(axis=1)
            full_KD = before_KD >= self._limits
            is_over |= full_KD[:, due.drawn_from].any(axis=1)
            most = int(np.argmax(is_over)) if is_over.any() else most
            if not most:
                last = None if self.layout.stops else self._deal_last(place)
                return None if last is None else Stretch.one(place, last)
        counts_KD = counts_KD[:most]
        return Stretch(place, counts_KD, owed_KD[:most], counts_KD, place.out)

    def _due_in(self, place: Place) -> _Due | None:
        """Return what is due in a window; None where no domain has a share any more."""
        change, out = self.change_at(place.window), [d for _, d in place.out]
        shares = change.arrived(place.window)
        known, due = self._due
        if shares is not None and known == (shares, place.out):
            return due
        parts = change.parts(place.window, out)
        if not any(parts):
            return None
        due = _Due.of(spread(parts, self.layout.window_size << UNIT_BITS), self.layout.window_size)
        if shares is not None:
            self._due = ((shares, place.out), due)
        return due

    def _deal_last(self, place: Place) -> Place | None:
        """Deal a window in which domains run out; what they are owed beyond goes to the others."""
        change, out = self.change_at(place.window), [d for _, d in place.out]
        counts, owed = place.counts_D, place.owed_D.tolist()
        left = np.maximum(self._limits - counts, 0).tolist()
        parts = change.parts(place.window, out)
        last = {d: 0 for d, part in enumerate(parts) if part and not left[d]}
        while True:
            size = self.layout.window_size - sum(last.values())
            parts = change.parts(place.window, [*out, *last])
            rest = [0 if d in last else debt for d, debt in enumerate(owed)]
            drawn = [last.get(d, 0) for d in range(len(owed))]
            if any(parts):
                more = spread(parts, (size << UNIT_BITS) + sum(owed[d] for d in last))
                rest = [debt + due for debt, due in zip(rest, more, strict=True)]
            elif size:
                return None
            for _ in range(size if any(parts) else 0):  # one by one to whoever is owed most
                d = max((d for d, part in enumerate(parts) if part), key=lambda d: (rest[d], -d))
                drawn[d] += 1
                rest[d] -= UNIT
            over = [d for d, rows in enumerate(drawn) if d not in last and rows > left[d]]
            if not over:
                break
            last |= {d: left[d] for d in over}
        counts_D, owed_D = counts + np.array(drawn), np.array(rest, np.int64)
        out_now = tuple((place.window, d) for d in sorted(last))
        return Place(place.window + 1, counts_D, owed_D, counts_D, (*place.out, *out_now))

    def _arranged(self, stretches: list[Stretch]) -> tuple[IntArray, IntArray]:
        """Return domains and counts of windows, each sorted by domain."""
        first = stretches[0].before.counts_D[None]
        counts_KD = np.concatenate([first, *(stretch.counts_KD for stretch in stretches)])
        drawn = np.diff(counts_KD, axis=0).ravel()
        windows, domains = len(counts_KD) - 1, len(self.layout.names)
        domain = np.repeat(np.tile(np.arange(domains), windows), drawn)
        ahead = counts_KD[:-1].ravel() - (np.cumsum(drawn) - drawn)
        ordinal = np.arange(len(domain)) + np.repeat(ahead, drawn)
        return domain.reshape(windows, -1), ordinal.reshape(windows, -1)


class _Due(NamedTuple):
    """What is due in a window."""

    whole_D: IntArray  # whole samples of each domain
    rest_D: IntArray  # what is due beyond them, times UNIT
    missing: int  # samples that go to whoever is due first
    drawn_from: IntArray  # the domains that have a share

    @classmethod
    def of(cls, due: list[int], size: int) -> _Due:
        """Divide what is due of a window of so many samples."""
        whole = [one >> UNIT_BITS for one in due]
        rest = np.array([one & (UNIT - 1) for one in due], np.int64)
        drawn_from = np.array([d for d, one in enumerate(due) if one])
        return cls(np.array(whole, np.int64), rest, size - sum(whole), drawn_from)


def _dealt(place: Place, due: _Due, windows: int) -> tuple[IntArray, IntArray]:
    """Return counts and what is owed after each of some windows of one share, shape (K, D).

    A domain's next sample is open once it is owed a part of it, and due with the window that would
    leave it owed a whole one. Whoever is due first gets what is left of a window; a domain may get
    two, so each has two places below. Its shares alone would fill all windows so, each sample
    between its opening and its due time, and the earliest due time first does if anything does: no
    domain that starts with nothing owed is ever off by a sample.
    """
    here = due.drawn_from
    is_small = np.abs(place.owed_D).max() < _FEW * UNIT
    kind: Any = np.int64 if is_small else object
    owed, rest = place.owed_D[here].astype(kind), due.rest_D[here].astype(kind)
    # By how much two samples of each are not yet due, in finer units than the shares have.
    ahead = np.concatenate([UNIT - 1 - owed, 2 * UNIT - 1 - owed]) << _FINER_BITS
    step, unit = np.concatenate([rest, rest]) << _FINER_BITS, UNIT << _FINER_BITS
    pace = np.maximum(np.concatenate([rest, rest]), 1)
    other = np.roll(np.arange(2 * len(here)), len(here))
    most_K, time, closed = np.empty((windows, due.missing), np.int64), pace.copy(), unit - 1
    for k in range(windows):
        ahead -= step
        np.floor_divide(ahead, pace, out=time)
        np.putmask(time, ahead >= closed, _NEVER)
        most = time.argsort(kind="stable")[: due.missing]
        ahead[most] += unit
        ahead[other[most]] += unit
        most_K[k] = most
    domains, number = len(due.whole_D), np.arange(windows)[:, None]
    places = here[most_K % len(here)] + number * domains
    extra_KD = np.bincount(places.ravel(), minlength=windows * domains).reshape(windows, domains)
    counts_KD = place.counts_D + np.cumsum(extra_KD + due.whole_D, axis=0)
    owed_KD = place.owed_D + (number + 1) * due.rest_D - np.cumsum(extra_KD, axis=0) * UNIT
    return counts_KD, owed_KD
