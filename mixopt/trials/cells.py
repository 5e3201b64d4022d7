"""CSV or Parquet as text cells, so that errors name file, row and column; two joined by a key.

A key that is missing, there twice, or in one table alone is an error that names it; what is in one
table alone may be left out if that is asked for, and is noted then. Of a table with a column
`schedule`, the share of its own schedule that each row has run, rows below 1 are left out: a loss
before the end is of a learning rate that has not come down.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixopt.errors import TrialsError, did_you_mean
from mixopt.system import Array, BoolArray, read_table
from mixopt.trials.columns import check_same, listed

Cells = tuple[str, ...]
MISSING = ("", "nan", "na", "n/a", "null", "none")  # in any case
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class CellTable:
    """A table: a header without doubles, and rows of as many cells."""

    path: Path
    header: Cells
    rows: tuple[Cells, ...]

    @classmethod
    def read(cls, path: Path) -> CellTable:
        """Read a file: Parquet by its name, else CSV."""
        header, rows = _parquet(path) if path.suffix.lower() in PARQUET else _csv(path)
        doubled = [name for name, count in Counter(header).items() if count > 1]
        if doubled:
            raise TrialsError(f"{path}: column {doubled[0]!r} appears twice; rename one")
        return cls(path, header, rows)

    def require(self, column: str, option: str) -> None:
        """Check that a column is there."""
        if column not in self.header:
            near = did_you_mean(column, self.header)
            raise TrialsError(f"{self.path}: {option}: no column {column!r}{near}")

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        position = self.header.index(name)
        return [row[position] for row in self.rows]

    def without(self, columns: Collection[str]) -> CellTable:
        """Return the table without some columns."""
        kept = [place for place, name in enumerate(self.header) if name not in columns]
        rows = tuple(tuple(row[place] for place in kept) for row in self.rows)
        return replace(self, header=tuple(self.header[place] for place in kept), rows=rows)

    def take(self, rows: Sequence[int]) -> CellTable:
        """Return some rows, in this order."""
        return replace(self, rows=tuple(self.rows[row] for row in rows))

    def gaps(self, names: Sequence[str]) -> BoolArray:
        """Tell which cells of columns hold nothing or what is not finite, shape (rows, names)."""
        found = [[_is_gap(cell) for cell in cells] for _, cells in self._columns(names)]
        return np.array(found, dtype=bool).reshape(len(names), len(self.rows)).T

    def numbers(self, names: Sequence[str], keys: Sequence[str]) -> Array:
        """Return columns of finite numbers, shape (rows, names)."""
        columns = [
            [self._number(cell, n, key) for cell, key in zip(cells, keys, strict=True)]
            for n, cells in self._columns(names)
        ]
        return np.array(columns, dtype=np.float64).T

    def _columns(self, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        places = {name: place for place, name in enumerate(self.header)}
        for name in names:
            yield name, [row[places[name]] for row in self.rows]

    def _number(self, cell: str, column: str, key: str) -> float:
        where = f"{self.path}: row {key}: {column}: "
        if _is_gap(cell):
            what = f"is {cell}" if cell else "is empty"
            raise TrialsError(
                f"{where}{what}; fill it in, or leave such rows out: --drop-incomplete"
            )
        try:
            return float(cell)
        except ValueError:
            raise TrialsError(
                f"{where}{cell!r} is not a number; correct it, or leave the column out:"
                f" --ignore {column!r}"
            ) from None


def _is_gap(cell: str) -> bool:
    if cell.lower() in MISSING:
        return True
    try:
        return not math.isfinite(float(cell))
    except ValueError:
        return False


def _csv(path: Path) -> tuple[Cells, tuple[Cells, ...]]:
    try:
        if path.is_char_device():
            raise TrialsError(f"{path}: cannot be read: it is a device, not a file")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, tuple(map(str.strip, row))) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrialsError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if len(lines) < 2:
        raise TrialsError(f"{path}: expected a header and at least one row")
    header = lines[0][1]
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise TrialsError(f"{path}:{line}: {len(row)} cells for {len(header)} columns")
    return header, tuple(row for _, row in lines[1:])


def _parquet(path: Path) -> tuple[Cells, tuple[Cells, ...]]:
    table = read_table(path, error=TrialsError)
    if table.is_empty():
        raise TrialsError(f"{path}: expected at least one row")
    return tuple(table.columns), tuple(tuple(map(_cell, row)) for row in table.iter_rows())


def _cell(value: object) -> str:
    # repr of a float is the shortest text that reads back as the same number.
    return "" if value is None else repr(value) if isinstance(value, float) else str(value).strip()


KEYS = ("trial", "run", "run_id", "index", "name", "id")  # the first in both tables and unique
SIZE = ("parameters", "tokens")  # of the trial, in either table: neither weight nor loss
SCHEDULE = "schedule"  # share of its own schedule that a row has run (trials.schedule_column)
ROW_NUMBERS = ("", "Unnamed: 0")  # what pandas calls a column of row numbers


def join_tables(
    left: CellTable, right: CellTable, key: str | None, *, drop_incomplete: bool
) -> tuple[str, CellTable, CellTable, list[str]]:
    """Bring two tables to the same rows in the same order."""
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
    """Return the columns that hold weights or losses."""
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
            f" {', '.join(KEYS)}); name it: mixopt import --key COLUMN"
        )
    unique = [n for n in common if all(len(set(t.column(n))) == len(t.rows) for t in (left, right))]
    return (unique or common)[0]


def _check_unique(table: CellTable, key: str) -> None:
    counts = Counter(table.column(key))
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise TrialsError(
            f"{table.path}: {key}: more than one row for {listed(doubled)}; keep one of each, or"
            " join by another column: mixopt import --key COLUMN"
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
                    f"{left.path}; name the column that joins them: mixopt import --key COLUMN"
                )


def finished_rows(
    left: CellTable, right: CellTable, key: str
) -> tuple[CellTable, CellTable, list[str]]:
    """Return the rows of finished runs, and a line about those that were left out."""
    given = next((one for one in (left, right) if SCHEDULE in one.header), None)
    if given is None:
        return left, right, []
    names = given.column(key)
    share_N = given.numbers([SCHEDULE], names)[:, 0]
    for row in np.flatnonzero(~((share_N > 0) & (share_N <= 1)))[:1]:
        raise TrialsError(
            f"{given.path}: row {names[row]}: {SCHEDULE}: is {share_N[row]:g}; need the share of"
            " its schedule that the row has run, above 0 and at most 1"
        )
    kept = np.flatnonzero(share_N == 1).tolist()
    if not kept:
        raise TrialsError(
            f"{given.path}: {SCHEDULE}: no row is at 1, the end of its schedule; give the last row"
            " of each run"
        )
    gone = [name for name, share in zip(names, share_N, strict=True) if share < 1]
    said = f"{given.path}: left out {len(gone)} of {len(names)} rows before the end of their"
    notes = [f"{said} {SCHEDULE}: {listed(gone)}"] if gone else []
    return left.take(kept), right.take(kept), notes


def run_seeds(mixtures: Sequence[str], parameters: Sequence[int | None]) -> list[int]:
    """Number the runs of each mixture and number of parameters, from 0."""
    seen: Counter[tuple[str, int | None]] = Counter()
    seeds = []
    for run in zip(mixtures, parameters, strict=True):
        seeds.append(seen[run])
        seen[run] += 1
    return seeds
