"""The order of samples: domain and row of every position of the global stream.

At every position each domain has been drawn its share to within two samples
(mixopt.sampling.order.plan), and what is owed is carried over a change of weights, so that the
error never grows. The positions of one window, a global batch, are then shuffled; rows come in a
fresh permutation each epoch (mixopt.sampling.order.permutation). What is drawn at position n
depends on the seed, the sizes and the weight changes before n alone: not on ranks, workers, the
extent of a call or restarts. Weights become whole numbers first (mixopt.sampling.order.shares), and
integers decide everything, so two machines agree.

Positions count samples from 0. Shapes: D domains, B samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mixopt.sampling.order import (
    ChunkedRowOrder,
    DrawPlan,
    Exhausted,
    Origin,
    RowOrder,
    ShareChange,
    domain_key,
    window_order,
)
from mixopt.system import IntArray


class Chunks(NamedTuple):
    """A two-level order of rows: neighbouring rows of a chunk, chunks of a window."""

    rows: int
    window: int


class StreamLayout(NamedTuple):
    """What an order of samples is laid out over.

    Attributes:
        names: The domains; a row order depends on its domain's name.
        sizes: Rows of each domain.
        seed: Of the order of rows and of the shuffle in windows.
        window: Positions that are shuffled among themselves.
        limits: How often each domain may be drawn; None for no limit.
        stops: Whether the stream ends at a limit; else the others take the domain's share.
        chunks: A two-level order for slow storage; None for a full shuffle.
        row_keys: What each order of rows depends on besides the seed; the names if None.
        shift: How often each domain was drawn before the origin, where it does not count that.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    seed: int
    window: int
    limits: tuple[int | None, ...]
    stops: bool = False
    chunks: Chunks | None = None
    row_keys: tuple[str, ...] | None = None
    shift: tuple[int, ...] | None = None


class SampleOrder:
    """Domain and row of every position; immutable but for what it has laid out so far."""

    def __init__(
        self, layout: StreamLayout, changes: Iterable[ShareChange], origin: Origin | None = None
    ) -> None:
        """Lay out the stream.

        Args:
            layout: Domains, seed, window and limits.
            changes: Shares of the samples, in order; the first holds from the start.
            origin: Where the stream starts, if not at position 0 with nothing drawn.
        """
        zeros = (0,) * len(layout.names)
        self.layout = layout
        self._plan = DrawPlan(
            changes,
            origin=origin or Origin(0, zeros, zeros),
            limits_D=layout.limits,
            stops=layout.stops,
        )
        self._rows = row_order(layout)
        self._window_key = window_key(layout)
        self._shift = np.array(layout.shift or zeros, np.int64)

    @property
    def changes(self) -> tuple[ShareChange, ...]:
        """The shares and where they hold from, those to come included."""
        return tuple(self._plan.changes)

    @property
    def origin(self) -> Origin:
        """Where the stream starts."""
        return self._plan.origin

    def changed(self, change: ShareChange) -> SampleOrder:
        """Return the order with other shares from a position on; later changes are kept."""
        other = SampleOrder.__new__(SampleOrder)
        vars(other).update(vars(self))
        other._plan = self._plan.changed(change)
        return other

    def reach(self, position: int) -> int:
        """Return `position`, or the end of the stream where that comes first."""
        return self._plan.reach(position)

    def exhausted(self, position: int) -> list[Exhausted]:
        """Return the domains that ran out up to a position."""
        self._plan.reach(position)
        return [event for event in self._plan.exhausted if event.position <= position]

    def shares_at(self, position: int) -> tuple[int, ...]:
        """Return the shares of samples in force at a position, 0 for domains that ran out."""
        return self._plan.shares_at(position)

    def when_drawn(self, domain: int, count: int, before: int) -> int | None:
        """Return after how many positions a domain was drawn `count` times; None if not before."""
        return self._plan.when_drawn(domain, count, before)

    def planned(self, start: int, stop: int) -> IntArray:
        """Return the domains of positions [start, stop) before the shuffle in windows."""
        return self._plan.draw(start, stop)[0]

    def planned_counts(self, position: int) -> IntArray:
        """Count the samples before a position by domain, before the shuffle in windows."""
        return self._plan.counts(position)

    def drawn(self, position: int) -> IntArray:
        """Count how often each domain was drawn, what came before the origin included."""
        return self._plan.counts(position) + self._shift

    def owed(self, position: int) -> IntArray:
        """Return what each domain is owed at a position, in samples / order.shares.UNIT."""
        return self._plan.owed(position)

    def counts(self, position: int) -> IntArray:
        """Count the samples before a position by domain, as delivered, shape (D,)."""
        start = position - position % self.layout.window
        counts = self._plan.counts(start)
        if position > start:
            domain = self.domains(start, position)
            counts = counts + np.bincount(domain, minlength=len(counts))
        return counts

    def locate(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Return domain and row of positions [start, stop).

        Returns:
            Numbers of domains and rows within them, each of shape (stop - start,).

        Raises:
            IndexError: The range is not inside the stream.
        """
        domain, ordinal = self._delivered(start, stop)
        return domain, self._rows.rows(domain, ordinal + self._shift[domain])

    def domains(self, start: int, stop: int) -> IntArray:
        """Return the domains of positions [start, stop) alone, as delivered."""
        return self._delivered(start, stop)[0]

    def _delivered(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        window = self.layout.window
        first = start - start % window
        last = self.reach(stop + -stop % window)
        if not self.origin.position <= start <= stop <= last:
            raise IndexError(f"positions [{start}, {stop}) of [{self.origin.position}, {last})")
        domain, ordinal = self._plan.draw(first, last)
        kept = self._places(first, last)[start - first : stop - first]
        return domain[kept], ordinal[kept]

    def _places(self, first: int, last: int) -> IntArray:
        """Return the shuffled places of windows from `first`; the stream's last may be short."""
        window = self.layout.window
        whole = (last - first) // window
        number = first // window
        places = window_order(self._window_key, number, whole, window)
        places += np.arange(whole, dtype=np.int64)[:, None] * window
        if first + whole * window == last:
            return places.ravel()
        short = window_order(self._window_key, number + whole, 1, last - first - whole * window)
        return np.concatenate([places.ravel(), short[0] + whole * window])


def row_order(layout: StreamLayout) -> RowOrder | ChunkedRowOrder:
    """Return the order of each domain's rows."""
    keys = [domain_key(layout.seed, name) for name in layout.row_keys or layout.names]
    if layout.chunks is None:
        return RowOrder(layout.sizes, keys)
    chunk, window = layout.chunks
    return ChunkedRowOrder(layout.sizes, keys, chunk=chunk, window=window)


def window_key(layout: StreamLayout) -> int:
    """Return the key of the shuffle in windows."""
    return domain_key(layout.seed, "\nwindows")
