"""The result that a trainer leaves: one JSON, JSONL or CSV, or several by a glob.

A nested mapping is flattened: `{"eval": {"web": 3.1}}` has the name `eval.web`. A list of mappings
is rows of a log, such as the `log_history` of a Hugging Face Trainer: each name in them is a
series, with the row's step and tokens where it says them. NaN and infinity are read as such, since
a trainer that diverged writes them. Where a glob matches several files, the path of each, without
suffix, is part of its names: `eval/web.json` with a `loss` has `eval/web/loss`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mixopt.errors import RunError, did_you_mean
from mixopt.system import inside, read_text

MAX_LISTED = 8  # files that an error names
STEPS = ("step", "_step", "steps", "global_step", "iteration", "iter", "trainer/global_step")
TOKENS = ("tokens", "tokens_seen", "consumed_tokens", "num_tokens", "total_tokens")
# What a result may say of itself, beside losses.
OF_ITSELF = ("trial", "seed", "mixture", "tokens", "parameters")
_NO_NUMBERS = frozenset({"nan", "inf", "-inf", "infinity", "-infinity"})
MAX_DEPTH = 32  # mappings within mappings


@dataclass(frozen=True)
class LoggedPoint:
    """One value, and where in training it was logged, as far as that is said."""

    value: float
    step: float | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class LoggedValues:
    """What a trainer logged.

    Attributes:
        series: Points by name, in their order.
        said: What the result says of itself (`trial`, `seed`, `mixture`, `tokens`, `parameters`).
    """

    series: dict[str, list[LoggedPoint]] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> LoggedValues:
        """Take rows of a log; of what they say of themselves, the last counts."""
        found = cls()
        for row in rows:
            found.add_row(row)
        return found

    @classmethod
    def of_mapping(cls, content: Mapping[str, Any]) -> LoggedValues:
        """Take one mapping, lists of rows within it included."""
        found = cls()
        found.add_row(content)
        return found

    def add_row(self, row: Mapping[str, Any], prefix: str = "", *, deep: int = 0) -> None:
        """Add one row of a log, or a whole mapping."""
        step, tokens = (_first_number(row, names) for names in (STEPS, TOKENS))
        if not prefix:
            self.said.update({name: row[name] for name in OF_ITSELF if row.get(name) is not None})
        for name, value in _flat(row, prefix):
            self.add_value(name, value, step, tokens, deep=deep)

    def add_value(
        self, name: str, value: Any, step: float | None, tokens: float | None, *, deep: int = 0
    ) -> None:
        """Add one value; a list is a series of its own, and what is not a number is left out."""
        if isinstance(value, list):
            for one in value if deep < MAX_DEPTH else []:
                if isinstance(one, Mapping):
                    self.add_row(one, f"{name}.", deep=deep + 1)
                else:
                    self.add_value(name, one, None, None, deep=MAX_DEPTH)
        elif (number := number_of(value)) is not None:
            self.series.setdefault(name, []).append(LoggedPoint(number, step, tokens))


def number_of(value: Any) -> float | None:
    """Return a value as a number, NaN and infinities included; None where it is none."""
    if isinstance(value, str):
        return float(value) if value.strip().lower() in _NO_NUMBERS else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def _first_number(row: Mapping[str, Any], names: Iterable[str]) -> float | None:
    """Return the first of some numbers that a row has and that is finite."""
    found = (number_of(row.get(name)) for name in names)
    return next((one for one in found if one is not None and math.isfinite(one)), None)


def _flat(row: Mapping[str, Any], prefix: str, deep: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.", deep + 1) if deep < MAX_DEPTH else ()
        else:
            yield name, value


def find_result(folder: Path, result: str, given: Collection[str] = ()) -> list[Path]:
    """Return the files of a trial that `result` names, sorted."""
    exact = folder / result
    found = [exact] if exact.exists() else sorted(folder.glob(result))
    if not found:
        written = [path.relative_to(folder).as_posix() for path in _files(folder)]
        there = [name for name in written if name not in given][:MAX_LISTED]
        near = did_you_mean(result, there) if there else "; it wrote nothing there"
        raise RunError(f"{folder}: the command wrote no {result!r}{near}")
    return [inside(folder, path.relative_to(folder).as_posix(), RunError) for path in found]


def read_result(folder: Path, paths: list[Path]) -> LoggedValues:
    """Read the files of a result together."""
    found = LoggedValues()
    for path in paths:
        relative = path.relative_to(folder).with_suffix("").as_posix()
        prefix = "" if len(paths) == 1 else f"{relative}/"
        values = _read(path)
        for name, points in values.series.items():
            found.series.setdefault(prefix + name, []).extend(points)
        for name, value in values.said.items():
            if found.said.setdefault(name, value) != value:
                both = f"{found.said[name]!r} in one file and {value!r} in {path.name}"
                raise RunError(f"{folder}: {name} is {both}; name one as 'result'")
    return found


def _read(path: Path) -> LoggedValues:
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".json":
        return _json(path)
    if path.is_file() and suffix in (".jsonl", ".ndjson"):
        return _json_lines(path)
    if path.is_file() and suffix in (".csv", ".tsv"):
        return _table(path)
    raise RunError(f"{path}: is no JSON, JSONL, CSV or TSV file; have the command write one")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, links to folders not followed."""
    for place, inner, names in os.walk(folder):
        inner.sort()
        yield from (Path(place, name) for name in sorted(names))


def _json(path: Path) -> LoggedValues:
    """Read one JSON value: a mapping of names, nested or not, or a list of such."""
    content = _parsed(read_text(path, error=RunError), str(path))
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return LoggedValues.of_rows(content)
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected names with values, got {type(content).__name__}")
    return LoggedValues.of_mapping(content)


def _json_lines(path: Path) -> LoggedValues:
    """Read one mapping a line."""
    rows = []
    for number, line in enumerate(read_text(path, error=RunError).splitlines(), start=1):
        if line.strip():
            row = _parsed(line, f"{path}:{number}")
            if not isinstance(row, dict):
                raise RunError(f"{path}:{number}: expected names with values, got {line[:60]!r}")
            rows.append(row)
    return LoggedValues.of_rows(rows)


def _table(path: Path) -> LoggedValues:
    """Read a table with a header, separated by commas (tabs in a `.tsv`); an empty cell is none."""
    text = read_text(path, error=RunError).removeprefix("\ufeff")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return LoggedValues.of_rows(_cells(reader, path))
    except csv.Error as error:
        raise RunError(f"{path}:{reader.line_num}: cannot be read: {error}") from error


def _cells(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, Any]]:
    """Yield the cells of each line by name, numbers as such."""
    for row in reader:
        if None in row:
            raise RunError(f"{path}:{reader.line_num}: has more cells than the header")
        yield {name.strip(): _cell(text) for name, text in row.items() if text}


def _cell(text: str) -> str | float:
    try:
        return int(text) if text.strip().isdecimal() else float(text)
    except ValueError:
        return text


def _parsed(text: str, where: str) -> Any:
    """Return the content of JSON, NaN and infinity included."""
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        _refuse(where, "is nested too deeply")
    except ValueError as error:
        _refuse(where, f"cannot be read: {error}")


def _whole(text: str) -> int | float:
    return int(text) if len(text) < 40 else float(text)


def _refuse(where: str, fault: str) -> NoReturn:
    raise RunError(f"{where}: {fault}")
