"""Detect a worker that hangs: no heartbeat, or a heartbeat without progress.

A heartbeat comes from a thread of the worker's own, so that a long step does not look like a
death; it says how often the worker has moved on (a report of the proxy, a change of what it
does), so that a main thread that waits forever does not look alive.

    silent                      patience; while it starts at least fifteen seconds, since an import
                                of a large library lets no other thread run
    still while it trains       patience
    still while it starts or    patience, and at least ten minutes: nothing reports from within
      compiles                  an import or a compiler

The patience is that of the sweep, or five times the slowest step of training so far where that
is longer. A proxy that has reported nothing yet is given the time in which it computes: some
never report. Time is counted while the watcher itself runs, so that a sweep that was suspended
and continued has not waited, and kills nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mixopt.sweeps.messages import Beat

PATIENCE = 600.0  # seconds
STARTING = 15.0
STEPS = 5
LONGEST_TICK = 1.0  # more than this between two looks was spent suspended
BUSY = 0.1  # of a core: a heart alone takes a hundredth of it
_STEPPING = ("training", "evaluating")


class Watch:
    """How long one worker has been silent, and how long it has stood still."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._given, self._clock = patience, clock
        self._seen = clock()
        self._silent = self._still = self._slowest = 0.0
        self._beat = Beat()

    @property
    def patience(self) -> float:
        """How long it may be silent, in seconds."""
        return max(self._given, STEPS * self._slowest)

    def begin(self) -> None:
        """Note that the worker is asked for something."""
        self._seen = self._clock()
        self._silent = self._still = 0.0
        self._beat = Beat()

    def hear(self, beat: Beat) -> None:
        """Note a heartbeat."""
        self._tick()
        if beat.moves != self._beat.moves:
            if self._beat.doing in _STEPPING and self._beat.total:
                self._slowest = max(self._slowest, self._still)
            self._still = 0.0
        elif not beat.total and beat.cpu - self._beat.cpu > BUSY * self._silent:
            self._still = 0.0
        self._silent, self._beat = 0.0, beat

    def overdue(self) -> str | None:
        """Return why the worker is to be killed; None while there is hope."""
        self._tick()
        doing = self._beat.doing
        silence = max(self.patience, STARTING) if doing == "starting" else self.patience
        stillness = self.patience if doing in _STEPPING else max(self.patience, PATIENCE)
        if self._silent > silence:
            return _reason("sent no heartbeat", self._silent, doing, silence)
        if self._still > stillness:
            reason = _reason("made no progress", self._still, doing, stillness)
            return f"{reason}; raise sweep.patience if a step takes so long"
        return None

    def _tick(self) -> None:
        now = self._clock()
        passed = min(now - self._seen, LONGEST_TICK)
        self._seen = now
        self._silent += passed
        self._still += passed


def _reason(lacking: str, waited: float, doing: str, limit: float) -> str:
    return (
        f"the worker {lacking} for {waited:.1f} s while {doing}, longer than its patience of"
        f" {limit:.1f} s, and was killed"
    )
