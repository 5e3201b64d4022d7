"""Hear of SIGTERM without being stopped by it, so that a checkpoint can be written first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, *_: Any) -> None:
        """Ask it to stop after the present step."""
        self.asked = True


@contextmanager
def listening() -> Iterator[Interruption]:
    """Take SIGTERM while the block runs; in the main thread only, as Python has it."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = signal.signal(signal.SIGTERM, interruption.ask)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGTERM, before)
