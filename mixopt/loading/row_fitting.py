"""Assign documents to rows: best fit, decreasing, one size at a time.

All documents of one size are placed together: they fill up the fullest rows that have room, of
which those with equal room are taken at once. That gives what placing them one by one gives
(best-fit decreasing, as in Ding et al. 2024, "Fewer truncations improve language modeling"), at a
cost that grows with how many sizes there are more than with how many documents.

Shapes: P documents.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import ArrayLike

from mixopt.system import IntArray


def best_fit_rows(lengths_P: ArrayLike, length: int) -> IntArray:
    """Put each document into the fullest row that has room, the longest documents first.

    Args:
        lengths_P: Tokens of each document, 1 to `length`.
        length: Tokens of a row.

    Returns:
        The number of each document's row, shape (P,); rows are numbered as they are opened.
    """
    lengths = np.asarray(lengths_P, np.int64)
    order = np.argsort(-lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    rooms = _Rooms(length)
    placed: list[int] = []
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        rooms.place(size, count, placed)
    row = np.empty(len(lengths), np.int64)
    row[order] = placed
    return row


class _Rooms:
    """Rows by the room that is left in them."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._opened = 0
        self._rows: defaultdict[int, list[int]] = defaultdict(list)
        self._there = 0  # bit r is set where rows have room for r tokens

    def place(self, size: int, count: int, placed: list[int]) -> None:
        """Append the rows of `count` documents of one size, none smaller than those to come."""
        while count:
            above = self._there >> size
            if above:
                room = size + (above & -above).bit_length() - 1
                rows = self._rows[room]
            else:
                room = self._length
                rows = list(range(self._opened, self._opened - -count // (room // size)))
                self._opened += len(rows)
            count = self._fill(rows, room, size, count, placed)
            if above:
                self._mark(room)

    def _fill(self, rows: list[int], room: int, size: int, count: int, placed: list[int]) -> int:
        """Fill rows of equal room as far as documents reach; return how many are left."""
        each = room // size
        full = min(len(rows), count // each)
        taken = rows[:full]
        placed += taken if each == 1 else [row for row in taken for _ in range(each)]
        self._move(taken, room - each * size)
        del rows[:full]
        count -= full * each
        if count and rows:
            last = rows.pop(0)
            placed += [last] * count
            self._move([last], room - count * size)
            return 0
        return count

    def _move(self, rows: list[int], room: int) -> None:
        if room:
            self._rows[room] += rows
            self._mark(room)

    def _mark(self, room: int) -> None:
        if self._rows[room]:
            self._there |= 1 << room
        else:
            self._there &= ~(1 << room)
