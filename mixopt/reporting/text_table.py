"""A table for a terminal: plain text by rich, the first column to the left, numbers to the right.

Where the terminal is too narrow for all columns, headers and cells take several lines, and then the
columns go into two or more tables, each with the first column. Words and numbers are never cut;
names longer than half the terminal are.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

from mixopt.system import terminal_width

MIN_NAME = 20  # columns of a word that is never cut
GAP = 2  # spaces between columns
MARGIN = "  "


def table_text(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int | None = None,
    texts: Sequence[str] = (),
) -> str:
    """Return a table as text, a line under its title.

    Args:
        title: What it holds; longer than the terminal is wide, it is wrapped where it is printed.
        columns: Names of the columns.
        rows: Cells, as they are to be shown.
        width: Columns of the terminal; found if not given.
        texts: Columns beside the first that hold words, which are set to the left.
    """
    width = (terminal_width() if width is None else width) - len(MARGIN)
    cells = [tuple(columns), *(tuple(row) for row in rows)]
    left = {0, *(place for place, name in enumerate(columns) if name in texts)}
    parts = [_block(cells, places, left, width) for places in _parts(cells, width)]
    return "\n".join([title, "", "\n\n".join(parts)]) + "\n"


def _parts(cells: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yield the columns that fit beside each other, each time after the first one."""
    from rich.cells import cell_len

    longest = max(MIN_NAME, width // 2)
    least = [
        GAP + min(longest, max(cell_len(word) for row in cells for word in row[place].split(" ")))
        for place in range(len(cells[0]))
    ]
    chosen = [0]
    for place in range(1, len(least)):
        if 1 + sum(least[k] for k in [*chosen, place]) > width and len(chosen) > 1:
            yield chosen
            chosen = [0]
        chosen.append(place)
    yield chosen


def _block(
    cells: Sequence[Sequence[str]], places: Sequence[int], left: set[int], width: int
) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=True)
    for place in places:
        justify = "left" if place in left else "right"
        table.add_column(Text(cells[0][place]), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in cells[1:]:
        table.add_row(*(Text(row[place]) for place in places))
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, force_terminal=False).print(table)
    return "\n".join((MARGIN + line).rstrip() for line in stream.getvalue().splitlines())
