"""A thread that writes one thing at a time while training continues, alike on every rank.

Its ranks agree in a process group of their own: what they send cannot meet what training sends,
however the two take turns. What it raises is kept until a rank waits for it; a loop whose ranks
must raise it in one step has them agree on `has_failed` first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from mixopt.pretraining.ranks import Ranks


class WritingThread:
    """The thread of this rank."""

    def __init__(self, ranks: Ranks) -> None:
        """Make the group; every rank does."""
        self._ranks = ranks.apart()
        self._pending: Future[None] | None = None

    def begin(self, write: Callable[[Ranks], None]) -> None:
        """Begin to write, with the ranks of the thread; `wait` has come before.

        Args:
            write: What is done, on every rank.
        """
        assert self._pending is None, "one thing is written at a time"
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending = thread.submit(write, self._ranks)
        thread.shutdown(wait=False)

    @property
    def is_at_work(self) -> bool:
        """Whether writing has not ended."""
        return self._pending is not None and not self._pending.done()

    @property
    def has_failed(self) -> bool:
        """Whether writing has ended with an error."""
        pending = self._pending
        return pending is not None and pending.done() and pending.exception() is not None

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            MixoptError: What writing raised; once.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
