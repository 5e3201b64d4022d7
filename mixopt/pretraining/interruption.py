"""Interruption of pretraining by SIGTERM or Ctrl-C: stop after a step, with a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_INTERRUPTED = (
    b"\nmixopt: interrupted: stops after the next step, with a checkpoint; Ctrl-C again: at once\n"
)


class Interruption:
    """Records whether SIGTERM or Ctrl-C asked this process to stop."""

    def __init__(self) -> None:
        self.requested = self.by_hand = False

    @contextmanager
    def listening(self, may_save: Callable[[], bool]) -> Iterator[None]:
        """Record SIGTERM and the first Ctrl-C during the block; a second Ctrl-C ends at once.

        In the main thread only, as Python requires; ignored signals stay ignored. SIGINT also tells
        the main thread that another process took over the directory; then nothing is saved.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
        ignored = (signal.SIG_IGN, None)
        previous = {kind: handler for kind, handler in handlers.items() if handler not in ignored}

        def on_signal(kind: int, _: Any) -> None:
            if kind == signal.SIGTERM:
                self.requested = True
                return
            signal.signal(kind, previous[signal.SIGINT])
            if not may_save():
                raise KeyboardInterrupt
            self.requested = self.by_hand = True
            if os.environ.get("RANK", "0") == "0":
                # Bypass Python's buffer, which the signal may have interrupted.
                with suppress(OSError, ValueError, AttributeError):
                    os.write(sys.stderr.fileno(), _INTERRUPTED)

        try:
            for kind in previous:
                signal.signal(kind, on_signal)
            yield
        finally:
            for kind, handler in previous.items():
                signal.signal(kind, handler)
