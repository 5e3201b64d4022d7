"""AdamW, and the learning rate over the steps: linear warm-up, then a cosine or a constant."""

from __future__ import annotations

import math

from torch import nn, optim
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from mixopt.pretraining.config import TrainingConfig
from mixopt.sampling import Schedule

_END = 0.1  # of the peak, where min_lr is not given


def make_optimizer(model: nn.Module, config: TrainingConfig) -> optim.AdamW:
    """Return AdamW with its state; matrices and embeddings decay, vectors such as norms do not."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    kept = [group for group in groups if group["params"]]
    adam = optim.AdamW(kept, lr=config.lr, betas=config.betas, eps=1e-8, fused=True)
    get_optimizer_state_dict(model, adam)  # makes the state, with a step that moves nothing
    for state in adam.state.values():
        state["step"].zero_()
    return adam


def learning_rate(step: int, config: TrainingConfig, plan: Schedule | None = None) -> float:
    """Return the learning rate of a step, counted from 0; a schedule's phases count before all."""
    if plan is not None and plan.has_phases:
        end = _END if config.min_lr is None else config.min_lr / config.lr
        return config.lr * plan.rate_level(step, end)
    warmup = config.warmup if config.warmup >= 1 else config.warmup * config.steps
    if step < warmup:
        return config.lr * (step + 1) / (math.floor(warmup) + 1)
    if config.schedule == "constant":
        return config.lr
    least = _END * config.lr if config.min_lr is None else config.min_lr
    done = (step - warmup) / max(config.steps - warmup, 1)
    return least + (config.lr - least) * 0.5 * (1 + math.cos(math.pi * done))
