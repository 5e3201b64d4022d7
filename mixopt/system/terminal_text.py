"""Text for a terminal: how wide a line may be, and sentences broken between words.

The width is `COLUMNS` where that is set, else the terminal's, else 80 (a pipe or a file). Words,
numbers and paths stay whole: a line that is one long path is longer than the width.
"""

from __future__ import annotations

import shutil
import textwrap
import unicodedata

LEAST_WIDTH = 40  # below it, nothing is readable
NARROW, WIDE = 0, 2  # columns that a mark takes that is set over a letter, and an East Asian letter
HANGING = "  "


def terminal_width() -> int:
    """Return how many columns a line may have."""
    return max(LEAST_WIDTH, shutil.get_terminal_size(fallback=(80, 24)).columns)


def shown_width(text: str) -> int:
    """Return how many columns a terminal takes to show a text."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def wrapped(line: str, hanging: str = HANGING, width: int | None = None) -> str:
    """Break one line between words so that it fits a terminal.

    Args:
        line: Without line ends; its indentation is kept.
        hanging: What further lines begin with, after the indentation.
        width: Columns; those of the terminal if not given.
    """
    width = terminal_width() if width is None else width
    if shown_width(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip(" "))]
    lines = textwrap.wrap(
        line,
        width,
        subsequent_indent=indent + hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return NARROW
    return WIDE if unicodedata.east_asian_width(character) in {"W", "F"} else 1
