"""Alignment of each domain's gradient with the objective's, for estimators that need it.

It takes a backward pass for each domain and one for the objective, and holds two gradients at a
time. Parameters have to be whole on every rank: replicated (DDP), not sharded.

Shapes: D domains, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mixopt.online.sums import ranks
from mixopt.system import Array


def gradient_alignment(
    losses: Sequence[Tensor | None], objective: Tensor, parameters: Iterable[Tensor]
) -> Array:
    """Return what `Driver.record_alignment` takes; every rank has to call it.

    Args:
        losses: Mean loss of each domain in this rank's batch, before `backward`; None for a
            domain that is not in it.
        objective: The loss that is to fall, of the same parameters.
        parameters: Of the model, not of its DDP wrapper; those that need no gradient are left out.

    Returns:
        Inner product of each domain's gradient, averaged over ranks, with the objective's, over
        the mean norm of the domains' gradients; 0 for a domain that no rank has, shape (D,).
    """
    kept = [parameter for parameter in parameters if parameter.requires_grad]
    goal_P = _gradient(objective, kept)
    products, norms = [], []
    for loss in losses:
        one_P = _gradient(loss, kept)
        products.append(torch.dot(one_P, goal_P))
        norms.append(one_P.norm())
    products_D, norms_D = (torch.stack(each).double().cpu().numpy() for each in (products, norms))
    seen_D = norms_D > 0
    mean = norms_D[seen_D].mean() if seen_D.any() else 1.0
    return np.asarray(products_D / mean)


def _gradient(loss: Tensor | None, parameters: Sequence[Tensor]) -> Tensor:
    """Return the mean gradient over ranks, shape (P,)."""
    if loss is None:
        parts: Sequence[Tensor | None] = [None] * len(parameters)
    else:
        parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    flat_P = torch.cat(
        [
            (torch.zeros_like(parameter) if part is None else part).flatten().float()
            for parameter, part in zip(parameters, parts, strict=True)
        ]
    )
    if ranks() > 1:
        dist.all_reduce(flat_P)
        flat_P /= ranks()
    return flat_P
