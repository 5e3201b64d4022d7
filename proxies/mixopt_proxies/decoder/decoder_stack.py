"""The decoder for a stack of members: RMSNorm, rotary attention and SwiGLU, as in Llama.

All products have a leading member axis, also for one member: `torch.func.vmap` has no batching rule
for fused attention on a CPU and is slower everywhere else. A size with experts has them in place of
the feed-forward.

The residual stream and the norms are fp32, the products run in the compute precision.

Shapes: K members, B sequences, T tokens, W = T + 1, V vocabulary, C width, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mixopt.pretraining import document_positions
from mixopt_proxies.decoder.experts import (
    Choice,
    Routed,
    check_grouped_products,
    route,
    summed_by_sequence,
)
from mixopt_proxies.decoder.size_options import DecoderSize

EPSILON = 1e-6  # of the norms
MAX_EXPLICIT = 256  # tokens of a sequence whose attention is computed by batched products
QUERY_BLOCK = 128  # tokens
ROTARY_BASE = 10_000.0
Kind = Literal["matrix", "embedding", "router", "norm"]


class RowDocuments(NamedTuple):
    """The documents of sequences: positions of tokens within them, and the attention mask."""

    place_NT: Tensor
    hidden_NTT: Tensor

    @classmethod
    def placed(cls, place_NT: Tensor) -> RowDocuments:
        """Return the documents of token positions; each document begins at 0."""
        number_NT = (place_NT == 0).cumsum(1)
        other_NTT = number_NT[:, :, None] != number_NT[:, None]
        future_TT = torch.ones_like(other_NTT[0]).triu(1)
        return cls(place_NT, other_NTT | future_TT)


class Decoder:
    """The computation of a stack; it holds no weights."""

    def __init__(
        self,
        size: DecoderSize,
        *,
        device: torch.device,
        dtype: torch.dtype,
        document_ends: Sequence[int] = (),
    ) -> None:
        """Prepare the tables and masks, which do not depend on weights."""
        if size.experts:
            check_grouped_products()
        self.size = size
        self.dtype = dtype
        self._document_ends = document_ends
        length = size.sequence_length
        # Here batched products are faster than fused attention.
        on_cpu = device.type == "cpu" and dtype == torch.bfloat16
        self._is_explicit = on_cpu and length <= MAX_EXPLICIT
        half = size.head_width // 2
        frequencies = ROTARY_BASE ** (-torch.arange(half, device=device) / half)
        angles = torch.arange(length, device=device)[:, None] * frequencies
        cosine = angles.cos()
        sine = angles.sin()
        shape = (length, 1, 2, half)
        self._cosine = torch.stack([cosine, cosine], 1).view(shape)
        self._signed_sine = torch.stack([-sine, sine], 1).view(shape)
        self._future_TT = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)

    def hidden(
        self, leaves: Mapping[str, Tensor], tokens_KBW: Tensor
    ) -> tuple[Tensor, Routed | None]:
        """Return the head's input for all tokens except the last, shape (K, B * T, C)."""
        tokens_KBT = tokens_KBW[..., :-1]
        stream = embed(leaves["embedding"], tokens_KBT.flatten(1))
        documents = None
        if self._document_ends:
            place_NT = document_positions(tokens_KBT.flatten(0, 1), self._document_ends)
            documents = RowDocuments.placed(place_NT)
        sums = []
        for layer in range(self.size.layers):
            stream, choice = self.block(leaves, f"{layer}.", stream, tokens_KBT.shape[2], documents)
            if choice is not None:
                sums.append(summed_by_sequence(choice, tokens_KBW.shape[1]))
        routed = Routed.stacked(sums) if sums else None
        return self.norm(leaves["norm"], stream), routed

    def block(
        self,
        leaves: Mapping[str, Tensor],
        prefix: str,
        stream: Tensor,
        length: int,
        documents: RowDocuments | None = None,
    ) -> tuple[Tensor, Choice | None]:
        """Return the residual stream after one block; its weights' names start with `prefix`."""
        normed = self.norm(leaves[f"{prefix}attention_norm"], stream)
        mixed = self._attention(torch.bmm(normed, leaves[f"{prefix}qkv"]), length, documents)
        stream = stream + torch.bmm(mixed, leaves[f"{prefix}out"])
        normed = self.norm(leaves[f"{prefix}ff_norm"], stream)
        if self.size.experts:
            output, choice = route(leaves, prefix, normed, self.size.top_k)
            return stream + output, choice
        gate, up = torch.bmm(normed, leaves[f"{prefix}gate_up"]).chunk(2, dim=-1)
        return stream + torch.bmm(functional.silu(gate) * up, leaves[f"{prefix}down"]), None

    def norm(self, weight_KC: Tensor, stream: Tensor) -> Tensor:
        """Scale each token's channels to a mean square of 1, then multiply by the weights."""
        scale = torch.rsqrt(stream.square().mean(-1, keepdim=True) + EPSILON)
        return (stream * scale * weight_KC[:, None]).to(self.dtype)

    def _attention(self, qkv: Tensor, length: int, documents: RowDocuments | None) -> Tensor:
        """Attend within each sequence, or within each of its documents."""
        size = self.size
        members, rows, _ = qkv.shape
        shape = (members * rows // length, length, 3, size.heads, 2, size.head_width // 2)
        parts = qkv.view(shape)
        query = _heads(self._rotate(parts[:, :, 0], documents)).to(qkv.dtype)
        key = _heads(self._rotate(parts[:, :, 1], documents)).to(qkv.dtype)
        value = _heads(parts[:, :, 2])
        if self._is_explicit:
            hidden = self._future_TT if documents is None else documents.hidden_NTT
            mixed = explicit_attention(query, key, value, hidden)
        else:
            visible = None if documents is None else ~documents.hidden_NTT[:, None]
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=visible, is_causal=visible is None
            )
        return mixed.transpose(1, 2).reshape(members, rows, size.width)

    def _rotate(self, heads: Tensor, documents: RowDocuments | None) -> Tensor:
        place = slice(heads.shape[1]) if documents is None else documents.place_NT
        return heads * self._cosine[place] + heads.flip(-2) * self._signed_sine[place]


