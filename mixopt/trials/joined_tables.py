"""Join a table of mixtures and a table of losses by their key.

A key that is missing, repeated, or in one table only is an error that names it; rows in one table
only, and rows without all numbers, may be left out on request. Notes report what was left out.

Shapes: N rows.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from mixopt.errors import TrialsError
from mixopt.system import BoolArray
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import check_same, listed
from mixopt.trials.exported_tables import KEYS, PHASE, SCHEDULE, SIZE

ROW_NUMBERS = ("", "Unnamed: 0")  # pandas' names for a column of row numbers


def without_repeats(table: CellTable) -> CellTable:
    """Return the rows that differ in some cell, each once."""
    distinct = replace(table, cells=table.cells.unique(maintain_order=True))
    repeats = len(table.cells) - len(distinct.cells)
    if repeats:
        table.note(f"rows that repeat another one, cell by cell, read once: {repeats}")
    return distinct


def joined(
    left: CellTable, right: CellTable, key: str | None, *, drop_incomplete: bool
) -> tuple[CellTable, CellTable]:
    """Return the rows of both tables in the order of the first, joined by their key."""
    key_column = _key(left, right, key)
    left = replace(left, key=key_column)
    right = replace(right, key=key_column)
    _check_unique(left)
    _check_unique(right)
    if drop_incomplete:
        left = _only_common(left, right)
        right = _only_common(right, left)
    _check_numbering(left, right)
    try:
        check_same(left.names, right.names, str(left.path), str(right.path))
    except TrialsError as error:
        raise TrialsError(f"{error}; leave such rows out: --ignore incomplete") from None
    row_of = {name: row for row, name in enumerate(right.names)}
    right = right.take([row_of[name] for name in left.names])
    if key is None:
        _check_agree(left, right)
    return left, right


def without_gaps(left: CellTable, right: CellTable) -> tuple[CellTable, CellTable]:
    """Leave out losses that no row has, then rows with missing numbers."""
    columns = data_columns(right)
    empty = [name for name in columns if right.gaps([name]).all()]
    if empty:
        right.note(f"left out {listed(empty)}, empty in every row")
    is_complete_N = np.zeros(len(left.cells), dtype=bool)
    if len(empty) < len(columns):
        right = right.without(empty)
        is_complete_N = _complete_rows(left) & _complete_rows(right)
    if not is_complete_N.any():
        raise TrialsError(f"{left.path} and {right.path}: no row is complete")
    return left.where(is_complete_N), right.where(is_complete_N)


def data_columns(table: CellTable) -> list[str]:
    """Return the columns of weights or losses."""
    excluded = {*KEYS, *SIZE, *ROW_NUMBERS, SCHEDULE, table.key}
    others = [name for name in table.cells.columns if name not in excluded]
    columns = [name for name in others if not name.startswith(PHASE)]
    if not columns:
        raise table.fault(f"no column besides {', '.join(table.cells.columns)}")
    return columns


def _only_common(table: CellTable, other: CellTable) -> CellTable:
    """Return the rows whose key is in both tables."""
    names = set(other.names)
    rows = [row for row, name in enumerate(table.names) if name in names]
    if not rows:
        raise TrialsError(
            f"{table.path} and {other.path}: no {table.key} is in both; check that it is the key"
        )
    unjoined = [name for name in table.names if name not in names]
    if unjoined:
        table.note(f"left out {listed(unjoined)}, not in {other.path}")
    return table.take(rows)


def _complete_rows(table: CellTable) -> BoolArray:
    """Return which rows have all numbers, and note the others."""
    lacks_N = np.asarray(table.gaps(data_columns(table)).any(axis=1))
    if lacks_N.any():
        names = table.where(lacks_N).names
        table.note(
            f"left out {len(names)} of {len(lacks_N)} rows that lack a number: {listed(names)}"
        )
    return ~lacks_N


def _key(left: CellTable, right: CellTable, key: str | None) -> str:
    """Return the column to join by."""
    if key is not None:
        for table in (left, right):
            table.require(key, "--key")
        return key
    common = [name for name in KEYS if name in left.cells.columns and name in right.cells.columns]
    if not common:
        raise TrialsError(
            f"{left.path} and {right.path}: no column of both to join by (looked for"
            f" {', '.join(KEYS)}); name it: mixopt import --key COLUMN"
        )
    for name in common:
        if left.is_unique(name) and right.is_unique(name):
            return name
    return common[0]


def _check_unique(table: CellTable) -> None:
    key = table.key
    counts = Counter(table.names)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise table.fault(
            f"{key}: more than one row for {listed(doubled)}; keep one of each, or join by another"
            " column: mixopt import --key COLUMN"
        )
    if "" in counts:
        line = table.names.index("") + 1
        raise table.fault(f"{key}: is empty in row {line} of the table; fill it in")


def _check_numbering(left: CellTable, right: CellTable) -> None:
    """Raise TrialsError if one table counts rows from 0 and the other from 1."""
    if not all(name.isdecimal() for name in left.names + right.names):
        return
    left_numbers = sorted(map(int, left.names))
    right_numbers = sorted(map(int, right.names))
    offset = right_numbers[0] - left_numbers[0]
    if abs(offset) == 1 and [number + offset for number in left_numbers] == right_numbers:
        raise right.fault(
            f"{left.key} goes from {right_numbers[0]} to {right_numbers[-1]}, and"
            f" from {left_numbers[0]} to {left_numbers[-1]} in {left.path}: off by one? Number both"
            " alike, or mixopt import --key COLUMN"
        )


def _check_agree(left: CellTable, right: CellTable) -> None:
    """Check that other name columns agree in joined rows."""
    common = [name for name in KEYS if name in left.cells.columns and name in right.cells.columns]
    for column in common:
        rows = zip(left.names, left.column(column), right.column(column), strict=True)
        for name, left_cell, right_cell in rows:
            if left_cell != right_cell:
                raise right.fault(
                    f"row {name}: {column} is {right_cell!r}, but {left_cell!r} in {left.path};"
                    " name the column that joins them: mixopt import --key COLUMN"
                )
