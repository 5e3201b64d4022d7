"""Record who works in a folder, in a file that its owner renews while alive.

A lock of the system ends with its process and needs nothing of this. A network file system may have
no locks, or locks that other hosts do not see: there, the file itself is the lock. It is made only
if it is not there, and holds the host, the process, when that began, a random token, and a count
that the owner raises every few seconds.

An owner on the same host is alive if its process is. One on another host is watched: if its count
moves, it is alive; if it stands still, it is gone, and the file is taken over. Clocks only decide
how long that is, since they differ among hosts and are set back.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mixopt.errors import RunError
from mixopt.system.leftovers import temporary_path
from mixopt.system.processes import host_name, is_running, process_space, start_of

BEAT = 2.0  # seconds between two renewals
STALE = 30.0  # seconds without one after which an owner on another host is gone
WATCH = 10.0  # seconds that one is watched for which is not seen for so long already
_SETTLE = 0.3  # seconds after which a file that two take over has its last writer
_SIZE = 1024  # bytes of the file: renewed in place, it needs no room on a full disk
# A file may be somebody else's: no link is followed, and a pipe is not waited for.
SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class Owner:
    """A process that works in a folder.

    Attributes:
        host: Its host's name.
        space: The process numbers that `pid` is one of: containers have their own.
        pid: Its number.
        started: When it began, as the system counts; a number may be given again.
        token: Random digits, of this claim alone.
        beats: How often it was renewed.
        seen: When it was last renewed, in seconds since 1970 by the owner's clock.
    """

    host: str
    space: str
    pid: int
    started: str
    token: str
    beats: int
    seen: float

    def __str__(self) -> str:
        """Say who it is, in a line."""
        ago = time.time() - self.seen
        when = f"last seen {ago:.0f} s ago" if 0 <= ago < 1e6 else "its clock differs from ours"
        return f"host {self.host}, process {self.pid}, {when}"


def this_process() -> Owner:
    """Return this process as an owner with a new token."""
    pid = os.getpid()
    place = (host_name(), process_space(), pid, start_of(pid) or "")
    return Owner(*place, token=secrets.token_hex(8), beats=0, seen=time.time())


def owner_of(path: Path) -> Owner | None:
    """Return whom a file names; None if none can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | SAFE)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    errors = suppress(OSError, ValueError, TypeError, RecursionError)
    with os.fdopen(descriptor, "rb") as stream, errors:
        return _owner(json.loads(stream.read(_SIZE)))
    return None


def is_here(owner: Owner) -> bool:
    """Tell whether an owner's process would be seen from this one."""
    return (owner.host, owner.space) == (host_name(), process_space())


def seems_alive(owner: Owner) -> bool:
    """Tell at once, without watching, whether an owner may be at work."""
    if is_here(owner):
        return is_running(owner.pid, owner.started)
    return time.time() - owner.seen < STALE


@contextmanager
def leased(path: Path, folder: Path, *, locked: bool) -> Iterator[None]:
    """Hold a folder while the block runs."""
    lease = _Lease(path, folder, locked=locked)
    lease.take()
    try:
        yield
    except KeyboardInterrupt as reason:
        if lease.lost:
            raise in_use(folder, owner_of(path)) from reason
        raise
    finally:
        lease.end()
    if lease.lost:
        raise in_use(folder, owner_of(path))


def in_use(folder: Path, owner: Owner | None) -> RunError:
    """Return the error of who comes second to a folder."""
    who = f": {owner}" if owner else ""
    return RunError(f"{folder}: another mixopt process is running here{who}; wait until it ends")


class _Lease:
    """One claim to a folder."""

    def __init__(self, path: Path, folder: Path, *, locked: bool) -> None:
        self._path, self._folder, self._locked = path, folder, locked
        self._mine = this_process()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="mixopt-lease")
        self._in_main = threading.current_thread() is threading.main_thread()
        self._ended = threading.Event()
        self.lost = False

    def take(self) -> None:
        """Make the file, or take it over from an owner that is gone."""
        for _ in range(5):
            if self._make() or self._take_over():
                self._thread.start()
                return
        raise in_use(self._folder, owner_of(self._path))

    def end(self) -> None:
        """Remove the file, if it is this claim's."""
        self._ended.set()
        self._thread.join()
        if not self.lost and self._is_mine():
            with suppress(OSError):
                self._path.unlink()

    def _make(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE, 0o644)
        except FileExistsError:
            return False
        except OSError as reason:
            raise RunError(f"{self._path}: cannot be written: {reason.strerror}") from reason
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(_content(self._mine))
        except OSError as reason:
            with suppress(OSError):
                self._path.unlink()
            raise RunError(f"{self._path}: cannot be written: {reason.strerror}") from reason
        return True

    def _take_over(self) -> bool:
        """Put this claim in the place of one that is gone; raise where it is not."""
        owner = owner_of(self._path)
        if owner is None and self._was_being_written():
            return False
        if owner is not None and self._is_alive(owner):
            raise in_use(self._folder, owner_of(self._path) or owner)
        now = owner_of(self._path)
        if owner is not None and (now is None or now.token != owner.token):
            return False  # another has just taken it over, or removed it
        temporary = temporary_path(self._path)
        try:
            temporary.write_bytes(_content(self._mine))
            temporary.replace(self._path)
        except OSError as reason:
            raise RunError(f"{self._path}: cannot be written: {reason.strerror}") from reason
        finally:
            with suppress(OSError):
                temporary.unlink()
        if not (self._locked and (owner is None or is_here(owner))):
            time.sleep(_SETTLE)
        return self._is_mine()

    def _was_being_written(self) -> bool:
        """Give a file that cannot be read a moment; tell whether it is another one then."""
        time.sleep(_SETTLE)
        return owner_of(self._path) is not None or not self._path.exists()

    def _is_alive(self, owner: Owner) -> bool:
        if is_here(owner):
            return not self._locked and is_running(owner.pid, owner.started)
        seconds = WATCH if time.time() - owner.seen > STALE else STALE
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(BEAT / 4)
            now = owner_of(self._path)
            if now is not None and (now.token, now.beats) != (owner.token, owner.beats):
                return True
            if now is None and not self._path.exists():
                return False
        return False

    def _is_mine(self) -> bool:
        owner = owner_of(self._path)
        return owner is not None and owner.token == self._mine.token

    def _renew(self) -> None:
        """Raise the count until the end; stop the main thread once another has taken over."""
        while not self._ended.wait(BEAT):
            owner = owner_of(self._path)
            if owner is not None and owner.token != self._mine.token:
                self.lost = True
                if self._in_main:
                    _interrupt_main()
                return
            self._mine = replace(self._mine, beats=self._mine.beats + 1, seen=time.time())
            with suppress(OSError):  # a disk or network that fails: the next one may work
                descriptor = os.open(self._path, os.O_WRONLY | SAFE)
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(_content(self._mine))


def _interrupt_main() -> None:
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # which ends a sleep, or a wait for a process


def _content(owner: Owner) -> bytes:
    return (json.dumps(asdict(owner)).ljust(_SIZE - 1) + "\n").encode()


def _owner(content: object) -> Owner | None:
    kinds = {"host": str, "space": str, "pid": int, "started": str, "token": str, "beats": int}
    if not isinstance(content, dict) or not isinstance(content.get("seen"), (int, float)):
        return None
    if not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        return None
    host = "".join(c if c.isprintable() else "?" for c in content["host"])[:253]
    return Owner(**({name: content[name] for name in (*kinds, "seen")} | {"host": host}))
