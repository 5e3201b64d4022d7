"""Fetch batches ahead in worker processes, with torch's DataLoader.

The order is decided in this process and workers keep nothing, so it does not depend on how many
there are. Each worker is asked for `prefetch` batches ahead. Batches come back as numpy arrays:
they go through a pipe, where a tensor would cost a file descriptor and a mapping each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from mixopt.loading.collate import Batch
from mixopt.loading.dataset import MixtureDataset
from mixopt.loading.prefetch import Ahead
from mixopt.system import IntArray


def in_processes(
    dataset: MixtureDataset,
    collate: Callable[[Sequence[Any]], Batch],
    rows: Iterator[IntArray],
    version: object,
    first: int,
    workers: int,
    prefetch: int,
) -> Ahead:
    """Start worker processes that read batches from `first` on."""
    asked = _RowsAskedFor(rows, first)
    loader: DataLoader[Any] = DataLoader(
        _BatchReader(dataset, collate),
        batch_sampler=asked,
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=_only,
    )
    return _InProcesses(iter(loader), version, asked)


class _RowsAskedFor:
    """Yield the rows of each batch and count the batches that were asked for."""

    def __init__(self, rows: Iterator[IntArray], first: int) -> None:
        self._rows = rows
        self.handed_out = first

    def __iter__(self) -> Iterator[list[Any]]:
        for rows in self._rows:
            self.handed_out += 1
            yield [rows]


class _BatchReader(Dataset[Batch]):
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

    def __init__(self, batches: Iterator[Batch], version: object, asked: _RowsAskedFor) -> None:
        super().__init__(batches, version)
        self._asked = asked

    def next(self) -> Batch | None:
        batch = super().next()
        self.handed_out = self._asked.handed_out
        return batch

    def is_stale(self, version: object) -> bool:
        return False


def _only(batches: Sequence[Batch]) -> Batch:
    return batches[0]
