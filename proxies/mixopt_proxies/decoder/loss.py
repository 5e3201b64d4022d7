"""Linear head and cross-entropy of a stack, without the tokens x vocabulary logits.

For a small vocabulary the logits are small and the dense form is faster. For a large one
`HeadLoss` takes a chunk of tokens at a time, and of it a tile of the vocabulary at a time, whose
logits become exponentials in one pass. Both gradients are made with the loss (the idea of Liger
Kernel, LinkedIn, BSD-2, here for stacks and on any device).

No tile waits for the whole row: its exponentials are relative to its own largest logit, and what
makes them probabilities is a number a row and tile, which scales the N x C sides of the products
instead of the N x T one. So each logit is touched once between its products.

Shapes: K members, N tokens, B sequences, V vocabulary, C width, T tokens of the vocabulary in a
tile, J tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mixopt_proxies.decoder.compiling import Compiled

LARGE_VOCABULARY = 2048
# Logits of a chunk, all of which are kept: 64 MiB in bf16 on a CPU, 512 MiB on a GPU.
CHUNK_LOGITS = {"cpu": 1 << 25, "cuda": 1 << 28}
# Logits of a tile: 4 MiB in bf16. Smaller ones fit a core's cache, but their products are slower.
# A GPU takes all of a chunk at once.
TILE_LOGITS = {"cpu": 1 << 21, "cuda": 1 << 28}
LEAST_TILE = 256

Exponentials = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class HeadPass(NamedTuple):
    """What the head adds to a training step.

    Attributes:
        loss_K: Each member's mean loss in nats.
        hidden_KNC: Gradient of what the head reads, in its precision.
        head_KVC: Gradient of the head, fp32.
    """

    loss_K: Tensor
    hidden_KNC: Tensor
    head_KVC: Tensor


def dense_losses(hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> Tensor:
    """Return each token's loss in nats, shape (K, N)."""
    logits = torch.bmm(hidden_KNC, head_KVC.mT).float()
    chosen = logits.gather(-1, targets_KN[..., None]).squeeze(-1)
    return logits.logsumexp(-1) - chosen


