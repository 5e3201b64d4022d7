"""A table for a terminal: plain text, the first column to the left and numbers to the right."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence


def table_text(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], width: int = 100
) -> str:
    """Return a table as text, a line under its title.

    Args:
        title: What it holds; longer than the table, it is not wrapped.
        columns: Names of the columns.
        rows: Cells, as they are to be shown.
        width: Characters of a line, at most.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, color_system=None, markup=False)
    console.print(title, soft_wrap=True)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines()) + "\n"
