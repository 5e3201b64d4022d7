"""Write files so that a reader sees the old one or the new one, never half of one.

The content goes to a temporary name in the same folder, is synced to disk and renamed.
A full disk or a folder that cannot be written is a `RunError` that names the file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.system.lease import SAFE, in_use, is_here, leased, owner_of, seems_alive
from mixopt.system.leftovers import remove_leftovers, temporary_path

_WAIT = 0.1  # seconds between two looks at a lock that another process has


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the place of `path` when the block ends."""
    if not path.name:
        raise RunError(f"{str(path)!r}: cannot be written: it is not a file name")
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    except MemoryError as error:
        raise RunError(f"{path}: cannot be written: out of memory") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def only_one(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; a killed one leaves no trace."""
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | SAFE, 0o644)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "rb"):
        locked = _lock_patiently(descriptor)
        if locked is None:
            raise in_use(folder, owner_of(_lease(path)))
        with leased(_lease(path), folder, locked=locked):
            if name == ".lock":
                remove_leftovers(folder)
            yield


@contextmanager
def waiting_for(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Keep other processes out of a folder as `only_one` does, after waiting until they are out."""
    with ExitStack() as held:
        refused = 0
        while True:
            try:
                held.enter_context(only_one(folder, name))
                break
            except RunError:
                refused = 0 if is_in_use(folder, name) else refused + 1
                if refused > 1:  # it may have ended between the two looks
                    raise
                time.sleep(_WAIT)
        yield


def is_in_use(folder: Path, name: str = ".lock") -> bool:
    """Tell whether a process is in `only_one` with a folder."""
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | SAFE)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb"):
        locked = _lock(descriptor, shared=True)
    owner = owner_of(_lease(path))
    if locked is None or owner is None:
        return locked is None
    return seems_alive(owner) and not (locked and is_here(owner))


def _lease(lock: Path) -> Path:
    return lock.with_name(f".{lock.name.lstrip('.')}.lease")


def _lock_patiently(descriptor: int) -> bool | None:
    """Lock a file; wait a moment for one who only looks whether it is locked."""
    for _ in range(5):
        locked = _lock(descriptor)
        if locked is not None:
            return locked
        time.sleep(0.05)
    return None


def _lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock a file; return None where another process has, False where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:  # a network file system without locks
        return False
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` at once."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_new(path: Path, content: bytes) -> bool:
    """Write a file that is not there yet; of several who try at once, on any host, one does."""
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        return _linked(temporary, path) or _is_mine(temporary)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _linked(temporary: Path, path: Path) -> bool:
    """Give a file a second name, unless there is one of that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(temporary.read_bytes())
    return True


def _is_mine(temporary: Path) -> bool:
    """Tell whether a link was made whose answer was lost, and which was then tried once more."""
    return temporary.stat().st_nlink > 1


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path` at once."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path` at once; NaN is not allowed."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
