"""Show the progress of a long step: a bar on a terminal, plain lines elsewhere.

A line or a bar has what is done, how fast, and how long is left.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[float, str], None]
Say = Callable[[str], None]
LINE_EVERY_SECONDS = 10.0
QUICK_SECONDS = 2.0  # work that takes less is not shown by steady_progress


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
def steady_progress(title: str, total: float = 0.0) -> Iterator[Update]:
    """Show the progress of work that reports seldom or never, once it has taken two seconds.

    What was reported last is shown again each second with the time that has passed, so that a step
    of which nothing is heard for a minute is still seen to work.

    Args:
        title: What is being done.
        total: The amount that is all of it; 0 where nobody knows.

    Yields:
        A function that takes the amount done so far and a note to show beside it.
    """
    last: list[tuple[float, str]] = [(0.0, "")]
    over = threading.Event()
    shown = threading.Thread(target=_show, args=(title, total, last, over), daemon=True)
    shown.start()
    try:
        yield lambda done, note: last.__setitem__(0, (done, note))
    finally:
        over.set()
        shown.join()


def _show(title: str, total: float, last: list[tuple[float, str]], over: threading.Event) -> None:
    """Show what is reported until it is over; nothing of what ends at once."""
    if over.wait(QUICK_SECONDS):
        return
    with progress(title, total) as update:
        ended = False
        while not ended:
            update(*last[0])
            ended = over.wait(1.0)
        update(*last[0])


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
        *([TextColumn("{task.percentage:>3.0f}%")] if total else []),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        *([TextColumn("left"), TimeRemainingColumn(compact=True)] if total else []),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=total or None, note="")
        yield lambda done, note: shown.update(task, completed=done, note=note)


class _Lines:
    def __init__(self, title: str, total: float) -> None:
        self._title, self._total = title, total
        self._start = self._shown = self._since = time.monotonic()
        self._first: float | None = None
        self._from: float | None = None
        self._ended: str | None = None

    def __call__(self, done: float, note: str) -> None:
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if self._from is None and done > self._first:  # the time before it is start and compilation
            self._since, self._from = now, done
        ended, count = done >= self._total > 0, note.partition(" ")[0]
        is_end = ended and count != self._ended  # all of it is there, or one more has finished
        self._ended = count if ended else None
        if now - self._shown < LINE_EVERY_SECONDS and not is_end:
            return
        self._shown = now
        moved = 0.0 if self._from is None else done - self._from
        left = (self._total - done) * (now - self._since) / moved if moved > 0 else float("nan")
        eta = "" if ended or moved <= 0 or not self._total else f", {duration(left)} left"
        percent = f"{100 * done / self._total:.0f}%" if self._total else ""
        words = " ".join(word for word in (percent, note) if word)
        elapsed = f"{duration(now - self._start)} elapsed{eta}"
        sys.stderr.write(f"{self._title}: {words}{', ' * bool(words)}{elapsed}\n")
        sys.stderr.flush()


def long_duration(seconds: float) -> str:
    """Return seconds in words: `8 seconds`, `3 minutes` or `2.5 hours`."""
    if seconds < 90:
        return _counted(max(1, round(seconds)), "second")
    if seconds < 5400:
        return _counted(round(seconds / 60), "minute")
    return _counted(float(f"{seconds / 3600:.2g}"), "hour")


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return seconds as `8s`, `3m20s` or `2h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
