"""Read JSON, YAML and arrays of unknown origin, checked against an expected shape."""

from __future__ import annotations

import json
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import yaml

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.system.names import shown_name

if TYPE_CHECKING:
    from mixopt.system.arrays import Array

Shape = TypeVar("Shape")

LARGEST_YAML = 1_000_000  # bytes
DEEPEST = 64  # sections within sections
MOST_VALUES = 100_000  # of a YAML file, aliases counted with what they stand for
MOST_DIGITS = 40  # of a whole number: generators of random numbers keep 128 bits
LARGEST_ARRAY = 1 << 31  # bytes
LARGEST_FILE = 1 << 28  # bytes; a hole of a terabyte takes no room on a disk


@overload
def read_json(
    path: Path,
    shape: None = None,
    *,
    error: type[MixoptError] = RunError,
    missing: Callable[[], Exception] | None = None,
) -> Any: ...
@overload
def read_json(
    path: Path,
    shape: type[Shape],
    *,
    error: type[MixoptError] = RunError,
    missing: Callable[[], Exception] | None = None,
) -> Shape: ...
def read_json(
    path: Path,
    shape: Any = None,
    *,
    error: type[MixoptError] = RunError,
    missing: Callable[[], Exception] | None = None,
) -> Any:
    """Read a JSON file."""
    content = parse_json(read_bytes(path, error=error, missing=missing), str(path), error=error)
    return content if shape is None else checked_as(shape, content, str(path), error)


def parse_json(text: str | bytes, where: str, *, error: type[MixoptError] = RunError) -> Any:
    """Return the content of a piece of JSON; NaN, Infinity and endless numbers are refused."""
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, parse_constant=_no_constant, parse_int=_whole, parse_float=_real)
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason
    except ValueError as reason:
        raise error(f"{where}: cannot be read: {_one_line(reason)}") from reason


@overload
def checked_as(
    shape: type[Shape], content: object, where: str, error: type[MixoptError] = RunError
) -> Shape: ...
@overload
def checked_as(
    shape: Any, content: object, where: str, error: type[MixoptError] = RunError
) -> Any: ...
def checked_as(shape: Any, content: object, where: str, error: type[MixoptError] = RunError) -> Any:
    """Return plain values as what `shape` says that they are."""
    from pydantic import ValidationError

    try:
        return _adapter(shape).validate_python(content)
    except ValidationError as reason:
        first = reason.errors(include_url=False)[0]
        raise error(f"{where}: {_field_fault(first)}") from reason
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason


def read_text(
    path: Path,
    *,
    error: type[MixoptError] = RunError,
    missing: Callable[[], Exception] | None = None,
) -> str:
    """Read a text in UTF-8.

    Args:
        path: A file; a pipe or a device is not read.
        error: What is raised.
        missing: Makes the error to raise where the file is not there.

    Raises:
        MixoptError: `error`; the file cannot be read, or is not UTF-8.
    """
    content = read_bytes(path, error=error, missing=missing)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{path}: byte {reason.start} is not UTF-8") from reason


def read_yaml(path: Path, *, error: type[MixoptError] = ConfigError) -> Any:
    """Read a YAML file with the safe loader, after its size was measured."""
    return parse_yaml(read_text(path, error=error), str(path), error=error)


def parse_yaml(text: str, where: str, *, error: type[MixoptError] = ConfigError) -> Any:
    """Return the content of a piece of YAML (`read_yaml`)."""
    check_yaml(text, where, error=error)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as reason:
        _no_yaml(where, reason, error)
    except (ValueError, TypeError, OverflowError) as reason:  # a date or number that cannot be
        raise error(f"{where}: not valid YAML: {_one_line(reason)}") from reason


def check_yaml(text: str, where: str, *, error: type[MixoptError] = ConfigError) -> None:
    """Check that YAML can be built at all: its size, depth, aliases and keys."""
    if len(text) > LARGEST_YAML:
        raise error(f"{where}: has {len(text)} characters; at most {LARGEST_YAML} are read")
    measure = _Measure(where, error)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            measure.take(event)
    except yaml.YAMLError as reason:
        _no_yaml(where, reason, error)
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason


def read_arrays(path: Path, *, error: type[MixoptError] = RunError) -> dict[str, Array]:
    """Read the arrays of an `.npz` file; objects, which would be pickles, are refused."""
    import numpy as np

    try:
        check_regular(path, error)
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.file_size > LARGEST_ARRAY:
                    raise error(f"{path}: {entry.filename}: {entry.file_size} bytes are too large")
        with np.load(path, allow_pickle=False) as file:
            return {str(name): file[name] for name in file.files}
    except FileNotFoundError as reason:
        raise error(f"{path}: not found") from reason
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as reason:
        raise error(f"{path}: cannot be read: {_one_line(reason)}") from reason
    except (NotImplementedError, RuntimeError, MemoryError, SyntaxError, TypeError) as reason:
        # A compression or encryption that is unknown, or a header that numpy cannot parse.
        raise error(f"{path}: cannot be read: {_one_line(reason)}") from reason


