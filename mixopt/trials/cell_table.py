"""A table of text cells, from CSV or Parquet, whose errors name file, row and column.

Shapes: N rows.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.errors import TrialsError, did_you_mean
from mixopt.system import Array, BoolArray, read_table

MISSING = ("", "nan", "na", "n/a", "null", "none")  # in any case
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, eq=False)
class CellTable:
    """Columns of text, and the file that they are from."""

    path: Path
    cells: pl.DataFrame

    @classmethod
    def read(cls, path: Path) -> CellTable:
        """Read a file: Parquet by its name, else CSV."""
        return cls(path, _parquet(path) if path.suffix.lower() in PARQUET else _csv(path))

    def require(self, column: str, option: str) -> None:
        """Check that a column is there."""
        if column not in self.cells.columns:
            near = did_you_mean(column, self.cells.columns)
            raise TrialsError(f"{self.path}: {option}: no column {column!r}{near}")

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        return self.cells[name].to_list()

    def without(self, columns: Collection[str]) -> CellTable:
        """Return the table without some columns."""
        return replace(self, cells=self.cells.drop(columns, strict=False))

    def once(self) -> tuple[CellTable, list[str]]:
        """Return the table without rows that repeat another one, and a line about them."""
        once = self.cells.unique(maintain_order=True)
        gone = len(self.cells) - len(once)
        note = f"{self.path}: {gone} rows repeat another one, cell by cell; read once"
        return replace(self, cells=once), [note] if gone else []

    def take(self, rows: Sequence[int]) -> CellTable:
        """Return some rows, in this order."""
        return replace(self, cells=self.cells[list(rows)])

    def gaps(self, names: Sequence[str]) -> BoolArray:
        """Tell which cells of columns hold nothing or what is not finite, shape (rows, names)."""
        found = [list(map(_is_gap, self.column(name))) for name in names]
        return np.array(found, dtype=bool).reshape(len(names), len(self.cells)).T

    def numbers(self, names: Sequence[str], keys: Sequence[str]) -> Array:
        """Return columns of finite numbers, shape (rows, names)."""
        columns = [
            [
                self._number(cell, name, key)
                for cell, key in zip(self.column(name), keys, strict=True)
            ]
            for name in names
        ]
        return np.array(columns, dtype=np.float64).T

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


def _csv(path: Path) -> pl.DataFrame:
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
    header, rows = lines[0][1], [row for _, row in lines[1:]]
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise TrialsError(f"{path}:{line}: {len(row)} cells for {len(header)} columns")
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise TrialsError(f"{path}: column {doubled[0]!r} appears twice; rename one")
    return pl.DataFrame(dict(zip(header, zip(*rows, strict=True), strict=True)))


def _parquet(path: Path) -> pl.DataFrame:
    table = read_table(path, error=TrialsError)
    if table.is_empty():
        raise TrialsError(f"{path}: expected at least one row")
    return pl.DataFrame({name: list(map(_cell, table[name])) for name in table.columns})


def _cell(value: object) -> str:
    # repr of a float is the shortest text that reads back as the same number.
    return "" if value is None else repr(value) if isinstance(value, float) else str(value).strip()
