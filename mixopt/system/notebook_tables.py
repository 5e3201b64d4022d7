"""Tables in notebooks: what `_repr_html_` of runs, fits, trials and mixtures is made of."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

ROWS = 20  # of a table in a notebook
_TEXT = ' style="text-align:left"'
_NUMBER = ' style="text-align:right"'


def html_table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    notes: Iterable[str] = (),
    texts: Sequence[int] = (),
    what: str = "rows",
) -> str:
    """Return an HTML table."""
    every = list(rows)
    styles = [_TEXT if n == 0 or n in texts else _NUMBER for n in range(len(columns))]
    head = _row("th", columns, styles)
    body = "".join(_row("td", row, styles) for row in every[:ROWS])
    lines = [*notes]
    if len(every) > ROWS:
        lines.insert(0, f"and {len(every) - ROWS} more {what}")
    listed = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return (
        f'<table><caption style="text-align:left">{html.escape(caption)}</caption>'
        f"<thead>{head}</thead><tbody>{body}</tbody></table>"
        + (f"<ul>{listed}</ul>" if listed else "")
    )


def _row(element: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    made = (
        f"<{element}{style}>{html.escape(cell)}</{element}>"
        for cell, style in zip(cells, styles, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"
