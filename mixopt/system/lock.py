"""A lock on a folder by filelock's soft lease, for any file system.

The owner creates the file `.lock` and touches it every few seconds. A lock of the same host is
stale as soon as its process is gone; a lock of another host after STALE seconds without a touch, by
the clock of the next process. An owner whose lock was taken over stops with one line.
"""

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
BEAT = 2.0  # seconds between renewals
STALE = 30.0  # seconds without renewal after which another host's lock is stale
TORN = 2.5  # seconds after which a lock without a record belongs to a killed process
PATIENCE = 20.0  # seconds to wait for an interrupted process


class Owner(NamedTuple):
    """The process that holds a folder's lock."""

    host: str
    pid: int
    seen: float
    is_here: bool

    def __str__(self) -> str:
        """Return the owner as one line."""
        ago = time.time() - self.seen
        when = f"last seen {ago:.0f} s ago" if 0 <= ago < 1e6 else "its clock differs from ours"
        return f"host {self.host}, process {self.pid}, {when}"


def owner_of(folder: Path) -> Owner | None:
    """Return the owner of a folder's lock; None if it is free."""
    lock = folder / LOCK
    record = _lease(lock).owner
    mark = _mark(lock)
    if record is None or mark is None:
        return None
    seconds = mark.modified / 1e9
    is_here = record.hostname == _this_host()
    is_alive = _has_open(record.pid, lock) if is_here else time.time() - seconds < STALE
    if not is_alive:
        return None
    host = _printable(record.hostname.partition("?")[0])
    return Owner(host[:253], record.pid, seconds, is_here)


def is_in_use(folder: Path) -> bool:
    """Return whether a process holds a folder's lock."""
    return owner_of(folder) is not None


def is_worker(folder: Path) -> bool:
    """Return whether this process holds a folder's lock; False after a takeover."""
    owner = owner_of(folder)
    return owner is None or (owner.is_here and owner.pid == os.getpid())


@contextmanager
def only_one(folder: Path, *, is_patient: bool = False) -> Iterator[None]:
    """Lock a folder for the block; the lock of a killed process is taken over.

    Raises RunError if another process holds the lock; with `is_patient`, waits for it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    lease = _lease(folder / LOCK, lost=_interrupt_main if is_main else None)
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
    """Return what `find` finds in a folder, or make it under the lock while others wait."""
    value = find()
    if value is not None:
        return value
    with only_one(folder, is_patient=True):
        value = find()
        return make() if value is None else value


def interrupt(folder: Path) -> Owner | None:
    """Interrupt the owner of a folder as by Ctrl-C, and wait until it has ended.

    The content of the lock is not trusted: only a process of this host that has the lock open is
    sent a signal.
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
    """Acquire the lock; wait for a live owner, or raise after some seconds."""
    from filelock import LeaseSettingsMismatch, Timeout

    start = time.monotonic()
    last_mark = None
    while True:
        with writing(folder / LOCK):
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout, LeaseSettingsMismatch):
                lease.acquire(timeout=0)
                return
        waited = time.monotonic() - start
        has_record = lease.owner is not None
        owner = owner_of(folder)
        mark = _mark(folder / LOCK)
        is_renewed = has_record and last_mark not in (None, mark)
        is_here = owner is not None and owner.is_here
        if not is_patient and (is_here or is_renewed or waited > STALE + 2 * BEAT):
            raise _in_use(folder)
        if not has_record and waited > TORN:
            lease.force_break()
        last_mark = mark
        time.sleep(BEAT / 4)


class Mark(NamedTuple):
    """What changes when a lock is renewed or taken over."""

    inode: int
    modified: int  # nanoseconds


def _mark(lock: Path) -> Mark | None:
    try:
        status = lock.lstat()
    except OSError:
        return None
    return Mark(status.st_ino, status.st_mtime_ns)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _in_use(folder: Path) -> RunError:
    """Return the error for a locked folder."""
    owner = owner_of(folder)
    holder = f": {owner}" if owner else ""
    return RunError(f"{folder}: another mixopt process is running here{holder}; wait until it ends")


def _interrupt_main(_: object) -> None:
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # also ends a sleep or a wait


def _has_open(pid: int, lock: Path) -> bool:
    """Return whether a process of this host has the lock open; if unknown, whether it runs."""
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
    """Return filelock's name of this host, made unique for containers."""
    try:
        with TemporaryDirectory() as folder, _lease(Path(folder, LOCK)) as lease:
            return str(lease.owner.hostname)
    except OSError:  # a full disk
        return host_name()
