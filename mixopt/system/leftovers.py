"""Name temporary files after their writer, and remove them once that process is dead.

The name is hidden, and carries a hash of the host's name and the number of the process: a process
that was killed in the middle of a write leaves a file that nobody takes for a result, and that the
next owner of the folder removes. Of a process on another host it cannot be told whether it lives:
what it left is removed when it has not changed for an hour, by the clock of the file system.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from mixopt.system.processes import host_name, is_running, process_space

SUFFIX = ".tmp"
OLD = 3600.0  # seconds
_LONGEST = 255  # bytes of a file's name on the usual file systems
_OWNED = re.compile(r"\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.tmp$")


def temporary_path(path: Path) -> Path:
    """Return a new hidden name beside `path`, for what will be renamed to it."""
    owner = f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
    stem = os.fsencode(path.name)[: _LONGEST - 1 - len(owner)].decode("utf-8", errors="ignore")
    return path.with_name(f".{stem}{owner}")


def remove_leftovers(folder: Path) -> None:
    """Remove, below a folder, what dead processes left half-written; links are not followed."""
    now: float | None = None
    for path in _temporaries(folder):
        found = _OWNED.search(path.name)
        if found and found[1] == _host():
            left = not is_running(int(found[2]))
        else:
            now = _now(folder) if now is None else now
            left = now - _changed(path) > OLD
        if left:
            _remove(path)


def is_leftover(name: str) -> bool:
    """Tell whether a file of this name is none that a user put there."""
    return _is_temporary(name) or name.startswith((".lock", ".tracking.lock"))


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(SUFFIX)


def _temporaries(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        found += [Path(parent, name) for name in (*folders, *files) if _is_temporary(name)]
        folders[:] = [name for name in folders if not _is_temporary(name)]
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _host() -> str:
    return hashlib.sha256(f"{host_name()} {process_space()}".encode()).hexdigest()[:8]


def _now(folder: Path) -> float:
    """Return the time by the clock of the file system; a file server has its own."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as stream:
        return os.fstat(stream.fileno()).st_mtime
    return 0.0


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return math.inf
