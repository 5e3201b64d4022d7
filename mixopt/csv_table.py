"""A CSV file as text cells, so that whatever is wrong can be said with file, row and column."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import TrialsError


@dataclass(frozen=True)
class CsvTable:
    """A CSV file: a header without doubles, and rows of as many cells."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, path: Path) -> CsvTable:
        """Read a file.

        Raises:
            TrialsError: It cannot be read, has no row, a column is there twice, or a row has
                more or fewer cells than the header.
        """
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                reader = csv.reader(stream)
                lines = [(reader.line_num, tuple(map(str.strip, row))) for row in reader if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise TrialsError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
        if len(lines) < 2:
            raise TrialsError(f"{path}: expected a header and at least one row")
        header = lines[0][1]
        doubled = [name for name, count in Counter(header).items() if count > 1]
        if doubled:
            raise TrialsError(f"{path}: column {doubled[0]!r} is there twice")
        for line, row in lines[1:]:
            if len(row) != len(header):
                raise TrialsError(f"{path}:{line}: {len(row)} cells for {len(header)} columns")
        return cls(path, header, tuple(row for _, row in lines[1:]))

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        position = self.header.index(name)
        return [row[position] for row in self.rows]

    def numbers(self, names: Sequence[str], keys: Sequence[str]) -> NDArray[np.float64]:
        """Return columns of finite numbers, shape (rows, names).

        Args:
            names: Columns.
            keys: What to call each row in an error.

        Raises:
            TrialsError: A cell is empty, no number, or not finite; row and column are named.
        """
        columns = [
            [
                self._number(cell, name, key)
                for cell, key in zip(self.column(name), keys, strict=True)
            ]
            for name in names
        ]
        return np.array(columns, dtype=np.float64).T

    def _number(self, cell: str, column: str, key: str) -> float:
        try:
            value = float(cell)
        except ValueError:
            what = f"{cell!r} is not a number" if cell else "is empty"
            raise TrialsError(f"{self.path}: row {key}: {column}: {what}") from None
        if not np.isfinite(value):
            raise TrialsError(
                f"{self.path}: row {key}: {column}: is {value}; leave the row out of both tables"
            )
        return value
