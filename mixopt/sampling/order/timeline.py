"""Items in order of position that never change: a new one shares nearly all that there was.

A running job changes its weights thousands of times, and whoever fetched ahead keeps the order as
it was. So the items are in chunks of which a change copies one, and the row of chunks: 150 pointers
among 10,000 items.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

_CHUNK = 64
_POSITION = attrgetter("position")


class Placed(Protocol):
    """What has a position."""

    @property
    def position(self) -> int:
        """The position from which it holds."""
        ...


Item = TypeVar("Item", bound=Placed)
Chunk = tuple[Item, ...]


class Timeline(Generic[Item]):
    """Items in order of position, at most one at each."""

    __slots__ = ("_chunks", "_length")

    def __init__(self, items: Iterable[Item] = ()) -> None:
        """Take items that are in order of position."""
        row = tuple(items)
        self._chunks = tuple(row[k : k + _CHUNK] for k in range(0, len(row), _CHUNK))
        self._length = len(row)

    def __len__(self) -> int:
        """Count the items."""
        return self._length

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in order."""
        for chunk in self._chunks:
            yield from chunk

    @property
    def last(self) -> Item | None:
        """The last item."""
        return self._chunks[-1][-1] if self._chunks else None

    def at(self, position: int) -> Item | None:
        """Return the last item at a position or before it."""
        last = self.last  # which is asked for most
        if last is not None and last.position <= position:
            return last
        k, place = self._after(position)
        if place:
            return self._chunks[k][place - 1]
        return self._chunks[k - 1][-1] if k else None

    def after(self, position: int) -> Iterator[Item]:
        """Yield the items after a position, in order."""
        k, place = self._after(position)
        for number in range(k, len(self._chunks)):
            yield from self._chunks[number][place if number == k else 0 :]

    def latest(self, position: int) -> Iterator[Item]:
        """Yield the items at a position and before it, the last one first."""
        k, place = self._after(position)
        for number in range(min(k, len(self._chunks) - 1), -1, -1):
            chunk = self._chunks[number]
            yield from reversed(chunk[:place] if number == k else chunk)

    def before(self, position: int) -> Timeline[Item]:
        """Return the items before a position."""
        k, place = self._after(position - 1)
        head = self._chunks[:k]
        length = self._length if k == len(self._chunks) else sum(map(len, head)) + place
        return _joined(head, (self._chunks[k][:place],) if place else (), length)

    def changed(self, item: Item) -> Timeline[Item]:
        """Return the items with one more, in the place of the one that has its position."""
        k, place = self._after(item.position)
        if not place and k:  # it comes after all of the chunk before
            k, place = k - 1, len(self._chunks[k - 1])
        chunk = self._chunks[k] if self._chunks else ()
        replaces = place > 0 and chunk[place - 1].position == item.position
        new = (*chunk[: place - replaces], item, *chunk[place:])
        length = self._length + (not replaces)
        return _joined(self._chunks[:k], _split(new, place), length, self._chunks[k + 1 :])

    def _after(self, position: int) -> tuple[int, int]:
        """Return the chunk of the first item after a position, and its place there."""
        k = bisect_right(self._chunks, position, key=_last_position)
        if k == len(self._chunks):
            return k, 0
        return k, bisect_right(self._chunks[k], position, key=_POSITION)


def _last_position(chunk: Chunk[Placed]) -> int:
    return chunk[-1].position


def _split(chunk: Chunk[Item], place: int) -> tuple[Chunk[Item], ...]:
    """Halve a chunk that grew too long; one that grows at its end leaves the whole of it behind."""
    if len(chunk) <= _CHUNK:
        return (chunk,)
    middle = _CHUNK if place == _CHUNK else _CHUNK // 2
    return chunk[:middle], chunk[middle:]


def _joined(
    head: tuple[Chunk[Item], ...],
    middle: tuple[Chunk[Item], ...],
    length: int,
    tail: tuple[Chunk[Item], ...] = (),
) -> Timeline[Item]:
    line: Timeline[Item] = Timeline()
    line._chunks = (*head, *middle, *tail)
    line._length = length
    return line
