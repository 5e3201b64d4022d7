"""Join a table of mixtures and one of losses by a column of names, never by the order of rows.

A key that is missing, there twice, or in one table alone is an error that names it; what is in
one table alone may be left out if that is asked for, and is noted then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mixopt.errors import TrialsError
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import check_same, listed

KEYS = ("trial", "run", "run_id", "index", "name", "id")  # the first in both tables and unique
SIZE = ("parameters", "tokens")  # of the trial, in either table: neither weight nor loss
SCHEDULE = "schedule"  # share of its own schedule that a row has run (trials.schedule_column)
ROW_NUMBERS = ("", "Unnamed: 0")  # what pandas calls a column of row numbers


def join_tables(
    left: CellTable, right: CellTable, key: str | None, *, drop_incomplete: bool
) -> tuple[str, CellTable, CellTable, list[str]]:
    """Bring two tables to the same rows in the same order.

    Args:
        left: Mixtures; their order is kept.
        right: Losses.
        key: The column to join by; found when None.
        drop_incomplete: Leave out rows that are in one table alone.

    Returns:
        The key, both tables, and a line about each kind of rows that were left out.

    Raises:
        TrialsError: No key, or a name that is missing, doubled or extra.
    """
    found = _key(left, right, key)
    for table in (left, right):
        _check_unique(table, found)
    notes: list[str] = []
    if drop_incomplete:
        left, right, notes = _in_both(left, right, found)
    _check_same(left, right, found)
    places = {name: row for row, name in enumerate(right.column(found))}
    right = right.take([places[name] for name in left.column(found)])
    if key is None:
        _check_agree(left, right, found)
    return found, left, right, notes


def data_columns(table: CellTable, key: str) -> list[str]:
    """Return the columns that hold weights or losses.

    Raises:
        TrialsError: There is none.
    """
    others = (*KEYS, *SIZE, SCHEDULE, *ROW_NUMBERS, key)
    columns = [name for name in table.header if name not in others]
    if not columns:
        raise TrialsError(f"{table.path}: no column besides {', '.join(table.header)}")
    return columns


def _key(left: CellTable, right: CellTable, key: str | None) -> str:
    """Return the column to join by."""
    if key is not None:
        for table in (left, right):
            table.require(key, "--key")
        return key
    common = [name for name in KEYS if name in left.header and name in right.header]
    if not common:
        raise TrialsError(
            f"{left.path} and {right.path}: no column of both to join by (looked for"
            f" {', '.join(KEYS)}); name it: --key COLUMN"
        )
    unique = [n for n in common if all(len(set(t.column(n))) == len(t.rows) for t in (left, right))]
    return (unique or common)[0]


def _check_unique(table: CellTable, key: str) -> None:
    counts = Counter(table.column(key))
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise TrialsError(
            f"{table.path}: {key}: more than one row for {listed(doubled)}; keep one of each, or"
            " join by another column: --key COLUMN"
        )
    if "" in counts:
        line = table.column(key).index("") + 1
        raise TrialsError(f"{table.path}: {key}: is empty in row {line} of the table; fill it in")


def _check_same(left: CellTable, right: CellTable, key: str) -> None:
    try:
        check_same(left.column(key), right.column(key), str(left.path), str(right.path))
    except TrialsError as error:
        raise TrialsError(f"{error}; leave such rows out: --drop-incomplete") from None


def _in_both(left: CellTable, right: CellTable, key: str) -> tuple[CellTable, CellTable, list[str]]:
    """Return the rows that both tables have, and a line about the others."""
    notes, kept = [], []
    for table, other in ((left, right), (right, left)):
        known = set(other.column(key))
        names = table.column(key)
        kept.append(table.take([row for row, name in enumerate(names) if name in known]))
        alone = [name for name in names if name not in known]
        if alone:
            notes.append(f"{table.path}: left out {listed(alone)}, not in {other.path}")
    if not kept[0].rows:
        raise TrialsError(
            f"{left.path} and {right.path}: no {key} is in both; check that it is the key"
        )
    return kept[0], kept[1], notes


def _check_agree(left: CellTable, right: CellTable, key: str) -> None:
    """Check that other columns of names say the same of the rows that were joined."""
    others = [n for n in KEYS if n != key and n in left.header and n in right.header]
    for other in others:
        both: Sequence[tuple[str, str, str]] = list(
            zip(left.column(key), left.column(other), right.column(other), strict=True)
        )
        for name, mine, theirs in both:
            if mine != theirs:
                raise TrialsError(
                    f"{right.path}: row {name}: {other} is {theirs!r}, but {mine!r} in "
                    f"{left.path}; name the column that joins them: --key COLUMN"
                )
