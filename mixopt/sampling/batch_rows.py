"""Rows of whole batches, laid out some batches at a time.

The first time one batch is laid out, then more at once as long as weights stay as they are, so
that a change of weights throws little away.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from mixopt.sampling.sample_order import SampleOrder
from mixopt.system import IntArray

_BLOCK = 1 << 14


class BatchRows:
    """Rows of each global batch, as integers into the concatenation of the domains."""

    def __init__(self, order: SampleOrder, batch_size: int) -> None:
        """Lay nothing out yet.

        Args:
            order: The order of samples.
            batch_size: Samples of a global batch.
        """
        self.order = order
        self._batch_size = batch_size
        self._offsets = np.array([0, *accumulate(order.layout.sizes)], np.int64)
        self._most = max(_BLOCK, 64 * len(order.layout.sizes)) // batch_size
        self._ahead = 1
        self._block = (0, np.empty((0, batch_size), np.int64))

    def has(self, batch: int) -> bool:
        """Whether the stream has the whole of a batch."""
        end = (batch + 1) * self._batch_size
        return self.order.reach(end) == end

    def of(self, batch: int) -> IntArray:
        """Return the rows of a batch in the order of the ranks, shape (batch_size,)."""
        rows: IntArray = self.some(batch, 1)[0]
        return rows

    def some(self, batch: int, most: int) -> IntArray:
        """Return rows of the batches from one on, shape (batches, batch_size).

        Args:
            batch: The first.
            most: How many at most; fewer come where that is quicker, none after the last.
        """
        first, block = self._block
        if not first <= batch < first + len(block):
            if not self.has(batch):
                return block[:0]
            first, block = self._block = batch, self._lay_out(batch)
        return block[batch - first : batch - first + most]

    def _lay_out(self, batch: int) -> IntArray:
        size = self._batch_size
        stop = self.order.reach((batch + self._ahead) * size) // size * size
        self._ahead = max(min(self._ahead * 4, self._most), 1)
        domain, row = self.order.locate(batch * size, stop)
        return (row + self._offsets[domain]).reshape(-1, size)
