"""AdamW and clipping for a stack: no member's step depends on another's gradient.

The gradients are scaled into one flat buffer, each member's by its own norm, and PyTorch's
fused AdamW then does all members in one pass. Norm weights do not decay.

Shapes: K members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mixopt_proxies.sizes import Size
from mixopt_proxies.weights import StackedWeights

FLOOR = 0.1


class StackedAdamW:
    """AdamW on the weights of a stack, with clipping member by member."""

    def __init__(self, weights: StackedWeights, size: Size, steps: int) -> None:
        self._weights = weights
        self._size = size
        self._steps = steps
        self._taken = 0
        split = weights.decayed
        self._parts = [
            _part(weights.master[:split], weights.gradient[:split]),
            _part(weights.master[split:], weights.gradient[split:]),
        ]
        groups = [
            {"params": self._parts[:1], "weight_decay": size.weight_decay},
            {"params": self._parts[1:], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(groups, lr=size.lr, betas=size.betas, eps=1e-8, fused=True)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Clip, move the weights, and refresh their copy in the compute precision.

        Args:
            gradients: By the names of the weights' leaves, each (K, ...).
        """
        grads = combine(gradients, tied=self._weights.tied)
        scale_K = clip_scales(list(grads.values()), self._size.clip)
        for weight in self._weights.weights:
            out = self._weights.view(self._weights.gradient, weight)
            grad = grads[weight.name]
            torch.mul(grad, scale_K.view(-1, *[1] * (grad.ndim - 1)), out=out)
        rate = self._size.lr * rate_factor(self._taken, self._steps, self._size)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._weights.refresh()
        self._taken += 1


def combine(gradients: Mapping[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """Add the head's gradient to the embedding's where they are one weight."""
    grads = dict(gradients)
    if tied:
        grads["embedding"] = grads["embedding"] + grads.pop("head")
    return grads


def clip_scales(gradients: list[Tensor], limit: float) -> Tensor:
    """Return what each member's gradient is to be multiplied by, shape (K,).

    A member's norm is over all of its weights and no other member's.
    """
    squares_K = torch.stack([_square_norms(gradient) for gradient in gradients]).sum(0)
    if limit == 0:
        return torch.ones_like(squares_K)
    return (limit / (squares_K.sqrt() + 1e-6)).clamp(max=1.0)


def rate_factor(step: int, steps: int, size: Size) -> float:
    """Return the learning rate of a step, from 0, as a share of the peak."""
    warmup = size.warmup if size.warmup >= 1 else size.warmup * steps
    if step < warmup:
        return (step + 1) / (math.floor(warmup) + 1)
    if size.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(steps - warmup, 1)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def _square_norms(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float32).square()


def _part(values: Tensor, gradient: Tensor) -> torch.nn.Parameter:
    part = torch.nn.Parameter(values)
    part.grad = gradient
    return part
