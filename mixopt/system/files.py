"""Atomic writes: readers see the old or the new file, never a partial one.

Content is written to a temporary name in the same folder, synced to disk and renamed. The temporary
name is hidden and contains a hash of host and process, so that a partial file of a killed process
is never taken for a result, and the next owner of the folder removes it. Partial files of other
hosts are removed after an hour without changes, by the file system's clock.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.system.processes import host_name, is_running, process_space

_SUFFIX = ".tmp"
_MAX_AGE = 3600.0  # seconds
_MAX_NAME = 255  # bytes of a file name on usual file systems
_OWNED = re.compile(r"\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.tmp$")


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
        temporaries += [Path(parent, name) for name in (*folders, *files) if _is_temporary(name)]
        folders[:] = [name for name in folders if not _is_temporary(name)]
    for path in temporaries:
        owned = _OWNED.search(path.name)
        with suppress(OSError):
            if owned and owned[1] == _host():
                is_left = not is_running(int(owned[2]))
            else:
                is_left = now - path.lstat().st_mtime > _MAX_AGE
            if is_left and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif is_left:
                path.unlink()


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(_SUFFIX)


def _host() -> str:
    return hashlib.sha256(f"{host_name()} {process_space()}".encode()).hexdigest()[:8]
