"""Read global batches from an order of samples, more at once the longer it is read.

Shapes: K batches, B samples of a batch.
"""

from typing import NamedTuple

import numpy as np

from mixopt.sampling.order import SampleOrder
from mixopt.system import IntArray

_MAX_SAMPLES = 1 << 14  # laid out at once, with few domains
_SAMPLES_PER_DOMAIN = 64  # laid out at once, with many domains


class _Block(NamedTuple):
    """Consecutive batches that are laid out."""

    order: SampleOrder
    first: int  # batch
    rows_KB: IntArray

    def contains(self, batch: int) -> bool:
        return self.first <= batch < self.first + len(self.rows_KB)


class BatchReader:
    """The rows of global batches over all ranks.

    After a change of the order, one window is laid out first, then more at once, so that the next
    change discards little.
    """

    def __init__(self, order: SampleOrder, batch_size: int) -> None:
        self._batch_size = batch_size
        self._block = _Block(order, 0, np.empty((0, batch_size), np.int64))
        self._ahead = 1  # windows to lay out next

    def rows(self, order: SampleOrder, batch: int, max_batches: int) -> IntArray:
        """Return the rows of consecutive batches, at least one, shape (K, B); none at the end."""
        block = self._block  # read once: loader threads call
        if block.order is not order:
            block = self._lay_out(order, batch, 1)
        elif not block.contains(batch):
            block = self._lay_out(order, batch, self._ahead)
        offset = batch - block.first
        rows_KB: IntArray = block.rows_KB[offset : offset + max_batches]
        return rows_KB

    def _lay_out(self, order: SampleOrder, batch: int, ahead: int) -> _Block:
        """Lay out `ahead` windows, or as many as the batch takes; a batch may begin inside one."""
        size = self._batch_size
        window_size = order.layout.window_size
        window, begin = divmod(batch * size, window_size)
        needed = -(-(begin + size) // window_size)
        rows = order.rows(window, max(needed, ahead)).ravel()[begin:]
        batches = len(rows) // size
        block = _Block(order, batch, rows[: batches * size].reshape(-1, size))
        self._block = block
        max_samples = max(_MAX_SAMPLES, _SAMPLES_PER_DOMAIN * len(order.layout.sizes))
        self._ahead = min(ahead * 4, max(max_samples // window_size, 1))
        return block
