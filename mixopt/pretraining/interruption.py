"""Hear of SIGTERM and Ctrl-C without being stopped by them, so that a checkpoint is written first.

SIGTERM is heard while a run is prepared and trained. Ctrl-C ends what has no step to end with, such
as reading text, as it ends any program; between steps the first one is heard and the second ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_HEARD = (
    b"\nmixopt: interrupted: stops after the next step, with a checkpoint; Ctrl-C again: at once\n"
)


class Interruption:
    """Whether this process was asked to stop.

    Attributes:
        asked: By a signal of either kind.
        by_hand: By Ctrl-C.
    """

    def __init__(self) -> None:
        self.asked = self.by_hand = False

    def ask(self, *_: Any) -> None:
        """Ask it to stop after the next step."""
        self.asked = True

    @contextmanager
    def hearing_keys(self, may_save: Callable[[], bool]) -> Iterator[None]:
        """Take the first Ctrl-C while the block runs; in the main thread only.

        A process that does not listen to Ctrl-C, such as a script's in the background, still does
        not.

        Args:
            may_save: Whether the directory is still this run's; where another process has taken it
                over, this one is interrupted (mixopt.system.lease) and must write nothing more.
        """
        before = signal.getsignal(signal.SIGINT)
        if not _is_main() or before in (signal.SIG_IGN, None):
            yield
            return

        def heard(*_: Any) -> None:
            signal.signal(signal.SIGINT, before)
            if not may_save():
                raise KeyboardInterrupt
            self.asked = self.by_hand = True
            if os.environ.get("RANK", "0") == "0":
                _tell()

        signal.signal(signal.SIGINT, heard)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def listening() -> Iterator[Interruption]:
    """Take SIGTERM while the block runs; in the main thread only, as Python has it."""
    interruption = Interruption()
    if not _is_main():
        yield interruption
        return
    before = signal.signal(signal.SIGTERM, interruption.ask)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _tell() -> None:
    """Write to standard error past Python's buffer, which the signal may have come amid."""
    with suppress(OSError, ValueError, AttributeError):
        os.write(sys.stderr.fileno(), _HEARD)
