"""A table of text cells, from CSV or Parquet, whose errors name file, row and column.

Shapes: N rows.
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

Cells = tuple[str, ...]
MISSING = ("", "nan", "na", "n/a", "null", "none")  # in any case
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class CellTable:
    """A table: a header without doubles, and rows of as many cells."""

    path: Path
    header: Cells
    rows: tuple[Cells, ...]
    notes: tuple[str, ...] = ()

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

    def once(self) -> CellTable:
        """Return the table without rows that repeat another one, cell by cell."""
        rows = tuple(dict.fromkeys(self.rows))
        gone = len(self.rows) - len(rows)
        note = f"{self.path}: {gone} rows repeat another one, cell by cell; read once"
        return replace(self, rows=rows, notes=(note,)) if gone else self

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
                f"{where}{what}; fill it in, or leave such rows out: --ignore incomplete"
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