def embed(table_KVC: Tensor, tokens_KN: Tensor) -> Tensor:
    """Look up each member's tokens in its own table, shape (K, N, C)."""
    members, vocab_size, width = table_KVC.shape
    offsets = torch.arange(members, device=tokens_KN.device)[:, None] * vocab_size
    return functional.embedding(tokens_KN + offsets, table_KVC.view(-1, width))


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    """Compute attention by batched products, in blocks of queries."""
    sequences, heads, length, width = query.shape
    query = query.reshape(-1, length, width) * width**-0.5
    key = key.reshape(-1, length, width)
    value = value.reshape(-1, length, width)
    blocks = []
    for first in range(0, length, QUERY_BLOCK):
        stop = min(first + QUERY_BLOCK, length)
        scores = torch.bmm(query[:, first:stop], key[:, :stop].mT)
        by_head = scores.view(sequences, heads, *scores.shape[1:])
        part = hidden[..., first:stop, :stop].unsqueeze(-3)
        scores = by_head.masked_fill(part, float("-inf")).view(scores.shape)
        blocks.append(torch.bmm(scores.softmax(-1), value[:, :stop]))
    return torch.cat(blocks, 1).view(sequences, heads, length, width)


def _heads(rows: Tensor) -> Tensor:
    """Reshape (KB, T, H, 2, C / 2) to (KB, H, T, C)."""
    return rows.flatten(-2).transpose(1, 2)


@dataclass(frozen=True)
class Weight:
    """One weight of a member: name, shape, initial standard deviation (0: all ones) and kind."""

    name: str
    shape: tuple[int, ...]
    std: float
    kind: Kind

    @property
    def count(self) -> int:
        """Number of elements in one member's weight."""
        return math.prod(self.shape)


def layout(size: DecoderSize, vocab_size: int) -> list[Weight]:
    """Return the weights of a decoder, in the order of the buffer."""
    width = size.width
    inner = size.ff
    if size.experts:
        inner = size.expert_ff
    fan_in = 1.0 / math.sqrt(width)
    narrow = 1.0 / math.sqrt(2 * size.layers)  # of products that add to the residual stream
    matrices: list[Weight] = []
    routers: list[Weight] = []
    norms: list[Weight] = []
    for layer in range(size.layers):
        gate_up = Weight(f"{layer}.gate_up", (width, 2 * inner), fan_in, "matrix")
        down = Weight(f"{layer}.down", (inner, width), narrow / math.sqrt(inner), "matrix")
        if size.experts:
            gate_up = _of_experts(gate_up, f"{layer}.experts_gate_up", size.experts)
            down = _of_experts(down, f"{layer}.experts_down", size.experts)
            routers.append(Weight(f"{layer}.router", (width, size.experts), fan_in, "router"))
        matrices += [
            Weight(f"{layer}.qkv", (width, 3 * width), fan_in, "matrix"),
            Weight(f"{layer}.out", (width, width), narrow / math.sqrt(width), "matrix"),
            gate_up,
            down,
        ]
        norms.append(Weight(f"{layer}.attention_norm", (width,), 0.0, "norm"))
        norms.append(Weight(f"{layer}.ff_norm", (width,), 0.0, "norm"))
    tables = [Weight("embedding", (vocab_size, width), fan_in, "embedding")]
    if not size.tied:
        tables.insert(0, Weight("head", (vocab_size, width), fan_in, "matrix"))
    return [*matrices, *tables, *routers, *norms, Weight("norm", (width,), 0.0, "norm")]


