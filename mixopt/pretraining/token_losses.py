"""Each token's loss, from the outputs of a model.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_CHUNK_LOGITS = 1 << 24


def token_losses(output: Any, targets_BT: Tensor) -> Tensor:
    """Return the cross-entropy of each token in nats, float32, shape (B, T).

    Logits are made float32 some rows at a time, and again in the backward pass, so that they never
    exist in float32 as a whole.

    Args:
        output: Logits of shape (B, T, V), or an object that has them as `logits`.
        targets_BT: The tokens to predict.
    """
    return _by_rows(_cross_entropy, output, targets_BT)


def losses_and_totals(output: Any, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's cross-entropy as `token_losses` does, and the logarithm of its total.

    The total is what the exponentials of a token's logits add up to. Its logarithm is the loss and
    the target's logit together, so that nothing of the size of the logits is computed twice.
    """
    both_BT2 = _by_rows(_with_total, output, targets_BT)
    return both_BT2[..., 0], both_BT2[..., 1]


def _by_rows(
    compute: Callable[[Tensor, Tensor], Tensor], output: Any, targets_BT: Tensor
) -> Tensor:
    logits_BTV = output if isinstance(output, Tensor) else output.logits
    rows = max(1, _CHUNK_LOGITS // logits_BTV[0].numel())
    parts = zip(torch.split(logits_BTV, rows), torch.split(targets_BT, rows), strict=True)
    if not logits_BTV.requires_grad or rows >= len(targets_BT):
        return torch.cat([compute(*part) for part in parts])
    return torch.cat([checkpoint(compute, *part, use_reentrant=False) for part in parts])


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    flat = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    return flat.view(targets.shape)


def _with_total(logits: Tensor, targets: Tensor) -> Tensor:
    losses = _cross_entropy(logits, targets)
    chosen = logits.gather(-1, targets[..., None]).squeeze(-1).float()
    return torch.stack([losses, losses + chosen], -1)
