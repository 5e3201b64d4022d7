"""Read untrusted JSON, YAML and arrays, and write files atomically.

Every fault of a file (truncation, wrong types, impossible numbers, deep nesting) becomes one line
that names file and field. Shapes are pydantic types.

Readers see the old or the new content of a file, never a part of it: content is written to a
temporary name in the same folder, synced to disk and renamed. The temporary name is hidden and
contains a hash of host and process, so that a partial file of a killed process is never taken for a
result, and the next owner of the folder removes it. Partial files of other hosts are removed after
an hour without changes, by the file system's clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from mixopt.errors import ConfigError, ErrorType, MixoptError, RunError
from mixopt.system.names import shown_value
from mixopt.system.processes import host_name, is_running, process_space

if TYPE_CHECKING:
    from numpy.typing import NDArray

FieldPlace = tuple[str | int, ...]
PlainDict = dict[str, Any]
PlainMapping = Mapping[str, Any]
Shape = TypeVar("Shape")

MAX_YAML = 1_000_000  # characters
MAX_DEPTH = 64  # of nesting
MAX_VALUES = 100_000  # of a YAML file, with aliases expanded
MAX_DIGITS = 40  # of an integer: states of random generators have 128 bits
MAX_ARRAY = 1 << 31  # bytes
MAX_FILE = 1 << 28  # bytes; sparse files of terabytes take no disk space
_SUFFIX = ".tmp"
_MAX_AGE = 3600.0  # seconds
_MAX_NAME = 255  # bytes of a file name on usual file systems
_OWNED = re.compile(r"\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.tmp$")


def read_bytes(
    path: Path, *, largest: int = MAX_FILE, error: ErrorType = RunError, missing: str = "not found"
) -> bytes:
    """Read a regular file up to a maximum size; pipes and devices are refused."""
    with readable(path, error, missing):
        status = _check_file(path, error)
        if status.st_size > largest:
            raise error(f"{path}: cannot be read: {status.st_size} bytes are too large")
        return path.read_bytes()


@contextmanager
def readable(
    where: object, error: ErrorType = RunError, missing: str | None = None
) -> Iterator[None]:
    """Turn an OSError into one line that names the file and the reason."""
    try:
        yield
    except OSError as reason:
        fault = f"cannot be read: {reason.strerror or reason}"
        if missing is not None and isinstance(reason, FileNotFoundError):
            fault = missing
        raise error(f"{reason.filename or where}: {fault}") from reason
    except ValueError as reason:  # a path with a null character
        raise error(f"{shown_value(str(where))}: cannot be read: {reason}") from reason


def read_text(path: Path, *, error: ErrorType = RunError, missing: str = "not found") -> str:
    """Read a UTF-8 text, as `read_bytes`."""
    content = read_bytes(path, error=error, missing=missing)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{path}: byte {reason.start} is not UTF-8") from reason


def read_json(
    path: Path, shape: Any = None, *, error: ErrorType = RunError, missing: str = "not found"
) -> Any:
    """Read a JSON file."""
    content = parse_json(read_bytes(path, error=error, missing=missing), str(path), error=error)
    if shape is None:
        return content
    return checked_as(shape, content, str(path), error)


def parse_json(text: str | bytes, where: str, *, error: ErrorType = RunError) -> Any:
    """Parse JSON; NaN, Infinity and very long numbers are refused."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, parse_constant=_constant, parse_int=_whole, parse_float=_real)
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason
    except ValueError as reason:
        raise error(f"{where}: cannot be read: {one_line(reason)}") from reason


@overload
def checked_as(
    shape: type[Shape], content: object, where: str, error: ErrorType = RunError
) -> Shape: ...
@overload
def checked_as(shape: Any, content: object, where: str, error: ErrorType = RunError) -> Any: ...
def checked_as(shape: Any, content: object, where: str, error: ErrorType = RunError) -> Any:
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


def read_yaml(path: Path, *, error: ErrorType = ConfigError) -> Any:
    """Read a YAML file with the safe loader, after checking its size."""
    return parse_yaml(read_text(path, error=error), str(path), error=error)[0]


def parse_yaml(
    text: str, where: str, *, error: ErrorType = ConfigError
) -> tuple[Any, dict[FieldPlace, int]]:
    """Parse YAML; return its content and the line of each field; raise for a repeated key."""
    import yaml

    if len(text) > MAX_YAML:
        raise error(f"{where}: has {len(text)} characters; at most {MAX_YAML} are read")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        places = dict(islice(_lines(node, (), where, error), MAX_VALUES))
        if len(places) == MAX_VALUES:
            raise error(f"{where}: more than {MAX_VALUES} values, aliases counted")
        return loader.construct_document(node), places
    except yaml.error.MarkedYAMLError as reason:
        line = reason.problem_mark.line + 1 if reason.problem_mark else 1
        raise error(f"{where}:{line}: not valid YAML: {reason.problem}") from reason
    except RecursionError as reason:
        raise error(f"{where}: is nested too deeply") from reason
    except MixoptError:
        raise
    except Exception as reason:  # a value that is not of its tag may raise any type
        raise error(f"{where}: not valid YAML: {one_line(reason)}") from reason


