"""Linear head and cross-entropy of a stack, without the tokens x vocabulary logits.

For a small vocabulary the logits are small and the dense form is faster. For a large one
`ChunkedLoss` takes a chunk of tokens at a time: logits, softmax, and both gradients at once,
so that only one chunk's logits ever exist (the idea of Liger Kernel, LinkedIn, BSD-2,
here for stacks and on any device).

Shapes: K members, N tokens, B sequences, V vocabulary, C width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

LARGE_VOCABULARY = 2048
CHUNK_LOGITS = 1 << 24


def dense_losses(hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> Tensor:
    """Return each token's loss in nats, shape (K, N)."""
    logits = torch.bmm(hidden_KNC, head_KVC.mT).float()
    chosen = logits.gather(-1, targets_KN[..., None]).squeeze(-1)
    return logits.logsumexp(-1) - chosen


def chunked_mean_loss(hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> Tensor:
    """Return each member's mean loss in nats, shape (K,), with gradients of both inputs."""
    loss: Tensor = ChunkedLoss.apply(hidden_KNC, head_KVC, targets_KN)
    return loss


def chunked_losses(hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> Tensor:
    """Return each token's loss in nats, shape (K, N), without gradients."""
    losses = torch.empty(targets_KN.shape, device=hidden_KNC.device)
    with torch.no_grad():
        for k, part in _chunks(targets_KN, head_KVC.shape[1]):
            logits = (hidden_KNC[k, part] @ head_KVC[k].T).float()
            losses[k, part] = functional.cross_entropy(
                logits, targets_KN[k, part], reduction="none"
            )
    return losses


class ChunkedLoss(Function):
    """Mean cross-entropy of each member; the gradients are made with the loss."""

    @staticmethod
    def forward(ctx: Any, hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> Tensor:
        """Return the mean losses, shape (K,)."""
        loss_K = torch.zeros(len(hidden_KNC), device=hidden_KNC.device)
        hidden_grad = torch.empty_like(hidden_KNC)
        head_grad = torch.zeros(head_KVC.shape, device=head_KVC.device)
        share = 1.0 / targets_KN.shape[1]
        for k, part in _chunks(targets_KN, head_KVC.shape[1]):
            hidden, head = hidden_KNC[k, part], head_KVC[k]
            losses, logits_grad = _loss_and_gradient(hidden @ head.T, targets_KN[k, part])
            loss_K[k] += losses.sum() * share
            hidden_grad[k, part] = (logits_grad @ head) * share
            head_grad[k].add_(logits_grad.T @ hidden, alpha=share)
        ctx.save_for_backward(hidden_grad, head_grad)
        return loss_K

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients that `forward` made, times what comes from above."""
        hidden_grad, head_grad = ctx.saved_tensors
        scale = upstream[0][:, None, None]
        return hidden_grad * scale.to(hidden_grad.dtype), head_grad * scale, None


def _loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses in fp32, and softmax minus one-hot in the precision of the logits.

    The softmax is the one pass over the logits that costs; their log-sum-exp is the largest
    logit less the logarithm of its probability. In bf16 that probability is rounded, which
    moves a token's loss by up to 0.004, either way.
    """
    places = targets[:, None]
    chosen = logits.gather(1, places).float()
    gradient = logits.softmax(1)
    largest = gradient.amax(1, keepdim=True).float()
    log_total = logits.amax(1, keepdim=True).float() - largest.log()
    gradient.scatter_add_(1, places, gradient.new_full(places.shape, -1.0))
    return (log_total - chosen).squeeze(1), gradient


def _chunks(targets_KN: Tensor, vocab_size: int) -> list[tuple[int, slice]]:
    members, count = targets_KN.shape
    size = max(1, min(count, CHUNK_LOGITS // vocab_size))
    return [(k, slice(i, i + size)) for k in range(members) for i in range(0, count, size)]
