"""Fetch batches ahead: in a thread, or in worker processes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from mixopt.loading.collate import Batch
from mixopt.loading.dataset import MixtureDataset
from mixopt.system import IntArray

_POLL_SECONDS = 0.1


def in_thread(chunks: Iterator[Iterator[Batch]], depth: int, *, later: bool) -> Generator[Batch]:
    """Read in a thread that keeps up to `depth` chunks ready; `later`, from the second on."""
    if later:
        yield from next(chunks, iter(()))
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(chunks, ready, stop), daemon=True)
    thread.start()
    try:
        while (chunk := ready.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            while chunk:
                yield chunk.popleft()
    finally:
        stop.set()
        while thread.is_alive():
            with suppress(queue.Empty):
                ready.get_nowait()
            thread.join(timeout=0.001)


def _run(chunks: Iterator[Iterator[Any]], ready: queue.Queue[Any], stop: threading.Event) -> None:
    last: BaseException | None = None
    try:
        for chunk in chunks:
            _put(deque(chunk), ready, stop)
            if stop.is_set():
                return
    except BaseException as error:
        last = error
    _put(last, ready, stop)


def _put(item: Any, ready: queue.Queue[Any], stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(queue.Full):
            ready.put(item, timeout=_POLL_SECONDS)
            return


def in_processes(
    dataset: MixtureDataset,
    collate: Callable[[Sequence[Any]], Batch],
    rows: Iterator[IntArray],
    workers: int,
    prefetch: int,
) -> Generator[Batch]:
    """Read batches in worker processes, by torch's DataLoader, which takes rows ahead."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _BatchReader(dataset, collate),  # type: ignore[arg-type]
        batch_sampler=([one] for one in rows),  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=_only,
    )
    yield from loader


class _BatchReader:
    """Read a whole batch in one call."""

    def __init__(self, dataset: MixtureDataset, collate: Callable[[Sequence[Any]], Batch]) -> None:
        self._dataset, self._collate = dataset, collate

    def __getitem__(self, rows: IntArray) -> Batch:
        if self._dataset.is_tokens:
            return self._dataset.read(rows)
        return self._dataset.collated(rows, self._collate)


def _only(batches: Sequence[Batch]) -> Batch:
    return batches[0]
