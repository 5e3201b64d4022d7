"""The elements that the decision page is made of: functions from texts to markup.

Every text is escaped here, so that a domain may have any name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from mixopt.plots import page_svg

_MARKS = re.compile(r"([_/.:-])(?=[^\W_])")  # a line may break after them


@dataclass(frozen=True)
class PageSection:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        body: Markup that the functions below made.
        style: CSS of its own.
        script: JavaScript of its own.
    """

    name: str
    title: str
    body: str
    style: str = ""
    script: str = ""


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph."""
    return f'<p class="{style}">{escape(text)}</p>\n' if style else f"<p>{escape(text)}</p>\n"


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>\n"


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    texts: Sequence[int] = (),
    styles: Sequence[str] = (),
    is_sortable: bool = True,
) -> str:
    """Return a table; the page's script sorts it, and folds a long one.

    Args:
        columns: Names of the columns; the first names the row, others are numbers.
        rows: Cells, as they are to be shown.
        caption: What the table holds.
        texts: Positions of further columns of text.
        styles: Of each row: `strong`, `weak` or nothing; all plain when empty.
        is_sortable: Whether the order of the rows may be changed.
    """
    kinds = ["text" if place in texts else "" for place in range(len(columns))]
    head = "".join(cell("th", name, kind, "col") for name, kind in zip(columns, kinds, strict=True))
    lines = []
    for number, row in enumerate(rows):
        style = styles[number] if styles else ""
        cells = cell("th", row[0], kinds[0], "row") if row else ""
        cells += "".join(
            cell("td", text, kind) for text, kind in zip(row[1:], kinds[1:], strict=True)
        )
        lines.append(f'<tr class="{style}">{cells}</tr>' if style else f"<tr>{cells}</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    kind = ' class="sortable"' if is_sortable and len(lines) > 1 else ""
    return f'<div class="wide"><table{kind}>{title}{body}</table></div>\n'


def figure(svg: str, name: str, description: str) -> str:
    """Return a figure, as `figure_svg` gives it, with its description below."""
    svg = page_svg(svg, name, description)
    return f"<figure>{svg}<figcaption>{escape(description)}</figcaption></figure>\n"


def folded(title: str, text: str) -> str:
    """Return text that is shown when its title is opened."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>\n"


def folded_list(title: str, lines: Iterable[str]) -> str:
    """Return a list that is shown when its title is opened."""
    return f"<details><summary>{escape(title)}</summary>{bullets(lines)}</details>\n"


def cell(element: str, text: str, kind: str = "", scope: str = "") -> str:
    """Return a cell of a table.

    Args:
        element: `th` or `td`.
        text: What it says.
        kind: Its class, if it has one.
        scope: What a `th` names: `col` or `row`.
    """
    style = f' class="{kind}"' if kind else ""
    named = f' scope="{scope}"' if scope else ""
    shown = breakable(text) if element == "th" else escape(text)
    return f"<{element}{style}{named}>{shown}</{element}>"


def breakable(text: str) -> str:
    """Return a name that a narrow column may break after a mark, and nowhere else."""
    return _MARKS.sub(r"\1<wbr>", escape(text))