def _of_experts(weight: Weight, name: str, experts: int) -> Weight:
    """Return the same weight for each expert, stacked."""
    return replace(weight, name=name, shape=(experts, *weight.shape))


class StackedWeights:
    """Weights of K decoders, flat in fp32, the leaves for the decoder, and gradients."""

    def __init__(
        self,
        size: DecoderSize,
        vocab_size: int,
        seeds: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
        origin: StackOrigin | None = None,
    ) -> None:
        """Draw the initial weights of one member per seed, or copy those of an origin to all."""
        self.members = len(seeds)
        self.tied = size.tied
        self.weights = layout(size, vocab_size)
        self._starts: dict[str, int] = {}
        length = 0
        for weight in self.weights:
            self._starts[weight.name] = length
            length += weight.count * self.members
        self.master = torch.empty(length, device=device)
        self.gradient = torch.zeros_like(self.master)
        if origin is None:
            self._fill(seeds)
        else:
            self.write_all(self.master, origin.weights)
        last = "embedding" if size.tied else "matrix"
        self._copied = max(self._end(weight) for weight in self.weights if weight.kind == last)
        self._copy = self.master
        if dtype != torch.float32:
            self._copy = self.master[: self._copied].to(dtype)
        self.leaves = self._make_leaves()

    def refresh(self) -> None:
        """Update the copy in the compute precision."""
        if self._copy is not self.master:
            self._copy.copy_(self.master[: self._copied])

    @property
    def decayed(self) -> int:
        """End of the part of the buffer with weight decay; norms follow it."""
        return max(self._end(weight) for weight in self.weights if weight.kind != "norm")

    def member(self, k: int) -> dict[str, Tensor]:
        """Return views of one member's fp32 weights by name; call `refresh` after a change."""
        return {w.name: self.view(self.master, w)[k] for w in self.weights}

    def view(self, flat: Tensor, weight: Weight) -> Tensor:
        """Return one weight of all members, shape (K, ...), in a flat buffer."""
        part = flat[self._starts[weight.name] : self._end(weight)]
        return part.view(self.members, *weight.shape)

    @torch.no_grad()
    def write_all(self, flat: Tensor, values: Mapping[str, Tensor]) -> None:
        """Write values to a buffer, by names of weights: one for all members, or one for each."""
        for weight in self.weights:
            self.view(flat, weight).copy_(values[weight.name])

    def _end(self, weight: Weight) -> int:
        return self._starts[weight.name] + weight.count * self.members

    def _make_leaves(self) -> dict[str, Tensor]:
        leaves = {}
        for weight in self.weights:
            source = self._copy if weight.kind == "matrix" else self.master
            leaves[weight.name] = self.view(source, weight).detach().requires_grad_()
            if weight.kind == "embedding" and self.tied:
                head = self.view(self._copy, weight)
                leaves["head"] = head.detach().requires_grad_()
        return leaves

    def _fill(self, seeds: Sequence[int]) -> None:
        for k, seed in enumerate(seeds):
            # The CPU's generator, so that a trial starts with the same weights on every device.
            generator = torch.Generator().manual_seed(seed)
            for weight in self.weights:
                view = self.view(self.master, weight)[k]
                if weight.kind == "norm":
                    view.fill_(1.0)
                else:
                    view.copy_(torch.randn(weight.shape, generator=generator) * weight.std)


@dataclass(frozen=True, eq=False)
class StackOrigin:
    """The starting point of the members: a common one, or that of each, stacked.

    Attributes:
        weights: Weights by name.
        rates: Function from a number of steps to their learning rates.
        moments: Adam's moments by name in its state (`exp_avg`, `exp_avg_sq`), then by weight;
            empty: none.
        step: Steps behind these moments.
        eps: Epsilon of AdamW.
    """

    weights: Mapping[str, Tensor]
    rates: Callable[[int], list[float]]
    moments: Mapping[str, Mapping[str, Tensor]]
    step: int
    eps: float
