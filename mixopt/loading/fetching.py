"""Fetch batches ahead: when they are asked for, in a thread, or in worker processes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from mixopt.loading.collate import Batch
from mixopt.loading.dataset import MixtureDataset
from mixopt.system import IntArray

_POLL_SECONDS = 0.1


class Ahead:
    """Batches in order, fetched with the weights that were known then.

    Attributes:
        handed_out: The first batch that no worker process was asked for; None without processes.
    """

    handed_out: int | None = None

    def __init__(
        self,
        batches: Iterator[Batch],
        order: object,
        close: Callable[[], Any] = lambda: None,
    ) -> None:
        """Join an iterator and what ends it."""
        self._batches = batches
        self._order = order
        self.close = close

    def next(self) -> Batch | None:
        """Return the next batch, or None after the last."""
        return next(self._batches, None)

    def is_stale(self, order: object) -> bool:
        """Whether the weights have changed since the batches were fetched."""
        return order is not self._order


def in_line(chunks: Iterator[Iterator[Batch]], order: object) -> Ahead:
    """Read when a batch is asked for."""
    return Ahead(chain.from_iterable(chunks), order)


def in_thread(chunks: Iterator[Iterator[Batch]], order: object, depth: int) -> Ahead:
    """Read in a thread that keeps up to `depth` chunks ready."""
    thread = InThread(chunks, depth)
    return Ahead(iter(thread), order, thread.close)


def in_thread_later(chunks: Iterator[Iterator[Batch]], order: object, depth: int) -> Ahead:
    """Read the first chunk when it is asked for, and what follows in a thread."""

    def read() -> Generator[Batch]:
        yield from next(chunks, iter(()))
        thread = InThread(chunks, depth)
        try:
            yield from thread
        finally:
            thread.close()

    batches = read()
    return Ahead(batches, order, batches.close)


class InThread:
    """Run an iterator in a thread; errors come out where the values are taken."""

    def __init__(self, chunks: Iterator[Iterator[Any]], depth: int) -> None:
        """Start the thread."""
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


def in_processes(
    dataset: MixtureDataset,
    collate: Callable[[Sequence[Any]], Batch],
    rows: Iterator[IntArray],
    order: object,
    first: int,
    workers: int,
    prefetch: int,
) -> Ahead:
    """Start worker processes that read batches from `first` on, by torch's DataLoader."""
    from torch.utils.data import DataLoader

    asked = _RowsAskedFor(rows, first)
    loader: Any = DataLoader(
        _BatchReader(dataset, collate),  # type: ignore[arg-type]
        batch_sampler=asked,
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=_only,
    )
    return _InProcesses(iter(loader), order, asked)


class _RowsAskedFor:
    """Yield the rows of each batch and count the batches that were asked for."""

    def __init__(self, rows: Iterator[IntArray], first: int) -> None:
        self._rows = rows
        self.handed_out = first

    def __iter__(self) -> Iterator[list[Any]]:
        for rows in self._rows:
            self.handed_out += 1
            yield [rows]


class _BatchReader:
    """Read a whole batch in one call."""

    def __init__(self, dataset: MixtureDataset, collate: Callable[[Sequence[Any]], Batch]) -> None:
        self._dataset = dataset
        self._collate = collate

    def __getitem__(self, rows: IntArray) -> Batch:
        if self._dataset.is_tokens:
            return self._dataset.read(rows)
        return self._dataset.collated(rows, self._collate)


class _InProcesses(Ahead):
    """Batches that were asked for keep the weights they were asked for with."""

    def __init__(self, batches: Iterator[Batch], order: object, asked: _RowsAskedFor) -> None:
        super().__init__(batches, order)
        self._asked = asked

    def next(self) -> Batch | None:
        batch = super().next()
        self.handed_out = self._asked.handed_out
        return batch

    def is_stale(self, order: object) -> bool:
        return False


def _only(batches: Sequence[Batch]) -> Batch:
    return batches[0]
