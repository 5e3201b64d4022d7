"""Show the progress of a long step: rich's bar on a terminal, plain lines elsewhere.

Lines and bars show what is done, the speed, and the time left.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mixopt.system.text import duration

Update = Callable[[float, str], None]
Say = Callable[[str], None]
LINE_EVERY_SECONDS, LINE_EVERY_PART = 10.0, 0.25  # of the time so far
QUICK_SECONDS = 2.0  # shorter work is not shown by steady_progress


def no_progress(done: float, note: str) -> None:
    """Show nothing."""


def silent(line: str) -> None:
    """Say nothing."""


_is_hidden: ContextVar[bool] = ContextVar("_is_hidden", default=False)


@contextmanager
def hidden_progress() -> Iterator[None]:
    """Show no progress in the block, for callers with their own display."""
    before = _is_hidden.set(True)
    try:
        yield
    finally:
        _is_hidden.reset(before)


@contextmanager
def progress(title: str, total: float) -> Iterator[Update]:
    """Show progress of a total (0 if unknown) on standard error, with a note."""
    if _is_hidden.get():
        yield no_progress
        return
    if not sys.stderr.isatty():
        lines = _Lines(title, total)
        yield lines
        lines.end()
        return
    from rich import progress as rich
    from rich.console import Console
    from rich.table import Column

    # The note is shortened if the line is full.
    note = rich.TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, ratio=1))
    columns: list[rich.ProgressColumn] = [rich.TextColumn("{task.description}"), rich.BarColumn(20)]
    columns += [rich.TaskProgressColumn()] if total else []
    columns += [note, rich.TimeElapsedColumn()]
    columns += [rich.TextColumn("left"), rich.TimeRemainingColumn(compact=True)] if total else []
    with rich.Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(title, total=total or None, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


@contextmanager
def steady_progress(title: str, total: float = 0.0) -> Iterator[Update]:
    """Show work that reports seldom, updated every second after the first two."""
    if _is_hidden.get():
        yield no_progress
        return
    last: list[tuple[float, str]] = [(0.0, "")]
    over = threading.Event()

    def show() -> None:
        if over.wait(QUICK_SECONDS):
            return
        with progress(title, total) as update:
            while not over.wait(1.0):
                update(*last[0])
            update(*last[0])

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield lambda done, note: last.__setitem__(0, (done, note))
    finally:
        over.set()
        thread.join()


class _Lines:
    """Prints lines at growing intervals, about thirty in three days, and a last one."""

    def __init__(self, title: str, total: float) -> None:
        self._title, self._total = title, total
        self._start = self._shown = self._since = time.monotonic()
        self._before: float | None = None  # first value; the time until it changes is
        self._from: float | None = None  # start-up, and excluded from the speed
        self._last: tuple[float, str] | None = None  # not printed yet

    def __call__(self, done: float, note: str) -> None:
        now = time.monotonic()
        self._before = done if self._before is None else self._before
        if self._from is None and done > self._before:
            self._since, self._from = now, done
        self._last = (done, note)
        if now - self._shown >= max(LINE_EVERY_SECONDS, LINE_EVERY_PART * (now - self._start)):
            self._show(now)

    def end(self) -> None:
        """Print the last report."""
        if self._last is not None:
            self._show(time.monotonic())

    def _show(self, now: float) -> None:
        done, note = self._last or (0.0, "")
        self._shown, self._last = now, None
        percent = [f"{100 * done / self._total:.0f}%"] if self._total else []
        words = " ".join([*percent, *([note] if note else [])])
        parts = [*([words] if words else []), f"{duration(now - self._start)} elapsed"]
        moved = 0.0 if self._from is None else done - self._from
        if moved > 0 and done < self._total:
            seconds = (self._total - done) * (now - self._since) / moved
            parts.append(f"{duration(seconds)} left")
        sys.stderr.write(f"{self._title}: {', '.join(parts)}\n")
        sys.stderr.flush()