@dataclass
class _Open:
    """A mapping or a list of YAML that has begun."""

    mapping: bool
    anchor: str | None
    values: int = 1
    children: int = 0


class _Measure:
    """Counts the values of a YAML file by its events, each alias with all that it stands for."""

    def __init__(self, where: str, error: type[MixoptError]) -> None:
        self._where, self._error = where, error
        self._open: list[_Open] = []
        self._sizes: dict[str, int] = {}
        self._total = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._child(event, plain=False)
            self._open.append(_Open(mapping, event.anchor))
            if len(self._open) > DEEPEST:
                self._refuse(event, f"more than {DEEPEST} nested sections")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            ended = self._open.pop()
            if ended.anchor is not None:
                self._sizes[ended.anchor] = ended.values
            self._add(event, ended.values)
        elif isinstance(event, yaml.ScalarEvent):
            self._child(event, plain=True)
            if event.anchor is not None:
                self._sizes[event.anchor] = 1
            self._add(event, 1)
        elif isinstance(event, yaml.AliasEvent):
            self._child(event, plain=True)
            if any(section.anchor == event.anchor for section in self._open):
                self._refuse(event, f"'*{event.anchor}' is used inside the section that it names")
            self._add(event, self._sizes.get(str(event.anchor), 1))

    def _child(self, event: yaml.Event, *, plain: bool) -> None:
        if not self._open:
            return
        parent = self._open[-1]
        if parent.mapping and parent.children % 2 == 0 and not plain:
            self._refuse(event, "a key must be plain text")
        parent.children += 1

    def _add(self, event: yaml.Event, values: int) -> None:
        if self._open:
            self._open[-1].values += values
        self._total = max(self._total, self._open[0].values if self._open else values)
        if self._total > MOST_VALUES:
            self._refuse(event, f"more than {MOST_VALUES} values, aliases counted")

    def _refuse(self, event: yaml.Event, reason: str) -> NoReturn:
        line = event.start_mark.line + 1 if event.start_mark else 1
        raise self._error(f"{self._where}:{line}: not valid here: {reason}")


def _no_yaml(where: str, reason: yaml.YAMLError, error: type[MixoptError]) -> NoReturn:
    if isinstance(reason, yaml.MarkedYAMLError):
        line = reason.problem_mark.line + 1 if reason.problem_mark else 1
        raise error(f"{where}:{line}: not valid YAML: {reason.problem}") from reason
    raise error(f"{where}: not valid YAML: {_one_line(reason)}") from reason


def check_regular(path: Path, error: type[MixoptError] = RunError) -> None:
    """Check that a path is neither a pipe, which would block, nor a device."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise error(f"{path}: cannot be read: it is not a file")


def read_bytes(
    path: Path,
    *,
    largest: int = LARGEST_FILE,
    error: type[MixoptError] = RunError,
    missing: Callable[[], Exception] | None = None,
) -> bytes:
    """Read a file; a pipe or a device is refused.

    Args:
        path: The file.
        largest: The most bytes that are read.
        error: What is raised.
        missing: Makes the error to raise where the file is not there.

    Raises:
        MixoptError: `error`; it cannot be read, or is larger.
    """
    try:
        check_regular(path, error)
        size = path.stat().st_size
        if size > largest:
            raise error(f"{path}: cannot be read: {size} bytes are too large")
        return path.read_bytes()
    except FileNotFoundError as reason:
        raise (missing() if missing else error(f"{path}: not found")) from reason
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror or reason}") from reason
    except ValueError as reason:  # a path with a null character
        raise error(f"{shown_name(str(path))}: cannot be read: {reason}") from reason


@lru_cache(maxsize=64)
def _adapter(shape: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _field_fault(first: Any) -> str:
    parts = [str(part) for part in first["loc"]]
    field = ".".join(part if part.isprintable() else shown_name(part) for part in parts)
    place = f"{field}: " if field else ""
    if first["type"] == "missing":
        return f"{place}is missing"
    if first["type"] == "extra_forbidden":
        return f"{place}unknown field"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    value = first["input"]
    got = type(value).__name__ if isinstance(value, (dict, list)) else shown_name(value)
    return f"{place}{_one_line(message)}, got {got}"


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number here")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:300] or type(reason).__name__
