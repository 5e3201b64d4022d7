"""Write files so that a reader sees the old one or the new one, never half of one.

The content goes to a temporary name in the same folder, is synced to disk and renamed.
A full disk or a folder that cannot be written is a `RunError` that names the file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mixopt.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of `path` when the block ends.

    Raises:
        RunError: The folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def only_one(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; a killed one leaves no trace.

    Where the system has no file locks, nothing is kept out.

    Args:
        folder: The folder, made if it is not there.
        name: The lock's file; those who take locks of other names are not kept out.

    Raises:
        RunError: Another process is at work there, or the folder cannot be written.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    with stream:
        try:
            _lock(stream.fileno())
        except BlockingIOError as error:
            raise RunError(
                f"{folder}: another mixopt is at work here; wait until it ends"
            ) from error
        yield


def is_in_use(folder: Path) -> bool:
    """Tell whether a process is in `only_one` with a folder."""
    path = folder / ".lock"
    if not path.exists():
        return False
    with path.open("rb") as stream:
        try:
            _lock(stream.fileno())
        except BlockingIOError:
            return True
    return False


def _lock(descriptor: int) -> None:
    """Lock a file; raise BlockingIOError where another process has, and nothing else."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a network file system without locks
        return


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` at once."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path` at once."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path` at once; NaN is not allowed."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
