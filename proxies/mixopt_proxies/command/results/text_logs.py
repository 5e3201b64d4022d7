"""Read a trainer's log as JSON, as lines of JSON, or as a table with a header.

NaN and infinity are read as such, since a trainer that diverged writes them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from mixopt.errors import RunError
from mixopt.system import read_text
from mixopt_proxies.command.results.logged_values import LoggedValues


def read_json_log(path: Path) -> LoggedValues:
    """Read one JSON value: a mapping of names, nested or not, or a list of such.

    Raises:
        RunError: The file is no JSON, or has no names.
    """
    content = _parsed(read_text(path, error=RunError), str(path))
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return LoggedValues.of_rows(content)
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected names with values, got {type(content).__name__}")
    return LoggedValues.of_mapping(content)


def read_json_lines(path: Path) -> LoggedValues:
    """Read one mapping a line.

    Raises:
        RunError: A line is not a mapping; it is named.
    """
    rows = []
    for number, line in enumerate(read_text(path, error=RunError).splitlines(), start=1):
        if line.strip():
            row = _parsed(line, f"{path}:{number}")
            if not isinstance(row, dict):
                raise RunError(f"{path}:{number}: expected names with values, got {line[:60]!r}")
            rows.append(row)
    return LoggedValues.of_rows(rows)


def read_table_log(path: Path) -> LoggedValues:
    """Read a table with a header, separated by commas (tabs in a `.tsv`); an empty cell is none.

    Raises:
        RunError: A line has more cells than the header.
    """
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
