"""Read untrusted JSON, YAML and arrays, validated against an expected shape.

Every fault of a file (truncation, wrong types, impossible numbers, deep nesting) becomes one line
that names file and field. Shapes are pydantic types.
"""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import yaml

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.system.names import shown_value

if TYPE_CHECKING:
    from mixopt.system.state_fields import Array

FieldPlace = tuple[str | int, ...]
Shape = TypeVar("Shape")

MAX_YAML = 1_000_000  # characters
MAX_DEPTH = 64  # of nesting
MAX_VALUES = 100_000  # of a YAML file, with aliases expanded
MAX_DIGITS = 40  # of an integer: states of random generators have 128 bits
MAX_ARRAY = 1 << 31  # bytes
MAX_FILE = 1 << 28  # bytes; sparse files of terabytes take no disk space


def read_bytes(
    path: Path,
    *,
    largest: int = MAX_FILE,
    error: type[MixoptError] = RunError,
    missing: str = "not found",
) -> bytes:
    """Read a regular file up to a maximum size; pipes and devices are refused."""
    try:
        with readable(path, error, missing):
            status = _checked_status(path, error)
            if status.st_size > largest:
                raise error(f"{path}: cannot be read: {status.st_size} bytes are too large")
            return path.read_bytes()
    except ValueError as reason:  # a path with a null character
        raise error(f"{shown_value(str(path))}: cannot be read: {reason}") from reason


@contextmanager
def readable(
    where: object, error: type[MixoptError] = RunError, missing: str | None = None
) -> Iterator[None]:
    """Turn an OSError into one line that names the file and the reason."""
    try:
        yield
    except OSError as reason:
        is_missing = missing is not None and isinstance(reason, FileNotFoundError)
        fault = missing if is_missing else f"cannot be read: {reason.strerror or reason}"
        raise error(f"{reason.filename or where}: {fault}") from reason


def read_text(
    path: Path, *, error: type[MixoptError] = RunError, missing: str = "not found"
) -> str:
    """Read a UTF-8 text, as `read_bytes`."""
    content = read_bytes(path, error=error, missing=missing)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{path}: byte {reason.start} is not UTF-8") from reason


def read_json(
    path: Path,
    shape: Any = None,
    *,
    error: type[MixoptError] = RunError,
    missing: str = "not found",
) -> Any:
    """Read a JSON file."""
    content = parse_json(read_bytes(path, error=error, missing=missing), str(path), error=error)
    return content if shape is None else checked_as(shape, content, str(path), error)


def parse_json(text: str | bytes, where: str, *, error: type[MixoptError] = RunError) -> Any:
    """Parse JSON; NaN, Infinity and very long numbers are refused."""
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, parse_constant=_constant, parse_int=_whole, parse_float=_real)
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason
    except ValueError as reason:
        raise error(f"{where}: cannot be read: {one_line(reason)}") from reason


@overload
def checked_as(
    shape: type[Shape], content: object, where: str, error: type[MixoptError] = RunError
) -> Shape: ...
@overload
def checked_as(
    shape: Any, content: object, where: str, error: type[MixoptError] = RunError
) -> Any: ...
def checked_as(shape: Any, content: object, where: str, error: type[MixoptError] = RunError) -> Any:
    """Validate plain values as a type."""
    from pydantic import ValidationError

    try:
        return _adapter(shape).validate_python(content)
    except ValidationError as reason:
        first = reason.errors(include_url=False)[0]
        raise error(f"{where}: {_field_fault(first)}") from reason
    except MixoptError as reason:  # raised by a validator
        raise error(f"{where}: {reason}") from reason
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason


def read_yaml(path: Path, *, error: type[MixoptError] = ConfigError) -> Any:
    """Read a YAML file with the safe loader, after checking its size."""
    return parse_yaml(read_text(path, error=error), str(path), error=error)


def parse_yaml(text: str, where: str, *, error: type[MixoptError] = ConfigError) -> Any:
    """Parse YAML (`read_yaml`)."""
    return parse_placed_yaml(text, where, error=error)[0]


