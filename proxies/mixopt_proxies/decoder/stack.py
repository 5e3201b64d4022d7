"""The decoder, for a stack of members at once: RMSNorm, rotary attention, SwiGLU (Llama's).

Written as products over a leading member axis: `torch.func.vmap` has no batching rule for
fused attention on a CPU and is slower everywhere else. One member is the same path. A size with
experts has them in place of the feed-forward, or beside one, which is then the shared experts.

The residual stream and the norms are fp32, the products run in the compute precision.

Shapes: K members, B sequences, T tokens, W = T + 1, V vocabulary, C width, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mixopt_proxies.decoder.attention import Attention, RowDocuments
from mixopt_proxies.decoder.expert_choice import Choice, Routed, added_up
from mixopt_proxies.decoder.expert_layer import check_grouped_products, route
from mixopt_proxies.decoder.named_sizes import DecoderSize

EPSILON = 1e-6


class Decoder:
    """What is computed with the weights of a stack; it holds no weights itself."""

    def __init__(
        self,
        size: DecoderSize,
        *,
        device: torch.device,
        dtype: torch.dtype,
        document_ends: Sequence[int] = (),
    ) -> None:
        """Prepare what does not depend on weights.

        Args:
            size: Of each member.
            device: Where they are.
            dtype: What products are computed in.
            document_ends: The ids that end a document, where documents of a row do not see each
                other; else none.
        """
        if size.experts is not None:
            check_grouped_products()
        self.size = size
        self.dtype = dtype
        self._document_ends = tuple(document_ends)
        self._attention = Attention(size, device=device, dtype=dtype)

    def hidden(
        self, leaves: Mapping[str, Tensor], tokens_KBW: Tensor
    ) -> tuple[Tensor, Routed | None]:
        """Return what the head reads for all tokens but the last, shape (K, B * T, C).

        And what the routers chose, where there are any. Sequences may be shorter than the size's.
        """
        tokens_KBT = tokens_KBW[..., :-1]
        stream = embed(leaves["embedding"], tokens_KBT.flatten(1))
        documents, sums = self._documents(tokens_KBT.flatten(0, 1)), []
        for layer in range(self.size.layers):
            stream, choice = self.block(leaves, f"{layer}.", stream, tokens_KBT.shape[2], documents)
            if choice is not None:
                sums.append(added_up(choice, tokens_KBW.shape[1]))
        routed = Routed(*(torch.stack(part) for part in zip(*sums, strict=True))) if sums else None
        return self.norm(leaves["norm"], stream), routed

    def block(
        self,
        leaves: Mapping[str, Tensor],
        prefix: str,
        stream: Tensor,
        length: int,
        documents: RowDocuments | None = None,
    ) -> tuple[Tensor, Choice | None]:
        """Return the residual stream after one block, whose weights have names with `prefix`.

        It is of sequences of `length` tokens, one after the other, with such documents.

        And what its router chose, if it has one.
        """
        stream = stream + self._attend(leaves, prefix, stream, length, documents)
        normed = self.norm(leaves[f"{prefix}ff_norm"], stream)
        if f"{prefix}gate_up" in leaves:
            stream = stream + self._feed_forward(leaves, prefix, normed)
        if self.size.experts is None:
            return stream, None
        said, choice = route(leaves, prefix, normed, self.size.experts.top_k)
        return stream + said, choice

    def norm(self, weight_KC: Tensor, stream: Tensor) -> Tensor:
        """Scale each token's channels to a mean square of 1, then by the weights."""
        scale = torch.rsqrt(stream.square().mean(-1, keepdim=True) + EPSILON)
        return (stream * scale * weight_KC[:, None]).to(self.dtype)

    def _documents(self, tokens_NT: Tensor) -> RowDocuments | None:
        ends = self._document_ends
        return RowDocuments.ended(tokens_NT, ends) if ends else None

    def _attend(
        self,
        leaves: Mapping[str, Tensor],
        prefix: str,
        stream: Tensor,
        length: int,
        documents: RowDocuments | None,
    ) -> Tensor:
        normed = self.norm(leaves[f"{prefix}attention_norm"], stream)
        qkv = torch.bmm(normed, leaves[f"{prefix}qkv"])
        mixed = self._attention(qkv, length, documents)
        return torch.bmm(mixed, leaves[f"{prefix}out"])

    def _feed_forward(self, leaves: Mapping[str, Tensor], prefix: str, normed: Tensor) -> Tensor:
        gate, up = torch.bmm(normed, leaves[f"{prefix}gate_up"]).chunk(2, dim=-1)
        return torch.bmm(functional.silu(gate) * up, leaves[f"{prefix}down"])


def embed(table_KVC: Tensor, tokens_KN: Tensor) -> Tensor:
    """Look each member's tokens up in its own table, shape (K, N, C)."""
    members, vocab_size, width = table_KVC.shape
    offsets = torch.arange(members, device=tokens_KN.device)[:, None] * vocab_size
    return functional.embedding(tokens_KN + offsets, table_KVC.view(-1, width))
