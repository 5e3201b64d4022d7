"""The rows of a task, as an n-gram model reads them: whole, one after another.

Shapes: T tokens of all rows, R rows.
"""

from __future__ import annotations

import numpy as np

from mixopt.tasks import EncodedTask, task_metrics
from mixopt_proxies.ngram.model import NgramModel


class TaskRows:
    """A task that models are scored on."""

    def __init__(self, task: EncodedTask) -> None:
        """Find the tokens that are scored."""
        self._task = task
        self._tokens_T = task.tokens_T.astype(np.int64)
        self._starts_T = np.zeros(len(self._tokens_T), dtype=bool)
        self._starts_T[task.start_R[:-1]] = True
        sizes_R = np.diff(task.start_R)
        place_T = np.arange(len(self._tokens_T)) - np.repeat(task.start_R[:-1], sizes_R)
        self._scored_T = place_T >= np.repeat(task.scored_R, sizes_R)
        self._row_T = np.repeat(np.arange(task.rows), sizes_R)

    def scores(self, model: NgramModel) -> dict[str, float]:
        """Return what is measured of the task, by the name of its column."""
        log_T = model.log_probabilities(self._tokens_T, self._starts_T)
        scored_T = np.where(self._scored_T, log_T, 0.0)
        sums_R = np.bincount(self._row_T, weights=scored_T, minlength=self._task.rows)
        return task_metrics(self._task, sums_R.astype(np.float64))
