"""Add up counts over the ranks that a batch is split over, for lengths that are learned.

A group of its own over gloo, so that nothing meets the loop's collectives; every rank asks for the
sum of each batch, when the loop receives it.

Shapes: D domains.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.system import IntArray


class RankSum:
    """Sums over the ranks of one loader."""

    def __init__(self, world_size: int) -> None:
        """Find the ranks.

        Args:
            world_size: How many ranks a batch is split over.

        Raises:
            SamplerError: There are several, and torch.distributed is not initialised, or runs
                with a number of processes that is not a multiple.
        """
        self._group: Any = None
        self._copies = 1
        if world_size == 1:
            return
        distributed: Any = sys.modules.get("torch.distributed")
        if distributed is None or not distributed.is_initialized():
            raise SamplerError(
                f"lengths are learned from what all {world_size} ranks deliver, and"
                " torch.distributed is not initialised: initialise it, or give MixtureSampler("
                "lengths=)"
            )
        processes = distributed.get_world_size()
        if processes % world_size:
            raise SamplerError(
                f"lengths are learned from all ranks: {processes} processes are not a multiple of"
                f" world_size {world_size}"
            )
        self._copies = processes // world_size  # peers of a mesh deliver the same rows
        self._group = distributed.new_group(backend="gloo")

    def of(self, counts_D: IntArray) -> list[int]:
        """Return the sum of each domain's counts; every rank asks."""
        if self._group is None:
            total: list[int] = counts_D.tolist()
            return total
        import torch

        tensor = torch.from_numpy(np.array(counts_D, np.int64))
        torch.distributed.all_reduce(tensor, group=self._group)
        return [int(count) // self._copies for count in tensor.tolist()]
