"""Interrupt the process that works in a folder, as Ctrl-C in its terminal would.

Who that is stands in the folder (mixopt.system.lease), which may be anybody's: a process is sent a
signal only if it is of this host and has the folder's lock open.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from mixopt.errors import RunError
from mixopt.system.files import is_in_use
from mixopt.system.lease import Owner, is_here, owner_of, seems_alive
from mixopt.system.processes import is_running

LOCK, LEASE = ".lock", ".lock.lease"
PATIENCE = 20.0  # seconds for an interrupted process to end
LOOK = 0.1


def worker_of(folder: Path) -> Owner | None:
    """Return who works in a folder now; None where nobody does, or that is not written."""
    owner = owner_of(folder / LEASE)
    if owner is None or not seems_alive(owner) or not is_in_use(folder):
        return None
    return owner


def is_worker(folder: Path) -> bool:
    """Tell whether this process works in a folder; False once another has taken it over."""
    owner = owner_of(folder / LEASE)
    return owner is None or (is_here(owner) and owner.pid == os.getpid())


def interrupt(folder: Path, patience: float = PATIENCE) -> Owner | None:
    """Interrupt the process that works in a folder, and wait until it has ended."""
    owner = worker_of(folder)
    if owner is None:
        if is_in_use(folder):
            raise RunError(
                f"{folder}: another process works here, but its owner is not recorded; stop "
                "it yourself"
            )
        return None
    if not is_here(owner):
        raise RunError(f"{folder}: is in use elsewhere: {owner}; interrupt it there")
    if not _holds(owner, folder):
        raise RunError(
            f"{folder}: {LEASE} names process {owner.pid}, which has not opened {LOCK}; it is left"
            " alone"
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        if _ended(owner, number, patience):
            return owner
    raise RunError(
        f"{folder}: process {owner.pid} is still running after it was interrupted and terminated"
    )


def _ended(owner: Owner, number: signal.Signals, patience: float) -> bool:
    """Send a signal; tell whether the process has ended in time."""
    try:
        os.kill(owner.pid, number)
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise RunError(
            f"process {owner.pid} is another user's; ask them to interrupt it"
        ) from error
    until = time.monotonic() + patience
    while is_running(owner.pid, owner.started):
        if time.monotonic() > until:
            return False
        time.sleep(LOOK)
    return True


def _holds(owner: Owner, folder: Path) -> bool:
    """Tell whether a process has the lock open; where the system does not say, it is believed."""
    files = Path(f"/proc/{owner.pid}/fd")
    if not Path("/proc/self/fd").is_dir():
        return True
    lock = (folder / LOCK).stat()
    with suppress(OSError):
        for file in files.iterdir():
            with suppress(OSError):
                found = file.stat()
                if (found.st_dev, found.st_ino) == (lock.st_dev, lock.st_ino):
                    return True
    return False
