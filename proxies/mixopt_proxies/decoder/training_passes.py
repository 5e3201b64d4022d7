"""The two passes through a stack: training losses with gradients, and held-out losses.

Shapes: K members, B sequences, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mixopt_proxies.decoder.decoder_stack import Decoder, StackedWeights, StackOrigin
from mixopt_proxies.decoder.devices import Compiled
from mixopt_proxies.decoder.experts import Routed, auxiliary_loss
from mixopt_proxies.decoder.size_options import DecoderSize

LARGE_VOCABULARY = 2048  # ids from which the head is computed in chunks
# Logits of a chunk, which stay in memory: 64 MiB in bf16 on a CPU, 512 MiB on a GPU.
CHUNK_LOGITS = {"cpu": 1 << 25, "cuda": 1 << 28}
# Logits of a tile: 4 MiB in bf16. Smaller tiles fit a core's cache, but their products are slower.
# On a GPU a tile is a whole chunk.
TILE_LOGITS = {"cpu": 1 << 21, "cuda": 1 << 28}
MIN_TILE = 256  # ids

Leaves = dict[str, Tensor]
Exponentials = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Passes:
    """The computations of a training step and an evaluation, compiled or eager.

    With a small vocabulary the compiled code includes head and loss; with a large vocabulary only
    the trunk is compiled, and the head is computed in chunks.
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
        self.size = size
        self.vocab_size = vocab_size
        self.device = device
        self.dtype = dtype
        self.chunked = vocab_size >= LARGE_VOCABULARY
        self.compiled = compiled
        self._decoder = Decoder(size, device=device, dtype=dtype, document_ends=document_ends)
        # Returns losses by sequence, or hidden states if the vocabulary is large; and the routing.
        self.run: Callable[[Leaves, Tensor], tuple[Tensor, Routed | None]] = (
            self._decoder.hidden if self.chunked else self._dense
        )
        self._exponentials: Exponentials = write_exponentials
        if compiled:
            self.run = Compiled(self.run)
            self._exponentials = Compiled(write_exponentials, dynamic=True)

    def weights(self, seeds: Sequence[int], origin: StackOrigin | None = None) -> StackedWeights:
        """Return the weights of a stack for these passes, with one member per seed."""
        return StackedWeights(
            self.size, self.vocab_size, seeds, device=self.device, dtype=self.dtype, origin=origin
        )

    def gradients(self, leaves: Leaves, tokens_KBW: Tensor) -> tuple[Tensor, Leaves, Routed | None]:
        """Return mean losses, shape (K,), the gradients of all leaves, and the routing."""
        output, routed = self.run(leaves, tokens_KBW)
        if self.chunked:
            loss_K, upstream, head = chunked_training(
                output, leaves["head"], targets_of(tokens_KBW), self._exponentials
            )
            trunk = {name: leaf for name, leaf in leaves.items() if name != "head"}
            gradients = self._backward(output, upstream, trunk, routed) | {"head": head}
        else:
            loss_K = output.mean(1)
            gradients = self._backward(loss_K.sum(), None, leaves, routed)
        if routed is not None:
            routed = routed.detach()
        return loss_K.detach(), gradients, routed

    def evaluated(self, leaves: Leaves, tokens_KBW: Tensor) -> tuple[Tensor, Routed | None]:
        """Return each sequence's mean loss in nats, shape (K, B), and the routing."""
        # Compiled code depends on the grad mode: keep the mode of training to compile only once.
        with torch.set_grad_enabled(self.compiled):
            output, routed = self.run(leaves, tokens_KBW)
        output = output.detach()
        if routed is not None:
            routed = routed.detach()
        if self.chunked:
            targets_KN = targets_of(tokens_KBW)
            output = chunked_losses(output, leaves["head"], targets_KN, self._exponentials)
            output = output.view(tokens_KBW[..., 1:].shape).mean(-1)
        return output, routed

    def token_losses(self, leaves: Leaves, tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
        """Return the losses of chosen tokens in nats, shape (K, P), without gradients."""
        with torch.no_grad():
            hidden, _ = self._decoder.hidden(leaves, tokens_KBW)
            hidden_KPC = hidden[:, place_P]
            targets_KP = targets_of(tokens_KBW)[:, place_P]
            if self.chunked:
                return chunked_losses(hidden_KPC, leaves["head"], targets_KP, write_exponentials)
            return dense_losses(hidden_KPC, leaves["head"], targets_KP)

    def _dense(self, leaves: Leaves, tokens_KBW: Tensor) -> tuple[Tensor, Routed | None]:
        hidden, routed = self._decoder.hidden(leaves, tokens_KBW)
        losses_KN = dense_losses(hidden, leaves["head"], targets_of(tokens_KBW))
        return losses_KN.view(tokens_KBW[..., 1:].shape).mean(-1), routed

    def _backward(
        self, output: Tensor, upstream: Tensor | None, leaves: Leaves, routed: Routed | None
    ) -> Leaves:
        """Return the gradients of an output plus the loss terms of experts."""
        outputs = [output]
        above = [upstream]
        if routed is not None:
            outputs.append(auxiliary_loss(routed, self.size.step_tokens, self.size).sum())
            above.append(None)
        gradients = torch.autograd.grad(outputs, list(leaves.values()), above)
        return dict(zip(leaves, gradients, strict=True))


def targets_of(tokens_KBW: Tensor) -> Tensor:
    """Return the tokens to predict, shape (K, B * T)."""
    return tokens_KBW[..., 1:].flatten(1)


def dense_losses(hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor) -> Tensor:
    """Return each token's loss in nats, shape (K, N)."""
    logits = torch.bmm(hidden_KNC, head_KVC.mT).float()
    chosen = logits.gather(-1, targets_KN[..., None]).squeeze(-1)
    return logits.logsumexp(-1) - chosen


@torch.no_grad()
def chunked_losses(
    hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor, exponentials: Exponentials
) -> Tensor:
    """Return each token's loss in nats, shape (K, N), in chunks."""
    losses = torch.empty(targets_KN.shape, device=hidden_KNC.device)
    for k, part, chunk in _chunks(hidden_KNC, head_KVC, targets_KN, exponentials):
        losses[k, part] = chunk.losses_N
    return losses


@torch.no_grad()
def chunked_training(
    hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor, exponentials: Exponentials
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each member's mean loss, and gradients of hidden states and head, in chunks."""
    loss_K = torch.zeros(len(hidden_KNC), device=hidden_KNC.device)
    hidden_grad = torch.empty_like(hidden_KNC)
    head_grad = torch.empty(head_KVC.shape, device=head_KVC.device)
    share = 1.0 / targets_KN.shape[1]
    for k, part, chunk in _chunks(hidden_KNC, head_KVC, targets_KN, exponentials):
        loss_K[k] += chunk.losses_N.sum() * share
        hidden_grad[k, part] = chunk.gradients(head_grad[k], share, first=part.start == 0)
    return loss_K, hidden_grad, head_grad


def _chunks(
    hidden_KNC: Tensor, head_KVC: Tensor, targets_KN: Tensor, exponentials: Exponentials
) -> Iterator[tuple[int, slice, _Chunk]]:
    members, count = targets_KN.shape
    max_tokens = max(1, CHUNK_LOGITS[targets_KN.device.type] // head_KVC.shape[1])
    size = math.ceil(count / math.ceil(count / max_tokens))
    for k in range(members):
        for first in range(0, count, size):
            part = slice(first, first + size)
            chunk = _Chunk(hidden_KNC[k, part], head_KVC[k], targets_KN[k, part], exponentials)
            yield k, part, chunk


class _Chunk:
    """Tiles of the exponentials of one member's logits, for some of its tokens."""

    def __init__(
        self, hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor, exponentials: Exponentials
    ) -> None:
        """Multiply by the head, tile by tile, and exponentiate the logits."""
        self._hidden_NC = hidden_NC
        self._head_VC = head_VC
        self._targets_N = targets_N
        count = len(hidden_NC)
        vocab_size = len(head_VC)
        width = tile_width(count, vocab_size, hidden_NC.device)
        self._parts = [slice(i, min(i + width, vocab_size)) for i in range(0, vocab_size, width)]
        logits = hidden_NC.new_empty(count * vocab_size)
        pieces = torch.split(logits, [count * (part.stop - part.start) for part in self._parts])
        self._tiles = [piece.view(count, -1) for piece in pieces]
        scores = torch.empty(3, len(self._tiles), count, device=hidden_NC.device)
        self._largest_JN, total_JN, chosen_JN = scores.unbind()
        place_N1 = (targets_N % width)[:, None]
        space = torch.empty_like(self._tiles[0]).view(-1)
        for j, (part, tile) in enumerate(zip(self._parts, self._tiles, strict=True)):
            logits_NT = space[: tile.numel()].view(tile.shape)
            torch.mm(hidden_NC, head_VC[part].T, out=logits_NT)
            inside_N1 = place_N1.clamp(max=tile.shape[1] - 1)
            chosen_JN[j] = logits_NT.gather(1, inside_N1).squeeze(1)
            self._largest_JN[j], total_JN[j] = exponentials(logits_NT, tile)
        self._log_total_N = torch.logsumexp(self._largest_JN + total_JN.log(), 0)
        tile_N = targets_N // width
        self.losses_N = self._log_total_N - chosen_JN.gather(0, tile_N[None])[0]

    def gradients(self, head_grad_VC: Tensor, share: float, *, first: bool) -> Tensor:
        """Return the gradient of the hidden states; write (`first`) or add that of the head."""
        weights_JN1 = ((self._largest_JN - self._log_total_N).exp() * share)[..., None]
        hidden_NC = self._hidden_NC
        gradient_NC = self._head_VC[self._targets_N].float().mul_(-share)
        for part, tile, weight_N1 in zip(self._parts, self._tiles, weights_JN1, strict=True):
            gradient_NC.addcmul_(tile @ self._head_VC[part], weight_N1)
            product_TC = tile.T @ (hidden_NC * weight_N1).to(tile.dtype)
            if first:
                head_grad_VC[part].copy_(product_TC)
            else:
                head_grad_VC[part].add_(product_TC)
        head_grad_VC.index_add_(0, self._targets_N, hidden_NC.float(), alpha=-share)
        return gradient_NC


def write_exponentials(logits_NT: Tensor, out_NT: Tensor) -> tuple[Tensor, Tensor]:
    """Write exp(logits - row maximum); return row maxima and sums, shape (N,) each."""
    exact = logits_NT.float()
    largest = exact.amax(1, keepdim=True)
    exponentials = (exact - largest).exp()
    out_NT.copy_(exponentials)
    return largest.squeeze(1), exponentials.sum(1)


def tile_width(tokens: int, vocab_size: int, device: torch.device) -> int:
    """Return the ids per tile: equal tiles, a multiple of 64."""
    max_width = max(MIN_TILE, TILE_LOGITS[device.type] // tokens)
    even = math.ceil(vocab_size / math.ceil(vocab_size / max_width))
    return min(vocab_size, math.ceil(even / 64) * 64)