def parse_placed_yaml(
    text: str, where: str, *, error: type[MixoptError] = ConfigError
) -> tuple[Any, dict[FieldPlace, int]]:
    """Parse YAML; return its content and the line of each field; raise for a repeated key."""
    if len(text) > MAX_YAML:
        raise error(f"{where}: has {len(text)} characters; at most {MAX_YAML} are read")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        places = dict(_lines(node, (), where, error))
        return loader.construct_document(node), places
    except yaml.error.MarkedYAMLError as reason:
        line = reason.problem_mark.line + 1 if reason.problem_mark else 1
        raise error(f"{where}:{line}: not valid YAML: {reason.problem}") from reason
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as reason:
        raise error(f"{where}: not valid YAML: {one_line(reason)}") from reason


def read_arrays(path: Path, *, error: type[MixoptError] = RunError) -> dict[str, Array]:
    """Read the arrays of an `.npz` file; object arrays, which are pickles, are refused."""
    import numpy as np

    try:
        _checked_status(path, error)
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.file_size > MAX_ARRAY:
                    raise error(f"{path}: {entry.filename}: {entry.file_size} bytes are too large")
        with np.load(path, allow_pickle=False) as file:
            return {str(name): file[name] for name in file.files}
    except FileNotFoundError as reason:
        raise error(f"{path}: not found") from reason
    except MixoptError:
        raise
    except Exception as reason:  # numpy and zipfile raise any type on a damaged file
        raise error(f"{path}: cannot be read: {one_line(reason)}") from reason


def dotted(location: FieldPlace) -> str:
    """Return a location as `stages.2.tokens`."""
    parts = [str(part) for part in location]
    return ".".join(part if part.isprintable() else shown_value(part) for part in parts)


class _Loader(yaml.SafeLoader):
    """The safe loader with a limit on values, with aliases expanded."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        before, event = self._values, self.peek_event()  # type: ignore[no-untyped-call]
        is_alias = isinstance(event, yaml.AliasEvent)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} nested sections", event)
        node = super().compose_node(parent, index)
        assert node is not None, "there is an event"
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            self._refuse(f"'*{event.anchor}' is used inside the section that it names", event)
        self._values += self._sizes[id(node)] if is_alias else 1
        self._sizes.setdefault(id(node), self._values - before)
        if self._values > MAX_VALUES:
            self._refuse(f"more than {MAX_VALUES} values, aliases counted", event)
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                self._refuse("a key must be plain text", key)
        return node

    def _refuse(self, fault: str, at: Any) -> NoReturn:
        raise yaml.error.MarkedYAMLError(problem=fault, problem_mark=at.start_mark)


def _lines(
    node: yaml.Node, location: FieldPlace, path: str, error: type[MixoptError]
) -> Iterator[tuple[FieldPlace, int]]:
    keys: set[str] = set()
    is_mapping = isinstance(node, yaml.MappingNode)
    if not is_mapping and not isinstance(node, yaml.SequenceNode):
        return
    for place, entry in enumerate(node.value):
        key, value = entry if is_mapping else (entry, entry)
        inner = (*location, key.value if is_mapping else place)
        line = key.start_mark.line + 1
        if is_mapping and key.value in keys:
            raise error(f"{path}:{line}: {dotted(inner)}: given twice")
        keys.add(str(inner[-1]))
        yield inner, line
        yield from _lines(value, inner, path, error)


def _checked_status(path: Path, error: type[MixoptError]) -> Any:
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise error(f"{path}: cannot be read: it is not a file")
    return status


@lru_cache(maxsize=64)
def _adapter(shape: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _field_fault(first: Any) -> str:
    field = dotted(first["loc"])
    place = f"{field}: " if field else ""
    if first["type"] == "missing":
        return f"{place}is missing"
    if first["type"] == "string_too_short" and not first["input"]:
        return f"{place}is empty"
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"{place}unknown field"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return f"{place}{one_line(message)}, got {shown_value(first['input'])}"


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number here")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def one_line(reason: object) -> str:
    """Return the text of an error as one short line, or else its type."""
    return " ".join(str(reason).split())[:300] or type(reason).__name__
