"""The progress of a sweep over time: `metrics.jsonl` with its trials, for MLflow's charts.

A line of metrics is what mixopt.tracking sends of any run: `{step, time, <key>: number, ...}`. The
step is the seconds since the first line, those between two owners included. One is written every
ten seconds at most, at first every second, and one at the end, by the thread that shows the
progress (progress_file), so that no group waits for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

METRICS = "metrics.jsonl"
LEAST_SECONDS, MOST_SECONDS = 1.0, 10.0
PART = 0.05  # of the time so far, between two lines


class SweepMetrics:
    """Appends lines of metrics."""

    def __init__(
        self,
        folder: Path,
        values: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Continue the existing file.

        Args:
            folder: The folder of the trials.
            values: Returns the metrics of now.
            clock: Seconds since 1970.
        """
        self._path, self._values, self._clock = folder / METRICS, values, clock
        self._begun, self._last = _first_time(self._path), -1.0

    def note(self, *, now: bool = False) -> None:
        """Add a line, if the last one is old enough.

        Args:
            now: Whether it is not asked how old that is.
        """
        when = self._clock()
        if not now and 0 <= when - self._last < self._pause(when) and self._last >= 0:
            return
        self._begun = when if self._begun is None else self._begun
        self._last = when
        line = {"step": max(0, round(when - self._begun)), "time": round(when, 3)}
        with suppress(OSError), self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line | dict(self._values())) + "\n")

    def _pause(self, when: float) -> float:
        passed = 0.0 if self._begun is None else when - self._begun
        return min(max(LEAST_SECONDS, PART * passed), MOST_SECONDS)


def _first_time(path: Path) -> float | None:
    """Return when the first line was written; None where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as stream:
        return float(json.loads(stream.readline(1 << 16))["time"])
    return None
