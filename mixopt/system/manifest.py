"""Seals and manifests: SHA-256 of written files, and their verification.

A manifest has size and hash of each file in a folder. A seal is for files that are read on their
own: the result of a trial, a proposal, the manifest itself. It is a hash of the values, not of the
bytes, so that reformatting does not change it. Tables are Parquet with the SHA-256 of their bytes;
a table without a seal is foreign. Seals detect damage and edits; they do not prove origin.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import ErrorType, MixoptError, RunError
from mixopt.system.files import (
    PlainDict,
    PlainMapping,
    checked_as,
    one_line,
    read_bytes,
    read_json,
    readable,
    write_bytes,
    write_json,
)
from mixopt.system.names import below

if TYPE_CHECKING:
    import polars as pl

SEAL = "sha256"
MEMORY = ".verified.json"
LARGE = 1_000_000  # bytes from which verified files are remembered
LARGEST_TABLE = 1 << 31  # bytes
_CHANGED = "has changed since it was written (its sha256 differs)"
_LINE = "# sha256: "
_MARK = b"mixopt:sha256:"  # before the seal in Parquet
_DIGITS = 64  # of a seal
_TAIL = 8  # bytes: length of the footer, and "PAR1"


def seal_of(content: PlainMapping) -> str:
    """Return the seal of JSON values, ignoring a seal among them."""
    values = {name: value for name, value in content.items() if name != SEAL}
    # Seal what a reader will see: JSON turns tuples into lists, and keys into text.
    read = json.loads(json.dumps(values, allow_nan=False))
    return _hash(json.dumps(read, sort_keys=True, separators=(",", ":")).encode())


def sealed(content: PlainMapping) -> PlainDict:
    """Return plain values with their seal."""
    return {**content, SEAL: seal_of(content)}


def write_sealed(path: Path, content: PlainMapping) -> None:
    """Write plain values with their seal as JSON, atomically."""
    write_json(path, sealed(content))


def read_sealed(path: Path, shape: Any = None, *, hint: str, error: ErrorType = RunError) -> Any:
    """Read a file that `write_sealed` wrote."""
    content = read_json(path, error=error)
    if not isinstance(content, dict):
        raise error(f"{path}: expected fields, got {type(content).__name__}; {hint}")
    check_seal(content, str(path), hint=hint, error=error)
    values = {name: value for name, value in content.items() if name != SEAL}
    if shape is None:
        return values
    return checked_as(shape, values, str(path), error)


def check_seal(
    content: PlainMapping, where: str, *, hint: str, error: ErrorType = RunError
) -> None:
    """Raise unless values match their seal."""
    if SEAL not in content:
        raise error(f"{where}: {SEAL}: is missing; {hint}")
    if not is_sealed(content):
        raise error(f"{where}: {_CHANGED}; {hint}")


def is_sealed(content: PlainMapping) -> bool:
    """Return whether values have a seal that matches."""
    try:
        return content.get(SEAL) == seal_of(content)
    except (ValueError, TypeError):  # values outside JSON, such as NaN or a date in YAML
        return False


def sealed_text(text: str, header: str) -> str:
    """Return text after a comment and a line with its seal."""
    return f"# {header}\n{_LINE}{_hash(text.encode())}\n{text}"


def check_sealed_text(path: Path, header: str, *, hint: str) -> None:
    """Check a file that `sealed_text` made."""
    head, _, rest = read_bytes(path).partition(f"\n{_LINE}".encode())
    seal, _, text = rest.partition(b"\n")
    if head != f"# {header}".encode() or seal != _hash(text).encode():
        raise RunError(f"{path}: has changed since it was written; {hint}")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of a file when it was written."""

    bytes: int
    sha256: str


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_record(path: Path) -> FileRecord:
    """Return the present record of a file."""
    with readable(path):
        return FileRecord(path.stat().st_size, file_hash(path))


def folder_records(
    folder: Path, outputs: Iterable[str], *, without: Collection[str] = ()
) -> dict[str, FileRecord]:
    """Return the present records of a folder's files, by relative path with `/`."""
    names = folder_files(folder, outputs, without=without)
    return {name: file_record(folder / name) for name in names}


def folder_files(
    folder: Path, outputs: Iterable[str], *, without: Collection[str] = ()
) -> list[str]:
    """Return the files of outputs in a folder, without hidden ones and those in `without`."""
    excluded = [folder / name for name in without]
    names = []
    for output in outputs:
        for path in visible_files(folder / output):
            if any(map(path.is_relative_to, excluded)):
                continue
            names.append(path.relative_to(folder).as_posix())
    return names


