"""Fetch batches ahead: in line, in a thread, or (mixopt.loading.worker_fetch) in processes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from mixopt.loading.collate import Batch

_POLL_SECONDS = 0.1


class Ahead:
    """Batches in order, fetched with one version of the order.

    Attributes:
        handed_out: The first batch that no worker process was asked for; None without processes.
    """

    handed_out: int | None = None

    def __init__(
        self,
        batches: Iterator[Batch],
        version: object,
        close: Callable[[], Any] = lambda: None,
    ) -> None:
        """Join an iterator and what ends it.

        Args:
            batches: The batches.
            version: What they follow from (MixtureSampler.version).
            close: Frees what the iterator holds.
        """
        self._batches = batches
        self._version = version
        self.close = close

    def next(self) -> Batch | None:
        """Return the next batch, or None after the last."""
        return next(self._batches, None)

    def is_stale(self, version: object) -> bool:
        """Whether the weights have changed since the batches were fetched."""
        return version is not self._version


def in_line(chunks: Iterator[Iterator[Batch]], version: object) -> Ahead:
    """Read when a batch is asked for."""
    return Ahead(chain.from_iterable(chunks), version)


def in_thread(chunks: Iterator[Iterator[Batch]], version: object, depth: int) -> Ahead:
    """Read in a thread that keeps up to `depth` chunks ready."""
    thread = InThread(chunks, depth)
    return Ahead(iter(thread), version, thread.close)


def in_thread_later(chunks: Iterator[Iterator[Batch]], version: object, depth: int) -> Ahead:
    """Read the first chunk when it is asked for, and what follows in a thread.

    Where weights change with each batch, no thread is begun that reads in vain.
    """

    def read() -> Generator[Batch]:
        yield from next(chunks, iter(()))
        thread = InThread(chunks, depth)
        try:
            yield from thread
        finally:
            thread.close()

    batches = read()
    return Ahead(batches, version, batches.close)


class InThread:
    """Run an iterator in a thread; errors come out where the values are taken."""

    def __init__(self, chunks: Iterator[Iterator[Any]], depth: int) -> None:
        """Start the thread.

        Args:
            chunks: What is read, a chunk of values at a time.
            depth: Most chunks that are kept ready.
        """
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(chunks,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        """Take the values in order."""
        while True:
            chunk = self._ready.get()
            if chunk is None:
                return
            if isinstance(chunk, BaseException):
                raise chunk
            while chunk:
                yield chunk.popleft()

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._ready.get_nowait()
            self._thread.join(timeout=0.001)

    def _run(self, chunks: Iterator[Iterator[Any]]) -> None:
        last: BaseException | None = None
        try:
            for chunk in chunks:
                self._put(deque(chunk))
                if self._stop.is_set():
                    return
        except BaseException as error:
            last = error
        self._put(last)

    def _put(self, item: Any) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._ready.put(item, timeout=_POLL_SECONDS)
                return
