"""AdamW with its groups of weights, the learning rate, and an average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mixopt.errors import ConfigError
from mixopt.pretraining.checkpoints import AVERAGE
from mixopt.pretraining.training_config import TrainingConfig

ADAM_EPS = 1e-8  # where eps is not given
_EMBEDDING = "embedding"


def make_optimizer(model: nn.Module, config: TrainingConfig) -> optim.AdamW:
    """Return AdamW with its state; matrices decay, vectors such as norms do not."""
    embeddings = config.decay_embeddings is not False
    groups = decay_groups(model, config.weight_decay, embeddings=embeddings)
    eps = ADAM_EPS if config.eps is None else config.eps
    adam = optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=eps, fused=True)
    get_optimizer_state_dict(model, adam)  # makes the state, with a step that moves nothing
    for state in adam.state.values():
        state["step"].zero_()
    return adam


def decay_groups(
    model: nn.Module, weight_decay: float, *, embeddings: bool
) -> list[dict[str, Any]]:
    """Return a model's weights as groups: matrices that decay, and what does not."""
    spared = set() if embeddings else {id(weight) for weight in _embeddings(model)}
    if not embeddings and not spared:
        raise ConfigError(
            "training.decay_embeddings: false, and the model has neither a torch.nn.Embedding nor"
            f" a parameter called {_EMBEDDING!r}; leave it out"
        )
    decayed, others = list[Tensor](), list[Tensor]()
    for weight in model.parameters():
        if weight.requires_grad:
            (decayed if weight.ndim > 1 and id(weight) not in spared else others).append(weight)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tables of embeddings; a head that is tied to one is the same weight."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight
    for name, weight in model.named_parameters():
        if name.rpartition(".")[2] == _EMBEDDING:
            yield weight


class AveragedWeights:
    """An exponential moving average of the trained weights on one rank, to evaluate with.

    It lies in the optimizer's state, beside Adam's moments: so it is sharded as the weights are,
    and saved and resumed with them. It begins as the weights that the run begins with.
    """

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer, decay: float) -> None:
        """Put the average into the optimizer's state."""
        self._model, self._decay = model, decay
        weights = [w for w in model.parameters() if w.requires_grad]
        for weight in weights:
            optimizer.state[weight][AVERAGE] = weight.detach().clone()
        self._pairs = [(weight, optimizer.state[weight]) for weight in weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step that moved them."""
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