def visible_files(path: Path) -> list[Path]:
    """Return a file, or all visible files below a folder, sorted."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if _is_visible(file, path) and file.is_file())


def _is_visible(file: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)


class Verifier:
    """Verifies files of a folder against a manifest, reading each file once."""

    def __init__(self, folder: Path) -> None:
        """Read the files verified before; an unreadable record is ignored."""
        self._folder = folder
        self._changed = False
        self._seen: dict[str, list[int]] = {}
        with suppress(MixoptError):
            content = read_json(folder / MEMORY)
            if isinstance(content, dict):
                self._seen = {key: mark for key, mark in content.items() if _is_mark(mark)}

    def knows(self, name: str, record: FileRecord) -> bool:
        """Return whether a file is unchanged since it was verified."""
        try:
            mark = file_mark(below(self._folder, name).stat())
        except OSError:
            return False
        return self._seen.get(f"{name} {record.sha256}") == mark

    def fault(self, name: str, record: FileRecord, *, deep: bool = False) -> str | None:
        """Return what is wrong with a file; None if it matches its record."""
        path = below(self._folder, name)
        key = f"{name} {record.sha256}"
        try:
            status = path.stat()
            if status.st_size != record.bytes:
                return f"has {status.st_size} bytes, not {record.bytes}"
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
                return "is not a file"
            mark = file_mark(status)
            is_known = not deep and self._seen.get(key) == mark
            if not is_known and file_hash(path) != record.sha256:
                return _CHANGED
        except FileNotFoundError:
            return "is missing"
        except OSError as reason:
            return f"cannot be read: {reason.strerror or reason}"
        if not is_known:
            self._seen[key] = mark
            self._changed |= status.st_size >= LARGE
        return None

    def faults(self, records: Mapping[str, FileRecord], *, deep: bool = False) -> dict[str, str]:
        """Return faults by file, and remember verified files."""
        faults = {name: self.fault(name, record, deep=deep) for name, record in records.items()}
        self.remember()
        return {name: fault for name, fault in faults.items() if fault is not None}

    def remember(self) -> None:
        """Save the verified files, if possible."""
        if self._changed:
            large = {key: mark for key, mark in self._seen.items() if mark[:1] >= [LARGE]}
            with suppress(RunError):
                write_json(self._folder / MEMORY, large)
                self._changed = False


def _is_mark(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(number, int) for number in value)


def file_mark(status: os.stat_result) -> list[int]:
    """Return size, times and inode, which change when a file is written, moved or replaced."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def write_table(path: Path, table: pl.DataFrame, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table with its seal atomically; a full disk leaves the former table."""
    stream = io.BytesIO()
    table.write_parquet(stream, metadata=dict(metadata or {}) or None)
    write_bytes(path, _sealed(stream.getvalue()))


def read_table(path: Path, *, hint: str = "", error: ErrorType = RunError) -> pl.DataFrame:
    """Read a table; a sealed table must match its seal."""
    import polars as pl

    more = f"; {hint}" if hint else ""
    content = read_bytes(path, largest=LARGEST_TABLE, error=error, missing=f"not found{more}")
    try:
        if _is_whole(content) is False:
            raise error(f"{path}: {_CHANGED}{more}")
        return pl.read_parquet(content)
    except pl.exceptions.PanicException:  # does not derive from Exception
        raise error(f"{path}: cannot be read: it is damaged{more}") from None
    except (OSError, pl.exceptions.PolarsError, MemoryError, ValueError) as reason:
        raise error(f"{path}: cannot be read: {one_line(reason)}{more}") from reason


def _sealed(content: bytes) -> bytes:
    """Return Parquet with its seal before the footer."""
    footer = int.from_bytes(content[-_TAIL:-4], "little") + _TAIL
    seal = _MARK + hashlib.sha256(content).hexdigest().encode()
    return content[:-footer] + seal + content[-footer:]


def _is_whole(content: bytes) -> bool | None:
    """Return whether Parquet matches its seal; None without a seal."""
    place = content.rfind(_MARK)
    if place < 0:
        return None
    end = place + len(_MARK) + _DIGITS
    digest = hashlib.sha256(content[:place])
    digest.update(content[end:])
    return content[place + len(_MARK) : end] == digest.hexdigest().encode()
