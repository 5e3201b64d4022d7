"""A table of text cells, from CSV or Parquet, whose errors name file, row and column.

Shapes: N rows.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.errors import TrialsError, did_you_mean
from mixopt.system import Array, BoolArray, IntArray, read_table

MISSING = ("", "nan", "-nan", "na", "n/a", "null", "none")  # in any case
PARQUET = (".parquet", ".pq")
OTHER_SEPARATORS = ";\t|"


@dataclass(frozen=True, eq=False)
class CellTable:
    """Columns of text, their file, the column that names the rows, and notes on what was done."""

    path: Path
    cells: pl.DataFrame
    notes: list[str]
    key: str = ""

    @classmethod
    def read(cls, path: Path, notes: list[str]) -> CellTable:
        """Read a file: Parquet by its suffix, else CSV; `notes` collects what is done to it."""
        is_parquet = path.suffix.lower() in PARQUET
        cells = _parquet(path) if is_parquet else _csv(path)
        return cls(path, cells, notes)

    def fault(self, text: str) -> TrialsError:
        """Return an error that names the file."""
        return TrialsError(f"{self.path}: {text}")

    def note(self, text: str) -> None:
        """Add a note that names the file."""
        self.notes.append(f"{self.path}: {text}")

    def require(self, column: str, option: str) -> None:
        """Raise TrialsError if a column is missing."""
        if column not in self.cells.columns:
            near = did_you_mean(column, self.cells.columns)
            raise self.fault(f"{option}: no column {column!r}{near}")

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        return self.cells[name].to_list()

    @property
    def names(self) -> list[str]:
        """The name of each row; its number without a key."""
        if self.key:
            return self.column(self.key)
        return [str(row) for row in range(1, len(self.cells) + 1)]

    def is_unique(self, column: str) -> bool:
        """Return whether a column has another cell in every row."""
        return self.cells[column].n_unique() == len(self.cells)

    def without(self, columns: Collection[str]) -> CellTable:
        """Return the table without some columns."""
        return replace(self, cells=self.cells.drop(columns, strict=False))

    def take(self, rows: Sequence[int] | IntArray) -> CellTable:
        """Return rows by index, in this order."""
        return replace(self, cells=self.cells[list(rows)])

    def where(self, is_kept_N: BoolArray) -> CellTable:
        """Return some rows."""
        return self.take(np.flatnonzero(is_kept_N))

    def gaps(self, columns: Sequence[str]) -> BoolArray:
        """Return which cells are empty or not finite, shape (N, columns)."""
        is_missing = self.cells.select(pl.col(columns).str.to_lowercase().is_in(MISSING))
        values_NC = self._floats(columns)
        return is_missing.to_numpy().reshape(values_NC.shape) | np.isinf(values_NC)

    def numbers(self, columns: Sequence[str]) -> Array:
        """Return columns as finite numbers, shape (N, columns)."""
        values_NC = self._floats(columns)
        for place, row in np.argwhere(~np.isfinite(values_NC.T))[:1]:
            column = columns[place]
            cell = self.column(column)[row]
            fault = f"is {cell or 'empty'}"
            hint = "fill it in, or leave such rows out: --ignore incomplete"
            if not self.gaps([column])[row, 0]:
                fault = f"{cell!r} is not a number"
                hint = f"correct it, or leave the column out: --ignore {column!r}"
            raise self.fault(f"row {self.names[row]}: {column}: {fault}; {hint}")
        return values_NC

    def _floats(self, columns: Sequence[str]) -> Array:
        values = self.cells.select(columns).cast(pl.Float64, strict=False)
        return values.to_numpy().astype(float).reshape(len(self.cells), len(columns))


def _csv(path: Path) -> pl.DataFrame:
    try:
        if path.is_char_device():
            raise TrialsError(f"{path}: cannot be read: it is a device, not a file")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, tuple(map(str.strip, row))) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise TrialsError(f"{path}: cannot be read: {reason}") from error
    if len(lines) < 2:
        raise TrialsError(f"{path}: expected a header and at least one row")
    _, header = lines[0]
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise TrialsError(f"{path}:{line}: {len(row)} cells for {len(header)} columns")
    if len(header) == 1 and any(mark in header[0] for mark in OTHER_SEPARATORS):
        raise TrialsError(f"{path}: columns must be separated by commas, got {header[0]!r}")
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise TrialsError(f"{path}: column {doubled[0]!r} appears twice; rename one")
    columns = zip(*[row for _, row in lines[1:]], strict=True)
    return pl.DataFrame(dict(zip(header, columns, strict=True)))


def _parquet(path: Path) -> pl.DataFrame:
    table = read_table(path, error=TrialsError)
    if table.is_empty():
        raise TrialsError(f"{path}: expected at least one row")
    cells = {name: [_cell(value) for value in table[name]] for name in table.columns}
    return pl.DataFrame(cells)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)  # the shortest text that parses to the same number
    return str(value).strip()
