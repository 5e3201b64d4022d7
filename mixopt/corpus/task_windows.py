"""Rows of tasks as windows of a model's length, batched by length to keep padding small.

Nothing is dropped and each token is scored once: a context that does not fit is cut from the left,
a continuation that is longer than the window goes in pieces, each with half a window before it.
Windows end where their text ends, and what follows is padding that no scored token sees.

Shapes: B windows of a batch, T tokens that are read, W = T + 1, P tokens that are scored, R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.tasks import EncodedTask
from mixopt.system import Array, IntArray

STEP = 64  # lengths of batches are multiples of it


class TaskWindow(NamedTuple):
    """A part of a row that a model reads at once.

    Attributes:
        row: Number of the row.
        tokens: What is read, and the last token that is predicted; at least two tokens.
        scored: Where the first token is that is scored, >= 1; all after it are.
    """

    row: int
    tokens: NDArray[Any]
    scored: int


def row_windows(
    number: int, tokens: NDArray[Any], scored: int, length: int
) -> Iterator[TaskWindow]:
    """Give the windows of one row."""
    first, end = scored, len(tokens)
    while first < end:
        fits = end - first <= length
        stop = end if fits else min(first + max(length // 2, 1), end)
        begin = max(0, stop - length - 1)
        yield TaskWindow(number, tokens[begin:stop], first - begin)
        first = stop


@dataclass(frozen=True)
class WindowBatch:
    """Windows that a model reads at once.

    Attributes:
        tokens_BW: Their tokens, then zeros.
        place_P: Which of the B * T predicted tokens are scored, window after window.
        row_P: The rows that these belong to.
    """

    tokens_BW: IntArray
    place_P: IntArray
    row_P: IntArray

    @classmethod
    def of(cls, windows: Sequence[TaskWindow], length: int) -> WindowBatch:
        """Join windows of `length` predicted tokens at most."""
        tokens_BW = np.zeros((len(windows), length + 1), dtype=np.int64)
        places, rows = [], []
        for b, window in enumerate(windows):
            tokens_BW[b, : len(window.tokens)] = window.tokens
            place = np.arange(window.scored, len(window.tokens)) - 1 + b * length
            places.append(place)
            rows.append(np.full(len(place), window.row))
        return cls(tokens_BW, np.concatenate(places), np.concatenate(rows))

    @property
    def targets_P(self) -> IntArray:
        """The tokens that are scored."""
        return self.tokens_BW[:, 1:].reshape(-1)[self.place_P]


def window_batches(
    windows: Iterable[TaskWindow], *, longest: int, tokens: int
) -> list[WindowBatch]:
    """Sort windows by length, and join those of about the same."""

    def padded(window: TaskWindow) -> int:
        return min(-(-(len(window.tokens) - 1) // STEP) * STEP, longest)

    batches = []
    for length, group in groupby(sorted(windows, key=padded), padded):
        alike, size = list(group), max(1, tokens // length)
        parts = (alike[i : i + size] for i in range(0, len(alike), size))
        batches += [WindowBatch.of(part, length) for part in parts]
    return batches


def sums_by_row(batches: Sequence[WindowBatch], values: Array, rows: int) -> Array:
    """Add up what each scored token has, shape (R,)."""
    row_P = np.concatenate([batch.row_P for batch in batches])
    return np.bincount(row_P, weights=values, minlength=rows).astype(np.float64)


class TaskBatches:
    """The rows of several tasks in batches."""

    def __init__(self, tasks: Sequence[EncodedTask], *, longest: int, tokens: int) -> None:
        """Cut rows into windows and join those of about the same length."""
        self._tasks = tasks
        rows = [(task.row(r), int(task.scored_R[r])) for task in tasks for r in range(task.rows)]
        windows = (
            window
            for number, (row, scored) in enumerate(rows)
            for window in row_windows(number, row, scored, longest)
        )
        self.batches = window_batches(windows, longest=longest, tokens=tokens)

    def metrics(self, log_probabilities: Array) -> dict[str, float]:
        """Return the bits per byte of each task, by the name of its column."""
        stops = np.cumsum([task.rows for task in self._tasks])
        sums_R = sums_by_row(self.batches, log_probabilities, int(stops[-1]))
        parts = np.split(sums_R, stops[:-1])
        pairs = zip(self._tasks, parts, strict=True)
        return {task.column: task.bits_per_byte(part) for task, part in pairs}
