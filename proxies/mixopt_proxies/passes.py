"""The two passes through a stack: training losses with gradients, and held-out losses.

Shapes: K members, B sequences, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixopt_proxies.compiling import Compiled, Computation
from mixopt_proxies.loss import (
    LARGE_VOCABULARY,
    chunked_losses,
    chunked_mean_loss,
    dense_losses,
)
from mixopt_proxies.sizes import Size
from mixopt_proxies.stack import Decoder


class Passes:
    """What a training step and an evaluation compute, compiled or eager.

    With a small vocabulary the head and the loss are part of what is compiled; with a large
    one the trunk is, and the head goes chunk by chunk.
    """

    def __init__(
        self,
        size: Size,
        vocab_size: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        compiled: bool,
    ) -> None:
        self.size = size
        self.chunked = vocab_size >= LARGE_VOCABULARY
        self._compiled = compiled
        self._decoder = Decoder(size, device=device, dtype=dtype)
        computation = self._decoder.hidden if self.chunked else self._dense
        self._run: Computation = Compiled(computation) if compiled else computation

    def gradients(
        self, leaves: dict[str, Tensor], tokens_KBW: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return each member's mean loss, shape (K,), and the gradients of all leaves.

        The losses are added up, not averaged: a member's gradient is that of its own loss.
        """
        if self.chunked:
            hidden = self._run(leaves, tokens_KBW)
            loss_K = chunked_mean_loss(hidden, leaves["head"], targets_of(tokens_KBW))
        else:
            loss_K = self._run(leaves, tokens_KBW).mean(1)
        gradients = torch.autograd.grad(loss_K.sum(), list(leaves.values()))
        return loss_K.detach(), dict(zip(leaves, gradients, strict=True))

    def sequence_gradients(
        self, leaves: dict[str, Tensor], tokens_KBW: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of each sequence, shape (K, B), and the gradients of all leaves.

        For loops that look at losses by sequence, with a small vocabulary.
        """
        assert not self.chunked, "a large vocabulary's losses are made chunk by chunk"
        losses_KB = self._run(leaves, tokens_KBW)
        gradients = torch.autograd.grad(losses_KB.mean(1).sum(), list(leaves.values()))
        return losses_KB.detach(), dict(zip(leaves, gradients, strict=True))

    def sequence_losses(self, leaves: dict[str, Tensor], tokens_KBW: Tensor) -> Tensor:
        """Return the mean loss of each sequence in nats, shape (K, B), without gradients."""
        # Compiled code is kept for one grad mode: leaving it on makes one compilation serve.
        with torch.set_grad_enabled(self._compiled):
            output = self._run(leaves, tokens_KBW).detach()
        if not self.chunked:
            return output
        losses_KN = chunked_losses(output, leaves["head"].detach(), targets_of(tokens_KBW))
        return losses_KN.view(tokens_KBW[..., 1:].shape).mean(-1)

    def _dense(self, leaves: dict[str, Tensor], tokens_KBW: Tensor) -> Tensor:
        hidden = self._decoder.hidden(leaves, tokens_KBW)
        losses_KN = dense_losses(hidden, leaves["head"], targets_of(tokens_KBW))
        return losses_KN.view(tokens_KBW[..., 1:].shape).mean(-1)


def targets_of(tokens_KBW: Tensor) -> Tensor:
    """Return the tokens to predict, shape (K, B * T)."""
    return tokens_KBW[..., 1:].flatten(1)
