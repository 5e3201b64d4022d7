"""AdamW with its groups of weights, and the learning rate of a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from mixopt.errors import ConfigError
from mixopt.pretraining.training_config import TrainingConfig

ADAM_EPS = 1e-8  # where eps is not given
_EMBEDDING = "embedding"


def make_optimizer(model: nn.Module, config: TrainingConfig) -> optim.AdamW:
    """Return AdamW with its state; matrices decay, vectors such as norms do not.

    Raises:
        ConfigError: Embeddings are to be left out of the decay, and there are none to be found.
    """
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
    """Return a model's weights as groups of an optimiser: those that decay, and those that do not.

    Args:
        model: Its matrices decay, vectors such as norms do not.
        weight_decay: Of those that decay.
        embeddings: Whether they do.

    Raises:
        ConfigError: Embeddings are to be left out of the decay, and there are none to be found.
    """
    spared = set() if embeddings else _spared(model)
    decayed, others = list[Tensor](), list[Tensor]()
    for weight in model.parameters():
        if weight.requires_grad:
            (decayed if weight.ndim > 1 and id(weight) not in spared else others).append(weight)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step, counted from 0."""
    return config.rates.rate(step)


def _spared(model: nn.Module) -> set[int]:
    found = {id(weight) for weight in _embeddings(model)}
    if not found:
        raise ConfigError(
            "training.decay_embeddings: false, and the model has neither a torch.nn.Embedding nor"
            f" a parameter called {_EMBEDDING!r}; leave it out"
        )
    return found


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tables of embeddings; a head that is tied to one is the same weight."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight
    for name, weight in model.named_parameters():
        if name.rpartition(".")[2] == _EMBEDDING:
            yield weight
