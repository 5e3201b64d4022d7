"""Detect which processes are alive: on this host by signal, elsewhere by a file they renew.

A process of another host is alive while its count of beats moves. The time for which one stands
still is counted by the watcher's own clock, and only while the watcher itself runs: clocks of
hosts differ, and a watcher that was suspended has not watched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from mixopt.system import BEAT, STALE, WATCH, Owner, is_here, is_running

LONGEST_LOOK = 5.0  # more than this between two looks was spent suspended


class _Watched:
    """One process that is watched."""

    def __init__(self, owner: Owner, now: float) -> None:
        self.beats, self.at, self.still = owner.beats, now, 0.0
        # One that was not renewed for so long already is watched for less.
        self.limit = WATCH if abs(time.time() - owner.seen) > STALE else STALE


class Pulses:
    """Which processes are alive, by their tokens."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to watch; `clock` counts seconds."""
        self._clock, self._seen = clock, dict[str, _Watched]()
        self._gone: set[str] = set()

    def bury(self, token: str) -> None:
        """Note that a process is known to be gone, such as by a scheduler."""
        self._gone.add(token)

    def alive(self, owner: Owner) -> bool:
        """Tell whether a process is alive; of one on another host that takes calls for a while."""
        if owner.token in self._gone:
            return False
        if is_here(owner):
            return is_running(owner.pid, owner.started)
        now = self._clock()
        seen = self._seen.setdefault(owner.token, _Watched(owner, now))
        if owner.beats != seen.beats:
            seen.beats, seen.still, seen.limit = owner.beats, 0.0, STALE
        else:
            seen.still += min(now - seen.at, LONGEST_LOOK)
        seen.at = now
        return seen.still <= seen.limit


class Heartbeat:
    """Renews a file from a thread of its own, until it is ended."""

    def __init__(self, owner: Owner, write: Callable[[Owner], None]) -> None:
        """Write once, and then every few seconds.

        Args:
            owner: This process.
            write: Writes the file; what it raises ends nothing.
        """
        self._owner, self._write = owner, write
        self._over, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat_on, daemon=True, name="mixopt-beat")

    def start(self) -> None:
        """Begin."""
        self.beat()
        self._thread.start()

    def beat(self) -> None:
        """Write now."""
        with self._lock:
            self._owner = replace(self._owner, beats=self._owner.beats + 1, seen=time.time())
            self._write(self._owner)

    def end(self) -> None:
        """Write no more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat_on(self) -> None:
        while not self._over.wait(BEAT):
            self.beat()
