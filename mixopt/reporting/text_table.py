"""A table for a terminal: plain text, the first column to the left and numbers to the right.

A table that is wider than the terminal is made narrower in this order: smaller gaps, headers and
cells over several lines where that costs few, and at last the columns in two or more tables, each
with the first column. Words and numbers are never cut; names longer than half the terminal are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mixopt.system import shown_width, terminal_width

GAPS = (3, 2)  # spaces between columns, where they fit, and where they do not
MARGIN = 2  # spaces before the first column
LEAST_NAME = 20  # columns of a word that is never cut

Row = Sequence[str]


def table_text(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Row],
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
    width = (terminal_width() if width is None else width) - 1  # the rule ends one further
    cells = [tuple(columns), *(tuple(row) for row in rows)]
    left = {0, *(place for place, name in enumerate(columns) if name in texts)}
    parts = (_block(part, places, left, width) for part, places in _parts(cells, width))
    return "\n".join([title, "", "\n\n".join(parts)]) + "\n"


def _parts(cells: Sequence[Row], width: int) -> Iterator[tuple[list[Row], list[int]]]:
    """Give the columns that fit beside each other, each time after the first one."""
    least = [_least(cells, place, width) for place in range(len(cells[0]))]
    chosen, taken = [0], MARGIN + least[0]
    for place in range(1, len(least)):
        if taken + GAPS[-1] + least[place] > width and len(chosen) > 1:
            yield [tuple(row[k] for k in chosen) for row in cells], chosen
            chosen, taken = [0], MARGIN + least[0]
        chosen.append(place)
        taken += GAPS[-1] + least[place]
    yield [tuple(row[k] for k in chosen) for row in cells], chosen


def _block(cells: Sequence[Row], places: Sequence[int], left: set[int], width: int) -> str:
    natural = [max(shown_width(row[k]) for row in cells) for k in range(len(places))]
    gap = next((gap for gap in GAPS if _total(natural, gap) <= width), GAPS[-1])
    widths = natural if _total(natural, gap) <= width else _narrowed(cells, natural, width)
    rule = " " + "─" * (_total(widths, gap) - MARGIN + 2)
    is_left = [place in left for place in places]
    lines = [_lines(row, widths, is_left, gap, width) for row in cells]
    return "\n".join([*lines[0], rule, *(line for row in lines[1:] for line in row)])


def _narrowed(cells: Sequence[Row], natural: Sequence[int], width: int) -> list[int]:
    """Return widths that fit, by breaking what costs the fewest lines for the columns it saves."""
    widths = list(natural)
    while (excess := _total(widths, GAPS[-1]) - width) > 0:
        choices = []
        for k, now in enumerate(widths):
            column = [row[k] for row in cells]
            narrower = _broken_once(column, now, width)
            if narrower < now:
                cost = _height(column, narrower, width) - _height(column, now, width)
                choices.append((cost / min(now - narrower, excess), k, narrower))
        if not choices:
            break
        _, chosen, narrower = min(choices)
        widths[chosen] = narrower
    return widths


def _broken_once(column: Sequence[str], now: int, width: int) -> int:
    """Return how wide a column is when its widest cells have one more break."""
    return max(shown_width(line) for cell in column for line in _filled(cell, now - 1, width))


def _height(column: Sequence[str], limit: int, width: int) -> int:
    return sum(len(_filled(cell, limit, width)) for cell in column)


def _total(widths: Sequence[int], gap: int) -> int:
    return MARGIN + sum(widths) + gap * (len(widths) - 1)


def _least(cells: Sequence[Row], place: int, width: int) -> int:
    """Return the width of the longest word of a column."""
    return max(shown_width(word) for row in cells for word in _words(row[place], width))


def _words(text: str, width: int) -> list[str]:
    """Return the words of a cell; a name that would fill the terminal is cut."""
    longest = max(LEAST_NAME, width // 2)
    pieces = []
    for word in text.split(" "):
        starts = range(0, max(1, len(word)), longest)
        pieces += [word[start : start + longest] for start in starts]
    return pieces


def _lines(
    row: Row, widths: Sequence[int], is_left: Sequence[bool], gap: int, width: int
) -> list[str]:
    """Return the lines of a row."""
    broken = [_filled(cell, limit, width) for cell, limit in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, broken))):
        shown = [cell[number] if number < len(cell) else "" for cell in broken]
        padded = [
            _padded(text, limit, left)
            for text, limit, left in zip(shown, widths, is_left, strict=True)
        ]
        lines.append((" " * MARGIN + (" " * gap).join(padded)).rstrip())
    return lines


def _filled(text: str, limit: int, width: int) -> list[str]:
    """Break a cell between words where it is longer than a limit."""
    if shown_width(text) <= limit:
        return [text]
    lines = [""]
    for word in _words(text, width):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if shown_width(longer) <= limit or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _padded(text: str, width: int, left: bool) -> str:
    spaces = " " * max(0, width - shown_width(text))
    return text + spaces if left else spaces + text