class HeadLoss:
    """Head and loss in chunks, for training and for evaluation."""

    def __init__(self, *, compiled: bool) -> None:
        """Compile the one pass over the logits, or not."""
        self._exponentials: Exponentials = (
            Compiled(write_exponentials, dynamic=True) if compiled else write_exponentials
        )

    @torch.no_grad()
    def training(self, hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> HeadPass:
        """Return each member's mean loss, with the gradients of the sum of these losses."""
        loss_K = torch.zeros(len(hidden_KNC), device=hidden_KNC.device)
        hidden_grad = torch.empty_like(hidden_KNC)
        head_grad = torch.empty(head_KVC.shape, device=head_KVC.device)
        share = 1.0 / targets_KN.shape[1]
        for k, part in _chunks(targets_KN, head_KVC.shape[1]):
            chunk = self._chunk(hidden_KNC[k, part], head_KVC[k], targets_KN[k, part])
            loss_K[k] += chunk.losses_N().sum() * share
            hidden_grad[k, part] = chunk.gradients(head_grad[k], share, first=part.start == 0)
        return HeadPass(loss_K, hidden_grad, head_grad)

    @torch.no_grad()
    def losses(self, hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> Tensor:
        """Return each token's loss in nats, shape (K, N)."""
        losses = torch.empty(targets_KN.shape, device=hidden_KNC.device)
        for k, part in _chunks(targets_KN, head_KVC.shape[1]):
            chunk = self._chunk(hidden_KNC[k, part], head_KVC[k], targets_KN[k, part])
            losses[k, part] = chunk.losses_N()
        return losses

    def _chunk(self, hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor) -> _Chunk:
        chunk = _Chunk(hidden_NC, head_VC, targets_N)
        chunk.fill(self._exponentials)
        return chunk


class _Chunk:
    """The logits of some tokens of one member, tile by tile, then their exponentials."""

    def __init__(self, hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor) -> None:
        self._hidden_NC, self._head_VC, self._targets_N = hidden_NC, head_VC, targets_N
        count, vocab_size = len(hidden_NC), len(head_VC)
        width = tile_width(count, vocab_size, hidden_NC.device)
        self._spans = [(i, min(i + width, vocab_size)) for i in range(0, vocab_size, width)]
        logits = hidden_NC.new_empty(count * vocab_size)
        pieces = torch.split(logits, [count * (stop - first) for first, stop in self._spans])
        self._tiles = [piece.view(count, -1) for piece in pieces]
        self._tile_N1 = (targets_N // width)[:, None]
        self._place_N1 = (targets_N % width)[:, None]
        scores = torch.empty(3, len(self._tiles), count, device=hidden_NC.device)
        self._largest_JN, self._total_JN, self._chosen_JN = scores.unbind()

    def fill(self, exponentials: Exponentials) -> None:
        """Multiply by the head, tile by tile, and turn logits into exponentials."""
        space = torch.empty_like(self._tiles[0]).view(-1)
        for j, ((first, stop), tile) in enumerate(zip(self._spans, self._tiles, strict=True)):
            logits_NT = space[: tile.numel()].view(tile.shape)
            torch.mm(self._hidden_NC, self._head_VC[first:stop].T, out=logits_NT)
            places_N1 = self._place_N1.clamp(max=stop - first - 1)
            self._chosen_JN[j] = logits_NT.gather(1, places_N1).squeeze(1)
            self._largest_JN[j], self._total_JN[j] = exponentials(logits_NT, tile)

    def losses_N(self) -> Tensor:
        """Return the losses, in nats."""
        chosen_N = self._chosen_JN.gather(0, self._tile_N1.T).squeeze(0)
        return self._log_total_N() - chosen_N

    def gradients(self, head_grad_VC: Tensor, share: float, *, first: bool) -> Tensor:
        """Return the gradient of the hidden states, and write or add that of the head.

        Args:
            head_grad_VC: Where to, fp32.
            share: What a token's loss counts.
            first: Whether to write, and not to add.
        """
        weights_JN1 = ((self._largest_JN - self._log_total_N()).exp() * share)[..., None]
        hidden_NC, targets_N = self._hidden_NC, self._targets_N
        gradient_NC = self._head_VC[targets_N].float().mul_(-share)
        for span, tile, weight_N1 in zip(self._spans, self._tiles, weights_JN1, strict=True):
            part = slice(*span)
            gradient_NC.addcmul_(tile @ self._head_VC[part], weight_N1)
            product_TC = tile.T @ (hidden_NC * weight_N1).to(tile.dtype)
            head_grad_VC[part].copy_(product_TC) if first else head_grad_VC[part].add_(product_TC)
        head_grad_VC.index_add_(0, targets_N, hidden_NC.float(), alpha=-share)
        return gradient_NC

    def _log_total_N(self) -> Tensor:
        return torch.logsumexp(self._largest_JN + self._total_JN.log(), 0)


def write_exponentials(logits_NT: Tensor, out_NT: Tensor) -> tuple[Tensor, Tensor]:
    """Write the exponentials of logits less the largest of the row.

    Returns:
        The largest logits and the sums of exponentials, each fp32 of shape (N,).
    """
    exact = logits_NT.float()
    largest = exact.amax(1, keepdim=True)
    exponentials = (exact - largest).exp()
    out_NT.copy_(exponentials)
    return largest.squeeze(1), exponentials.sum(1)


def tile_width(tokens: int, vocab_size: int, device: torch.device) -> int:
    """Return how much of the vocabulary a tile has: even tiles, of a multiple of 64."""
    most = max(LEAST_TILE, TILE_LOGITS[device.type] // tokens)
    even = math.ceil(vocab_size / math.ceil(vocab_size / most))
    return min(vocab_size, math.ceil(even / 64) * 64)


def _chunks(targets_KN: Tensor, vocab_size: int) -> list[tuple[int, slice]]:
    members, count = targets_KN.shape
    most = max(1, CHUNK_LOGITS[targets_KN.device.type] // vocab_size)
    size = math.ceil(count / max(1, math.ceil(count / most)))
    return [(k, slice(i, i + size)) for k in range(members) for i in range(0, count, max(1, size))]
