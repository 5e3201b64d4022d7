"""How wide a line of the terminal may be, and sentences broken between words.

The width is `COLUMNS` where that is set, else the terminal's, else 80 (a pipe or a file). Words,
numbers and paths stay whole: a line that is one long path is longer than the width.
"""

from __future__ import annotations

import shutil
import textwrap

MIN_WIDTH = 40  # below it, nothing is readable


def terminal_width() -> int:
    """Return how many columns a line may have."""
    return max(MIN_WIDTH, shutil.get_terminal_size(fallback=(80, 24)).columns)


def wrapped(line: str, hanging: str = "  ", width: int | None = None) -> str:
    """Break one line between words so that it fits a terminal."""
    indent = line[: len(line) - len(line.lstrip(" "))]
    lines = textwrap.wrap(
        line,
        terminal_width() if width is None else width,
        subsequent_indent=indent + hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) if len(lines) > 1 else line