def read_arrays(path: Path, *, error: ErrorType = RunError) -> dict[str, NDArray[Any]]:
    """Read the arrays of an `.npz` file; object arrays, which are pickles, are refused."""
    import numpy as np

    try:
        _check_file(path, error)
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.file_size > MAX_ARRAY:
                    raise error(f"{path}: {entry.filename}: {entry.file_size} bytes are too large")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError as reason:
        raise error(f"{path}: not found") from reason
    except MixoptError:
        raise
    except Exception as reason:  # numpy and zipfile raise any type on a damaged file
        raise error(f"{path}: cannot be read: {one_line(reason)}") from reason


def dotted(location: FieldPlace | str) -> str:
    """Return a location as `stages.2.tokens`."""
    if isinstance(location, str):
        return _printable(location)
    return ".".join(_printable(str(part)) for part in location)


def _printable(part: str) -> str:
    return part if part.isprintable() else shown_value(part)


def _lines(
    node: Any, location: FieldPlace, path: str, error: ErrorType
) -> Iterator[tuple[FieldPlace, int]]:
    """Yield the place of each field and its line, with aliases expanded."""
    keys: set[str] = set()
    is_mapping = node.id == "mapping"
    if node.id == "scalar":
        if node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
            line = node.start_mark.line + 1
            raise error(f"{path}:{line}: not valid YAML: a number of {len(node.value)} digits")
        return
    for index, entry in enumerate(node.value):
        parts = entry if is_mapping else (entry,)  # a key and its value, or an item
        key = parts[0]
        line = key.start_mark.line + 1
        if is_mapping and key.id != "scalar":
            raise error(f"{path}:{line}: not valid YAML: a key must be plain text")
        place = key.value if is_mapping else index
        inner = (*location, place)
        if len(inner) > MAX_DEPTH:
            raise error(f"{path}:{line}: more than {MAX_DEPTH} nested sections")
        if is_mapping and key.value in keys:
            raise error(f"{path}:{line}: {dotted(inner)}: given twice")
        keys.add(str(place))
        yield inner, line
        for part in parts:
            yield from _lines(part, inner, path, error)


def _check_file(path: Path, error: ErrorType) -> os.stat_result:
    """Return the status of a file; reading a pipe or a device might never end."""
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


def one_line(reason: object, length: int | None = 300) -> str:
    """Return the text of an error as one short line; its type if the text alone says little."""
    text = " ".join(str(reason).split())
    kind = type(reason).__name__
    if isinstance(reason, KeyError):
        return f"{kind}: {text}"[:length]
    return text[:length] or kind


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` when the block ends."""
    if not path.name:
        raise RunError(f"{str(path)!r}: cannot be written: it is not a file name")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise RunError(f"{path}: cannot be written: it is a device or a pipe, not a file")
    temporary = temporary_path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with writing(path):
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the file and the reason."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    except MemoryError as error:
        raise RunError(f"{path}: cannot be written: out of memory") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path` atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path` atomically; NaN is not allowed."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def temporary_path(path: Path) -> Path:
    """Return a new hidden name beside `path`, to be renamed to it."""
    owner = f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
    stem = os.fsencode(path.name)[: _MAX_NAME - 1 - len(owner)].decode("utf-8", errors="ignore")
    return path.with_name(f".{stem}{owner}")


def is_leftover(name: str) -> bool:
    """Return whether a name is one of our temporary names."""
    return _is_temporary(name) or name.startswith(".lock")


def remove_leftovers(folder: Path) -> None:
    """Remove partial files of dead processes below a folder, without following links."""
    now = folder.stat().st_mtime  # the file system's clock, from the lock
    temporaries: list[Path] = []
    for parent, folders, files in os.walk(folder):
        names = folders + files
        temporaries += [Path(parent, name) for name in names if _is_temporary(name)]
        folders[:] = [name for name in folders if not _is_temporary(name)]
    for path in temporaries:
        with suppress(OSError):
            if not _is_abandoned(path, now):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _is_abandoned(temporary: Path, now: float) -> bool:
    """Return whether the process that wrote a temporary path has died, as far as is known."""
    owner = _OWNED.search(temporary.name)
    if owner and owner[1] == _host():
        return not is_running(int(owner[2]))
    return now - temporary.lstat().st_mtime > _MAX_AGE


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(_SUFFIX)


def _host() -> str:
    return hashlib.sha256(f"{host_name()} {process_space()}".encode()).hexdigest()[:8]
