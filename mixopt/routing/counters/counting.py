"""Open and close the batches that are counted, and bring their counts to the host.

Shapes: B sequences, S tokens of one, T = B * S.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mixopt.errors import RoutingError
from mixopt.routing.assignments import Assignments
from mixopt.routing.counters.adapters import FoundRouter
from mixopt.routing.counters.layer_counter import LayerCounter, is_counted
from mixopt.routing.counters.open_batch import OpenBatch
from mixopt.routing.counters.reduction import Expected, check_first, collect, ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Counting:
    """The counters of a model's routers, and what the host knows about what they count.

    Attributes:
        pending: The batches that were counted and not collected.
    """

    def __init__(
        self,
        model: nn.Module,
        routers: Sequence[FoundRouter],
        domains: tuple[str, ...],
        *,
        probabilities: bool,
        evaluation: bool,
        group: ProcessGroup | None,
    ) -> None:
        for router in routers:
            if is_counted(router.module):
                raise RoutingError(
                    f"router {router.name!r} is already counted: detach the other RouterStats first"
                )
        if "torch._dynamo" in sys.modules:
            # Compiled code does not look for hooks that come after it.
            torch.compiler.reset()
        self.pending = Expected()
        self._model, self._domains, self._group = model, domains, group
        self._evaluation, self._probabilities = evaluation, probabilities
        self._batch, self._checked = OpenBatch(), False
        device = next((p.device for p in model.parameters() if not p.is_meta), "cpu")
        self._counters = [
            LayerCounter(router, self._batch, len(domains), device=device, sums=probabilities)
            for router in routers
        ]

    @property
    def distributed(self) -> bool:
        """Whether there are other ranks."""
        return ranks(self._group) > 1

    def begin(self, domain_BS: Tensor, position: int | Sequence[int] | None = None) -> None:
        """Begin a batch, if the model is in training or evaluation is counted as well.

        Args:
            domain_BS: As `token_domains` returns them.
            position: Of the first sequence in the stream, or of each, where it is known.

        Raises:
            RoutingError: Positions of another number of sequences.
        """
        if not (self._model.training or self._evaluation):
            return
        device = self._counters[0].counts.device
        self._batch.open(
            domain_BS.to(device, non_blocking=True),
            self._odd(len(domain_BS), position).to(device, non_blocking=True),
            len(self._domains),
            sums=self._probabilities,
        )

    def end(self, *, whole: bool) -> None:
        """End the batch; the first one is checked, which waits for the device once.

        Raises:
            RoutingError: A router did not run once.
        """
        rows_T = self._batch.rows_T
        if rows_T is None:
            return
        self._batch.close()
        self.pending.tokens += len(rows_T)
        if not whole:
            self.pending.interrupted += 1
            return
        self.pending.batches += 1
        if not self._checked and self.pending == Expected(1, 0, len(rows_T)):
            check_first(self._counters)
            self._checked = True

    def collect(self) -> Assignments:
        """Return what all ranks counted since the last time.

        Raises:
            RoutingError: A router was not counted once for each batch, or ids of no domain.
        """
        pending, self.pending = self.pending, Expected()
        return collect(self._counters, pending, self._domains, self._group)

    def loads(self) -> Tensor:
        """Return what this rank has counted since the last time, router after router."""
        loads = [counter.load() for counter in self._counters]
        return torch.cat([load.to(loads[0].device) for load in loads])

    def _odd(self, size: int, position: int | Sequence[int] | None) -> Tensor:
        """Return 1 for the sequences of a batch that are of the odd half, and 0 for the others.

        They alternate, and which comes first changes from batch to batch, for batches of one
        sequence. By position they do so as Thue and Morse have it (the parity of the number's
        bits), which no regular order of domains goes along with.
        """
        if position is None:
            return (torch.arange(size) + self.pending.batches) % 2
        position_B = np.asarray(position, np.int64)
        if not position_B.ndim:
            position_B = position_B + np.arange(size)
        if len(position_B) != size:
            raise RoutingError(f"{len(position_B)} positions for a batch of {size} sequences")
        bits_B = np.bitwise_count(position_B)
        return torch.from_numpy((bits_B & 1).astype(np.int64))

    def discard(self) -> None:
        """Forget what was counted since the last time."""
        self.pending = Expected()
        for counter in self._counters:
            counter.clear()

    def remove(self) -> None:
        """Take the hooks out."""
        for counter in self._counters:
            counter.remove()
