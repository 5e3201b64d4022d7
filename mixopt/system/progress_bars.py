"""Say how far a long step has come: a bar on a terminal, plain lines elsewhere.

A line or a bar has what is done, how fast, and how long is left.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[float, str], None]
Say = Callable[[str], None]
LINE_EVERY_SECONDS = 10.0


def no_progress(done: float, note: str) -> None:
    """Show nothing."""


def silent(line: str) -> None:
    """Say nothing."""


@contextmanager
def progress(title: str, total: float) -> Iterator[Update]:
    """Show the progress of a step on standard error.

    Args:
        title: What is being done.
        total: The amount that is all of it.

    Yields:
        A function that takes the amount done so far and a note to show beside it.
    """
    if sys.stderr.isatty():
        with _bar(title, total) as update:
            yield update
    else:
        yield _Lines(title, total)


@contextmanager
def _bar(title: str, total: float) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=total, note="")
        yield lambda done, note: shown.update(task, completed=done, note=note)


class _Lines:
    def __init__(self, title: str, total: float) -> None:
        self._title, self._total = title, total
        self._start = self._shown = time.monotonic()
        self._first: float | None = None
        self._ended: str | None = None

    def __call__(self, done: float, note: str) -> None:
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        ended, count = done >= self._total, note.partition(" ")[0]
        is_end = ended and count != self._ended  # all of it is there, or one more has finished
        self._ended = count if ended else None
        if now - self._shown < LINE_EVERY_SECONDS and not is_end:
            return
        self._shown = now
        moved, spent = done - self._first, now - self._start
        left = (self._total - done) * spent / moved if moved > 0 else float("nan")
        eta = "" if ended or moved <= 0 else f", {duration(left)} left"
        percent = 100 * done / self._total if self._total else 100.0
        sys.stderr.write(f"{self._title}: {percent:.0f}% {note} in {duration(spent)}{eta}\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return seconds as `8s`, `3m20s` or `2h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
