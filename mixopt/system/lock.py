"""Let one process at a time work in a folder: filelock's soft lease, on any file system.

The owner makes the file `.lock` and touches it every few seconds. An owner on the same host is gone
as soon as its process is; one elsewhere, once its file has stood still for STALE seconds by the
clock of whoever comes next. An owner that was superseded stops with one line.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from mixopt.errors import RunError
from mixopt.system.files import remove_leftovers, writing
from mixopt.system.processes import host_name, is_running, start_of

Made = TypeVar("Made")
LOCK = ".lock"
BEAT = 2.0  # seconds between two renewals
STALE = 30.0  # seconds without one after which an owner on another host is gone
TORN = 2.5  # seconds after which a lock without a record is that of a process that was killed
PATIENCE = 20.0  # seconds for an interrupted process to end


class Owner(NamedTuple):
    """A process that works in a folder."""

    host: str
    pid: int
    seen: float
    is_here: bool

    def __str__(self) -> str:
        """Say who it is, in a line."""
        ago = time.time() - self.seen
        when = f"last seen {ago:.0f} s ago" if 0 <= ago < 1e6 else "its clock differs from ours"
        return f"host {self.host}, process {self.pid}, {when}"


def owner_of(folder: Path) -> Owner | None:
    """Return who works in a folder; None where nobody does."""
    lock = folder / LOCK
    record = _lease(lock).owner
    mark = _mark(lock)
    if record is None or mark is None:
        return None
    seen = mark[1] / 1e9
    is_here = record.hostname == _this_host()
    is_alive = _has_open(record.pid, lock) if is_here else time.time() - seen < STALE
    host = "".join(c if c.isprintable() else "?" for c in record.hostname.partition("?")[0])
    return Owner(host[:253], record.pid, seen, is_here) if is_alive else None


def is_in_use(folder: Path) -> bool:
    """Tell whether a process is in `only_one` with a folder."""
    return owner_of(folder) is not None


def is_worker(folder: Path) -> bool:
    """Tell whether this process works in a folder; False once another has taken it over."""
    owner = owner_of(folder)
    return owner is None or (owner.is_here and owner.pid == os.getpid())


@contextmanager
def only_one(folder: Path, *, is_patient: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs; a killed one leaves no trace.

    Of an owner that is at work the second raises RunError; a patient one waits for its end.
    """
    in_main = threading.current_thread() is threading.main_thread()
    lease = _lease(folder / LOCK, lost=_interrupt_main if in_main else None)
    _acquire(lease, folder, is_patient=is_patient)
    try:
        remove_leftovers(folder)
        yield
    except KeyboardInterrupt as reason:
        if lease.compromise is not None:
            raise _in_use(folder) from reason
        raise
    finally:
        lease.release()
    if lease.compromise is not None:
        raise _in_use(folder)


def made_once(folder: Path, find: Callable[[], Made | None], make: Callable[[], Made]) -> Made:
    """Return what is in a folder, or make it; of several processes one does, and others wait."""
    there = find()
    if there is not None:
        return there
    with only_one(folder, is_patient=True):
        there = find()
        return make() if there is None else there


def interrupt(folder: Path) -> Owner | None:
    """Interrupt the process that works in a folder, as Ctrl-C would, and wait until it has ended.

    The lock may be anybody's: only a process of this host that has it open is sent a signal.
    """
    owner = owner_of(folder)
    if owner is None:
        return None
    if not owner.is_here:
        raise RunError(f"{folder}: is in use elsewhere: {owner}; interrupt it there")
    started = start_of(owner.pid) or ""
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            os.kill(owner.pid, number)
        except ProcessLookupError:
            return owner
        except PermissionError as error:
            raise RunError(
                f"process {owner.pid} is another user's; ask them to interrupt it"
            ) from error
        until = time.monotonic() + PATIENCE
        while is_running(owner.pid, started) and time.monotonic() < until:
            time.sleep(0.1)
        if not is_running(owner.pid, started):
            return owner
    raise RunError(
        f"{folder}: process {owner.pid} is still running after it was interrupted and terminated"
    )


def _lease(lock: Path, lost: Callable[[Any], None] | None = None) -> Any:
    from filelock import SoftFileLease

    return SoftFileLease(lock, lease_duration=STALE, heartbeat_interval=BEAT, on_compromise=lost)


def _acquire(lease: Any, folder: Path, *, is_patient: bool) -> None:
    """Take a folder; wait for an owner that is at work, or raise, which takes some seconds."""
    from filelock import LeaseSettingsMismatch, Timeout

    before, begun = None, time.monotonic()
    while True:
        with writing(folder / LOCK):
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout, LeaseSettingsMismatch):
                lease.acquire(timeout=0)
                return
        passed, has_record = time.monotonic() - begun, lease.owner is not None
        owner, now = owner_of(folder), _mark(folder / LOCK)
        has_moved = has_record and before not in (None, now)
        is_here = owner is not None and owner.is_here
        if not is_patient and (is_here or has_moved or passed > STALE + 2 * BEAT):
            raise _in_use(folder)
        if not has_record and passed > TORN:
            lease.force_break()
        before = now
        time.sleep(BEAT / 4)


def _mark(lock: Path) -> tuple[int, int] | None:
    try:
        status = lock.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _in_use(folder: Path) -> RunError:
    """Return the error of who comes second to a folder."""
    owner = owner_of(folder)
    who = f": {owner}" if owner else ""
    return RunError(f"{folder}: another mixopt process is running here{who}; wait until it ends")


def _interrupt_main(_: object) -> None:
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # which ends a sleep, or a wait for a process


def _has_open(pid: int, lock: Path) -> bool:
    """Tell whether a process of this host has the lock open; where unknown, whether it runs."""
    try:
        mark = lock.lstat()
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(file.stat(), mark):
                    return True
    except OSError as error:
        is_unknown = isinstance(error, PermissionError) or not Path("/proc/self/fd").is_dir()
        return is_unknown and is_running(pid)
    return False


@cache
def _this_host() -> str:
    """Return what filelock calls this host, containers of one name told apart."""
    try:
        with TemporaryDirectory() as folder, _lease(Path(folder, LOCK)) as lease:
            return str(lease.owner.hostname)
    except OSError:  # a full disk
        return host_name()
