"""Batch windows of tasks by length, to keep padding small.

Windows end where their text ends, and what follows is padding that no scored token sees: a causal
model reads from the left.

Shapes: B windows of a batch, T tokens that are read, W = T + 1, P tokens that are scored, R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from mixopt.system import Array, IntArray
from mixopt.tasks.encoded_task import EncodedTask
from mixopt.tasks.scores import task_metrics
from mixopt.tasks.task_windows import TaskWindow, windows_of

STEP = 64  # lengths of batches are multiples of it


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
    """Sort windows by length, and join those of about the same.

    Args:
        windows: In any order.
        longest: Most tokens that a model predicts at once.
        tokens: Of a batch, padding included; a window is a batch at least.
    """

    def padded(window: TaskWindow) -> int:
        return min(-(-(len(window.tokens) - 1) // STEP) * STEP, longest)

    batches = []
    for length, group in groupby(sorted(windows, key=padded), padded):
        alike, size = list(group), max(1, tokens // length)
        parts = (alike[i : i + size] for i in range(0, len(alike), size))
        batches += [WindowBatch.of(part, length) for part in parts]
    return batches


def sums_by_row(batches: Sequence[WindowBatch], values: Array, rows: int) -> Array:
    """Add up what each scored token has, shape (R,).

    Args:
        batches: The batches.
        values: A number for each of their scored tokens, batch after batch.
        rows: R.
    """
    row_P = np.concatenate([batch.row_P for batch in batches])
    return np.bincount(row_P, weights=values, minlength=rows).astype(np.float64)


class TaskBatches:
    """The rows of several tasks in batches.

    Attributes:
        batches: Their windows.
    """

    def __init__(self, tasks: Sequence[EncodedTask], *, longest: int, tokens: int) -> None:
        """Cut rows into windows and join those of about the same length, of whatever task.

        Args:
            tasks: One at least.
            longest: Most tokens that a model predicts at once.
            tokens: Of a batch, padding included.
        """
        self._tasks = tasks
        self._starts = np.cumsum([0, *(task.rows for task in tasks)]).tolist()
        pairs = zip(tasks, self._starts[:-1], strict=True)
        windows = (
            window._replace(row=first + window.row)
            for task, first in pairs
            for window in windows_of(task, longest)
        )
        self.batches = window_batches(windows, longest=longest, tokens=tokens)

    def metrics(self, log_probabilities: Array) -> dict[str, float]:
        """Return what the tasks measure, by the names of their columns.

        Args:
            log_probabilities: Of each scored token, batch after batch.
        """
        sums_R = sums_by_row(self.batches, log_probabilities, self._starts[-1])
        parts = np.split(sums_R, self._starts[1:-1])
        found: dict[str, float] = {}
        for task, part in zip(self._tasks, parts, strict=True):
            found |= task_metrics(task, part)
        return found
