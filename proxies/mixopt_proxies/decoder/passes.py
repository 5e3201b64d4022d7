"""The two passes through a stack: training losses with gradients, and held-out losses.

Shapes: K members, B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mixopt_proxies.decoder.compiling import Compiled
from mixopt_proxies.decoder.expert_choice import Routed, own_loss
from mixopt_proxies.decoder.loss import LARGE_VOCABULARY, HeadLoss, dense_losses
from mixopt_proxies.decoder.named_sizes import DecoderSize
from mixopt_proxies.decoder.stack import Decoder


class TrainingPass(NamedTuple):
    """What a training step computes.

    Attributes:
        loss_K: Each member's mean cross-entropy, nats per token.
        gradients: Of all leaves, of the cross-entropy and what experts add to it.
        routed: What the routers chose; None without experts.
    """

    loss_K: Tensor
    gradients: dict[str, Tensor]
    routed: Routed | None


class Passes:
    """What a training step and an evaluation compute, compiled or eager.

    With a small vocabulary the head and the loss are part of what is compiled; with a large
    one the trunk is, and the head goes chunk by chunk.
    """

    def __init__(
        self,
        size: DecoderSize,
        vocab_size: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        compiled: bool,
        document_ends: Sequence[int] = (),
    ) -> None:
        self.size, self.device, self.dtype = size, device, dtype
        self.chunked = vocab_size >= LARGE_VOCABULARY
        self.compiled = compiled
        self._decoder = Decoder(size, device=device, dtype=dtype, document_ends=document_ends)
        computation = self._decoder.hidden if self.chunked else self._dense
        self._run: Callable[[dict[str, Tensor], Tensor], tuple[Tensor, Routed | None]] = (
            Compiled(computation) if compiled else computation
        )
        self._head = HeadLoss(compiled=compiled)

    def gradients(self, leaves: dict[str, Tensor], tokens_KBW: Tensor) -> TrainingPass:
        """Return each member's mean loss, shape (K,), and the gradients of all leaves.

        The losses are added up, not averaged: a member's gradient is that of its own loss.
        """
        output, routed = self._run(leaves, tokens_KBW)
        if self.chunked:
            head = self._head.training(output, leaves["head"], targets_of(tokens_KBW))
            loss_K = head.loss_K
            trunk = {name: leaf for name, leaf in leaves.items() if name != "head"}
            gradients = self._differentiated(output, head.hidden_KNC, trunk, routed)
            gradients["head"] = head.head_KVC
        else:
            loss_K = output.mean(1)
            gradients = self._differentiated(loss_K.sum(), None, leaves, routed)
        return TrainingPass(loss_K.detach(), gradients, routed.detach() if routed else None)

    def sequence_gradients(
        self, leaves: dict[str, Tensor], tokens_KBW: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of each sequence, shape (K, B), and the gradients of all leaves.

        For loops that look at losses by sequence, with a small vocabulary.
        """
        assert not self.chunked, "a large vocabulary's losses are made chunk by chunk"
        losses_KB, routed = self._run(leaves, tokens_KBW)
        total = losses_KB.mean(1).sum()
        return losses_KB.detach(), self._differentiated(total, None, leaves, routed)

    def sequence_losses(self, leaves: dict[str, Tensor], tokens_KBW: Tensor) -> Tensor:
        """Return the mean loss of each sequence in nats, shape (K, B), without gradients."""
        return self.evaluated(leaves, tokens_KBW)[0]

    def evaluated(
        self, leaves: dict[str, Tensor], tokens_KBW: Tensor
    ) -> tuple[Tensor, Routed | None]:
        """Return the mean losses as `sequence_losses` does, and what the routers chose."""
        # Compiled code is kept for one grad mode: leaving it on makes one compilation serve.
        with torch.set_grad_enabled(self.compiled):
            output, routed = self._run(leaves, tokens_KBW)
        output, routed = output.detach(), routed.detach() if routed else None
        if not self.chunked:
            return output, routed
        losses_KN = self._head.losses(output, leaves["head"], targets_of(tokens_KBW))
        return losses_KN.view(tokens_KBW[..., 1:].shape).mean(-1), routed

    def token_losses(
        self, leaves: dict[str, Tensor], tokens_KBW: Tensor, place_P: Tensor
    ) -> Tensor:
        """Return the losses of chosen tokens in nats, shape (K, P), without gradients.

        Never compiled, for sequences come in many lengths; the head reads what is chosen alone.

        Args:
            leaves: The weights.
            tokens_KBW: Sequences of any length up to the size's.
            place_P: Which of the B * T predicted tokens.
        """
        with torch.no_grad():
            hidden, _ = self._decoder.hidden(leaves, tokens_KBW)
            targets_KP = targets_of(tokens_KBW)[:, place_P]
            losses = HeadLoss(compiled=False).losses if self.chunked else dense_losses
            return losses(hidden[:, place_P], leaves["head"], targets_KP)

    def _dense(self, leaves: dict[str, Tensor], tokens_KBW: Tensor) -> tuple[Tensor, Routed | None]:
        hidden, routed = self._decoder.hidden(leaves, tokens_KBW)
        losses_KN = dense_losses(hidden, leaves["head"], targets_of(tokens_KBW))
        return losses_KN.view(tokens_KBW[..., 1:].shape).mean(-1), routed

    def _differentiated(
        self,
        output: Tensor,
        upstream: Tensor | None,
        leaves: dict[str, Tensor],
        routed: Routed | None,
    ) -> dict[str, Tensor]:
        """Return the gradients of an output, and of what experts add to the losses.

        Args:
            output: What was computed; one number if `upstream` is None.
            upstream: Gradient of the losses by `output`.
            leaves: Of which those that are trained get a gradient.
            routed: What the routers chose.
        """
        outputs, above = [output], [upstream]
        if routed is not None and self.size.experts is not None:
            outputs.append(own_loss(routed, self.size.step_tokens, self.size.experts).sum())
            above.append(None)
        trained = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        gradients = torch.autograd.grad(outputs, list(trained.values()), above)
        return dict(zip(trained, gradients, strict=True))


def targets_of(tokens_KBW: Tensor) -> Tensor:
    """Return the tokens to predict, shape (K, B * T)."""
    return tokens_KBW[..., 1:].flatten(1)
