"""Each token's loss, from the outputs of a model.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

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
    logits_BTV = output if isinstance(output, Tensor) else output.logits
    rows = max(1, _CHUNK_LOGITS // logits_BTV[0].numel())
    parts = zip(torch.split(logits_BTV, rows), torch.split(targets_BT, rows), strict=True)
    if not logits_BTV.requires_grad or rows >= len(targets_BT):
        return torch.cat([_cross_entropy(*part) for part in parts])
    return torch.cat([checkpoint(_cross_entropy, *part, use_reentrant=False) for part in parts])


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    flat = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    return flat.view(targets.shape)
