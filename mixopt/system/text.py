"""Format numbers and lines for people: one format for each kind, everywhere.

Lines are as wide as `COLUMNS`, else the terminal, else 80. Words, numbers and paths are never
broken, so a long path may exceed the width.
"""

import math
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from html import escape


def share_text(value: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * value:.1f}%" if value >= 5e-4 or value == 0 else "<0.1%"


def first_few(words: Sequence[str], max_words: int) -> str:
    """Return the first words and the number of others: `a, b and 3 more`."""
    listed = ", ".join(words[:max_words])
    return listed if len(words) <= max_words else f"{listed} and {len(words) - max_words} more"


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a notebook's cell."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def loss_text(value: float | None, digits: int = 4) -> str:
    """Return a loss as text."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


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


MIN_WIDTH = 40  # narrower terminals are treated as this wide


def terminal_width() -> int:
    """Return the width of lines in columns."""
    return max(MIN_WIDTH, shutil.get_terminal_size(fallback=(80, 24)).columns)


def wrapped(line: str, hanging: str = "  ", width: int | None = None) -> str:
    """Wrap a line between words to the width of the terminal."""
    indent = line[: len(line) - len(line.lstrip(" "))]
    lines = textwrap.wrap(
        line,
        terminal_width() if width is None else width,
        subsequent_indent=indent + hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) if len(lines) > 1 else line
