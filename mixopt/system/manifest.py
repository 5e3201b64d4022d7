"""Seals and manifests: the SHA-256 of what was written, and whether it still is that.

A manifest holds size and hash of each file of a folder. A seal is for files that are read on their
own: the result of a trial, a proposal, the manifest itself. It is taken of the values, not of the
bytes: a file that is reformatted reads the same. Both find damage and edits; they prove no origin.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError, RunError
from mixopt.system.checked_reading import checked_as, read_bytes, read_json
from mixopt.system.files import write_json
from mixopt.system.names import below

SEAL = "sha256"
_LINE = "# sha256: "


def seal_of(content: Mapping[str, Any]) -> str:
    """Return the seal of plain values as JSON has them; a seal among them does not count."""
    values = {name: value for name, value in content.items() if name != SEAL}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _hash(text.encode())


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with their seal."""
    values = {name: value for name, value in content.items() if name != SEAL}
    # A seal is of what a reader will see: JSON turns tuples to lists, and keys to text.
    return {**values, SEAL: seal_of(json.loads(json.dumps(values, allow_nan=False)))}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values and their seal as JSON, at once."""
    write_json(path, sealed(content))


def read_sealed(
    path: Path, shape: Any = None, *, mend: str, error: type[MixoptError] = RunError
) -> Any:
    """Read what `write_sealed` wrote."""
    content = read_json(path, error=error)
    if not isinstance(content, dict):
        raise error(f"{path}: expected fields, got {type(content).__name__}; {mend}")
    check_seal(content, str(path), mend=mend, error=error)
    values = {name: value for name, value in content.items() if name != SEAL}
    return values if shape is None else checked_as(shape, values, str(path), error)


def check_seal(
    content: Mapping[str, Any], where: str, *, mend: str, error: type[MixoptError] = RunError
) -> None:
    """Check that values are those that were sealed."""
    if SEAL not in content:
        raise error(f"{where}: {SEAL}: is missing; {mend}")
    if not is_sealed(content):
        raise error(f"{where}: has changed since it was written (its sha256 differs); {mend}")


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Tell whether values have a seal, and are those that were sealed."""
    try:
        return content.get(SEAL) == seal_of(content)
    except (ValueError, TypeError):  # what JSON has not, such as NaN or a date in YAML
        return False


def sealed_text(text: str, header: str) -> str:
    """Return text below a comment and a line with its seal."""
    return f"# {header}\n{_LINE}{_hash(text.encode())}\n{text}"


def check_sealed_text(path: Path, header: str, *, mend: str) -> None:
    """Check that a file is what `sealed_text` made."""
    head, _, rest = read_bytes(path).partition(f"\n{_LINE}".encode())
    seal, _, text = rest.partition(b"\n")
    if head != f"# {header}".encode() or seal != _hash(text).encode():
        raise RunError(f"{path}: has changed since it was written; {mend}")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


MEMORY = ".verified.json"
LARGE = 1_000_000  # bytes from which a file is remembered
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """What a file was when it was written."""

    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"bytes": self.bytes, "sha256": self.sha256}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def file_record(path: Path) -> FileRecord:
    """Return what a file is now."""
    try:
        return FileRecord(path.stat().st_size, file_hash(path))
    except OSError as reason:
        raise RunError(f"{path}: cannot be read: {reason.strerror or reason}") from reason


def folder_records(
    folder: Path, outputs: Iterable[str], *, without: Collection[str] = ()
) -> dict[str, FileRecord]:
    """Return what the files of a folder are now, by their path in it with `/`."""
    apart = [folder / name for name in without]
    return {
        path.relative_to(folder).as_posix(): file_record(path)
        for output in outputs
        for path in visible_files(folder / output)
        if not any(path.is_relative_to(one) for one in apart)
    }


def visible_files(path: Path) -> list[Path]:
    """Return a file, or all files below a folder, hidden ones left out, in a fixed order."""
    if path.is_file():
        return [path]
    return sorted(
        found
        for found in path.rglob("*")
        if not any(part.startswith(".") for part in found.relative_to(path).parts)
        and found.is_file()
    )


class Verifier:
    """Tells whether the files of a folder are what a manifest says, each read once."""

    def __init__(self, folder: Path, *, elsewhere: Path | None = None) -> None:
        """Read what was verified before; a memory that cannot be read counts as none."""
        self._folder = folder
        self._elsewhere = elsewhere
        self._changed = False
        self._seen = _remembered(folder)
        if elsewhere is not None:
            self._seen |= _remembered(elsewhere)

    def knows(self, name: str, record: FileRecord, path: Path) -> bool:
        """Tell whether a file need not be read, since it is what was verified before."""
        try:
            return self._seen.get(f"{name} {record.sha256}") == file_mark(path.stat())
        except OSError:
            return False

    def fault(
        self, name: str, record: FileRecord, *, deep: bool = False, path: Path | None = None
    ) -> str | None:
        """Return what is wrong with a file; None where it is what its record says."""
        path = path or below(self._folder, name)
        try:
            return self._difference(path, f"{name} {record.sha256}", record, deep=deep)
        except FileNotFoundError:
            return "is missing"
        except OSError as reason:
            return f"cannot be read: {reason.strerror or reason}"

    def _difference(self, path: Path, key: str, record: FileRecord, *, deep: bool) -> str | None:
        status = path.stat()
        if status.st_size != record.bytes:
            return f"has {status.st_size} bytes, not {record.bytes}"
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            return "is not a file"
        mark = file_mark(status)
        if not deep and self._seen.get(key) == mark:
            return None
        if file_hash(path) != record.sha256:
            return "has changed since it was written (its sha256 differs)"
        self._seen[key] = mark
        self._changed |= status.st_size >= LARGE
        return None

    def faults(self, records: Mapping[str, FileRecord], *, deep: bool = False) -> dict[str, str]:
        """Return what is wrong, by file; and remember what is right."""
        found = {name: self.fault(name, record, deep=deep) for name, record in records.items()}
        self.remember()
        return {name: fault for name, fault in found.items() if fault is not None}

    def remember(self) -> None:
        """Keep what was verified; where nothing can be written it is verified again next time."""
        if self._changed:
            kept = {key: mark for key, mark in self._seen.items() if mark[0] >= LARGE}
            for folder in (self._folder, self._elsewhere):
                if folder is not None and _is_kept(kept, folder):
                    self._changed = False
                    return


def file_mark(status: os.stat_result) -> list[int]:
    """Return what changes when a file is written, moved or replaced: its size, times and number."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _remembered(folder: Path) -> dict[str, list[int]]:
    try:
        content = read_json(folder / MEMORY) if (folder / MEMORY).exists() else {}
    except MixoptError:
        return {}
    marks = content.items() if isinstance(content, dict) else ()
    return {key: mark for key, mark in marks if _is_mark(mark)}


def _is_kept(marks: dict[str, list[int]], folder: Path) -> bool:
    try:
        write_json(folder / MEMORY, marks)
    except RunError:
        return False
    return True


def _is_mark(value: object) -> bool:
    numbers = value if isinstance(value, list) else []
    return len(numbers) == 4 and all(isinstance(number, int) for number in numbers)
