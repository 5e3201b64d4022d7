"""Format numbers and lines for people, and show the progress of a long step.

There is one format for each kind, everywhere. Lines are as wide as `COLUMNS`, else the terminal,
else 80; words, numbers and paths are never broken, so a long path may exceed the width. Progress is
rich's bar on a terminal and plain lines elsewhere: what is done, the speed, and the time left.
"""

import math
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape

Update = Callable[[float, str], None]
Say = Callable[[str], None]
LINE_EVERY_SECONDS = 10.0
LINE_EVERY_PART = 0.25  # of the time so far, if longer
QUICK_SECONDS = 2.0  # shorter work is not shown by steady_progress
MIN_WIDTH = 40  # narrower terminals are treated as this wide


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
    if total:
        columns.append(rich.TaskProgressColumn())
    columns += [note, rich.TimeElapsedColumn()]
    if total:
        columns += [rich.TextColumn("left"), rich.TimeRemainingColumn(compact=True)]
    with rich.Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(title, total=total or None, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


@contextmanager
def steady_progress(title: str, total: float = 0.0) -> Iterator[Update]:
    """Show work that reports seldom, updated every second after the first two."""
    if _is_hidden.get():
        yield no_progress
        return
    last = (0.0, "")
    over = threading.Event()

    def show() -> None:
        if over.wait(QUICK_SECONDS):
            return
        with progress(title, total) as update:
            while not over.wait(1.0):
                update(*last)
            update(*last)

    def report(done: float, note: str) -> None:
        nonlocal last
        last = (done, note)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield report
    finally:
        over.set()
        thread.join()


class _Lines:
    """Prints lines at growing intervals, about thirty in three days, and a last one."""

    def __init__(self, title: str, total: float) -> None:
        self._title = title
        self._total = total
        self._start = self._shown = time.monotonic()
        self._first: float | None = None  # value; the time until it changes is start-up
        self._begin: tuple[float, float] | None = None  # time and value when it had changed
        self._last: tuple[float, str] | None = None  # not printed yet

    def __call__(self, done: float, note: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if self._begin is None and done > self._first:
            self._begin = (now, done)
        self._last = (done, note)
        if now - self._shown >= max(LINE_EVERY_SECONDS, LINE_EVERY_PART * (now - self._start)):
            self._show(now)

    def end(self) -> None:
        """Print the last report."""
        if self._last is not None:
            self._show(time.monotonic())

    def _show(self, now: float) -> None:
        done, note = self._last or (0.0, "")
        self._shown = now
        self._last = None
        percent = f"{100 * done / self._total:.0f}%" if self._total else ""
        parts = [f"{percent} {note}".strip(), f"{duration(now - self._start)} elapsed"]
        since, before = self._begin or (now, done)
        if before < done < self._total:
            seconds = (self._total - done) * (now - since) / (done - before)
            parts.append(f"{duration(seconds)} left")
        sys.stderr.write(f"{self._title}: {', '.join(filter(None, parts))}\n")
        sys.stderr.flush()


def share_text(value: float) -> str:
    """Return a share as a percentage."""
    if value == 0 or value >= 5e-4:
        return f"{100 * value:.1f}%"
    return "<0.1%"


def first_few(words: Sequence[str], max_words: int) -> str:
    """Return the first words and the number of others: `a, b and 3 more`."""
    listed = ", ".join(words[:max_words])
    remaining = len(words) - max_words
    return f"{listed} and {remaining} more" if remaining > 0 else listed


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a notebook's cell."""
    head = _html_row("th", columns)
    body = "".join(_html_row("td", row) for row in rows)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def loss_text(value: float | None, digits: int = 4) -> str:
    """Return a loss as text."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.{digits}f}"


def difference_text(value: float, digits: int = 4) -> str:
    """Return a difference of losses as text, with its sign."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def interval_text(low: float, high: float) -> str:
    """Return an interval of differences as text."""
    return f"{difference_text(low)} to {difference_text(high)}"


def rank_text(value: float | None) -> str:
    """Return a rank correlation as text; a dash for None."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def short_count(value: float) -> str:
    """Return a short count: 25B, 410M, 1.2k."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def bytes_text(value: float) -> str:
    """Return a number of bytes as text."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value:.0f} B"


def name_text(name: str) -> str:
    """Return a name with spaces for underscores."""
    return name.replace("_", " ")


def duration(seconds: float) -> str:
    """Return seconds as `8s`, `3m20s` or `2h05m`."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}s"
    if rounded < 3600:
        return f"{rounded // 60}m{rounded % 60:02d}s"
    return f"{rounded // 3600}h{rounded % 3600 // 60:02d}m"


def terminal_width() -> int:
    """Return the width of lines in columns."""
    return max(MIN_WIDTH, shutil.get_terminal_size(fallback=(80, 24)).columns)


def wrapped(line: str, hanging: str = "  ") -> str:
    """Wrap a line between words to the width of the terminal."""
    indent = line[: len(line) - len(line.lstrip(" "))]
    lines = textwrap.wrap(
        line,
        terminal_width(),
        subsequent_indent=indent + hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if len(lines) <= 1:
        return line
    return "\n".join(lines)
