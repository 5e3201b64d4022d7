"""An exponential moving average of the weights, to evaluate with.

It lies in the optimiser's state, beside Adam's moments: so it is sharded as the weights are, saved
and resumed with them, and copied by whatever copies that state. After a step that moved the weights
it keeps `decay` of itself and takes the rest from them. It begins as the weights that the run
begins with; of a checkpoint that has one and whose optimizer's state is taken over, as that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn, optim
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

AVERAGE = "ema"


class AveragedWeights:
    """The average of a model's trained weights, on one rank."""

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer, decay: float) -> None:
        """Put the average into the optimiser's state; it begins as the weights are.

        Args:
            model: After it was wrapped.
            optimizer: With the state of each weight.
            decay: What a step leaves of the average, from 0 to below 1.
        """
        self._model, self._decay = model, decay
        weights = [w for w in model.parameters() if w.requires_grad]
        for weight in weights:
            optimizer.state[weight][AVERAGE] = weight.detach().clone()
        self._pairs = [(weight, optimizer.state[weight]) for weight in weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        weights, averages = zip(*self._local(), strict=True)
        torch._foreach_lerp_(averages, weights, 1 - self._decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the model compute with the average in the block, and with its weights after it."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for weight, average in self._local():
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
        # Where FSDP keeps what it gathered, that is from before the exchange.
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _local(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's part of each weight and of its average."""
        for weight, state in self._pairs:
            yield _part(weight.detach()), _part(state[AVERAGE])


def _part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
