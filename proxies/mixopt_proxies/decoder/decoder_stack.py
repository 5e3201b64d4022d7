"""The decoder, for a stack of members at once: RMSNorm, rotary attention, SwiGLU (Llama's).

Written as products over a leading member axis: `torch.func.vmap` has no batching rule for
fused attention on a CPU and is slower everywhere else. One member is the same path. A size with
experts has them in place of the feed-forward.

The residual stream and the norms are fp32, the products run in the compute precision.

Shapes: K members, B sequences, T tokens, W = T + 1, V vocabulary, C width, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mixopt_proxies.decoder.experts import Choice, Routed, added_up, check_grouped_products, route
from mixopt_proxies.decoder.sizes import DecoderSize

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
        """Prepare what does not depend on weights."""
        if size.experts:
            check_grouped_products()
        self.size = size
        self.dtype = dtype
        self._document_ends = tuple(document_ends)
        self._attention = Attention(size, device=device, dtype=dtype)

    def hidden(
        self, leaves: Mapping[str, Tensor], tokens_KBW: Tensor
    ) -> tuple[Tensor, Routed | None]:
        """Return what the head reads for all tokens but the last, shape (K, B * T, C)."""
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
        """Return the residual stream after one block, whose weights have names with `prefix`."""
        stream = stream + self._attend(leaves, prefix, stream, length, documents)
        normed = self.norm(leaves[f"{prefix}ff_norm"], stream)
        if not self.size.experts:
            return stream + self._feed_forward(leaves, prefix, normed), None
        output, choice = route(leaves, prefix, normed, self.size.top_k)
        return stream + output, choice

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


LONGEST_EXPLICIT = 256
QUERY_BLOCK = 128
ROTARY_BASE = 10_000.0


class RowDocuments(NamedTuple):
    """The documents of sequences: places of tokens in their own, and keys that are not seen."""

    place_NT: Tensor
    hidden_NTT: Tensor

    @classmethod
    def placed(cls, place_NT: Tensor) -> RowDocuments:
        """Return the documents whose tokens have such places; each begins at 0."""
        number_NT = (place_NT == 0).cumsum(1)
        other_NTT = number_NT[:, :, None] != number_NT[:, None]
        future_TT = torch.ones_like(other_NTT[0]).triu(1)
        return cls(place_NT, other_NTT | future_TT)

    @classmethod
    def ended(cls, tokens_NT: Tensor, ends: Sequence[int]) -> RowDocuments:
        """Return the documents of what is read of rows."""
        begins_NT = torch.stack([tokens_NT == end for end in ends]).any(0)
        place_NT = torch.arange(tokens_NT.shape[1], device=tokens_NT.device).expand_as(tokens_NT)
        first_NT = torch.where(begins_NT, place_NT, 0).cummax(1).values
        return cls.placed(place_NT - first_NT)


class Attention:
    """What all layers share: heads, positions, and the way that is taken."""

    def __init__(self, size: DecoderSize, *, device: torch.device, dtype: torch.dtype) -> None:
        self._size = size
        length = size.sequence_length
        self.explicit = is_explicit(device, dtype, length)
        self._cosine, self._signed_sine = rotary_tables(size, device)
        self._future_TT = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)

    def __call__(self, qkv: Tensor, length: int, documents: RowDocuments | None = None) -> Tensor:
        """Mix the tokens of each sequence, or of each of its documents."""
        size = self._size
        members, rows, _ = qkv.shape
        sequences = members * rows // length
        shape = (sequences, length, 3, size.heads, 2, size.head_width // 2)
        parts = qkv.view(shape)
        query = _heads(self._rotate(parts[:, :, 0], documents)).to(qkv.dtype)
        key = _heads(self._rotate(parts[:, :, 1], documents)).to(qkv.dtype)
        value = _heads(parts[:, :, 2])
        mixed = self._mixed(query, key, value, documents)
        return mixed.transpose(1, 2).reshape(members, rows, size.width)

    def _mixed(
        self, query: Tensor, key: Tensor, value: Tensor, documents: RowDocuments | None
    ) -> Tensor:
        if self.explicit:
            hidden = self._future_TT if documents is None else documents.hidden_NTT
            return explicit_attention(query, key, value, hidden)
        if documents is None:
            return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        seen = ~documents.hidden_NTT[:, None]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)

    def _rotate(self, heads: Tensor, documents: RowDocuments | None) -> Tensor:
        place = slice(heads.shape[1]) if documents is None else documents.place_NT
        return heads * self._cosine[place] + heads.flip(-2) * self._signed_sine[place]


def is_explicit(device: torch.device, dtype: torch.dtype, length: int) -> bool:
    """Return whether batched products are faster than the fused attention."""
    return device.type == "cpu" and dtype == torch.bfloat16 and length <= LONGEST_EXPLICIT


def rotary_tables(size: DecoderSize, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cosines and signed sines, each of shape (T, 1, 2, C / 2)."""
    half = size.head_width // 2
    frequencies = ROTARY_BASE ** (-torch.arange(half, device=device) / half)
    angles = torch.arange(size.sequence_length, device=device)[:, None] * frequencies
    cosine, sine = angles.cos(), angles.sin()
    shape = (size.sequence_length, 1, 2, half)
    return (
        torch.stack([cosine, cosine], 1).view(shape),
        torch.stack([-sine, sine], 1).view(shape),
    )


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    """Attend by batched products, some queries at a time."""
    shape = query.shape
    query, key, value = (part.reshape(-1, *shape[-2:]) for part in (query, key, value))
    query = query * shape[-1] ** -0.5
    blocks = []
    for first in range(0, shape[-2], QUERY_BLOCK):
        stop = min(first + QUERY_BLOCK, shape[-2])
        scores = torch.bmm(query[:, first:stop], key[:, :stop].mT)
        by_head = scores.view(*shape[:2], *scores.shape[1:])
        part = hidden[..., first:stop, :stop].unsqueeze(-3)
        scores = by_head.masked_fill(part, float("-inf")).view(scores.shape)
        blocks.append(torch.bmm(scores.softmax(-1), value[:, :stop]))
    return torch.cat(blocks, 1).view(shape)


def _heads(rows: Tensor) -> Tensor:
    """Turn (KB, T, H, 2, C / 2) into (KB, H, T, C)."""
    return rows.flatten(-2).transpose(1, 2)


Kind = Literal["matrix", "embedding", "router", "norm"]


@dataclass(frozen=True)
class Weight:
    """One weight of a member: its name, shape, initial deviation (0: all ones) and kind."""

    name: str
    shape: tuple[int, ...]
    std: float
    kind: Kind

    @property
    def count(self) -> int:
        """Numbers in one member's weight."""
        return math.prod(self.shape)


def layout(size: DecoderSize, vocab_size: int) -> list[Weight]:
    """List the weights of a decoder in the order of the buffer."""
    width = size.width
    narrow = 1.0 / math.sqrt(2 * size.layers)
    matrices, routers, norms = [], [], []
    for layer in range(size.layers):
        matrices += [
            _matrix(f"{layer}.qkv", width, 3 * width, 1.0),
            _matrix(f"{layer}.out", width, width, narrow),
            *_feed_forward(size, layer, narrow),
        ]
        if size.experts:
            shape = (width, size.experts)
            routers.append(Weight(f"{layer}.router", shape, 1.0 / math.sqrt(width), "router"))
        norms += [_norm(f"{layer}.attention_norm", width), _norm(f"{layer}.ff_norm", width)]
    tables = [Weight("embedding", (vocab_size, width), 1.0 / math.sqrt(width), "embedding")]
    if not size.tied:
        tables.insert(0, Weight("head", (vocab_size, width), 1.0 / math.sqrt(width), "matrix"))
    return [*matrices, *tables, *routers, *norms, _norm("norm", width)]


class StackedWeights:
    """Weights of K decoders, flat in fp32, what the decoder reads of them, and gradients."""

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
        """Draw the initial weights of one member for each seed, or give all those of an origin."""
        self.members = len(seeds)
        self.tied = size.tied
        self.weights = layout(size, vocab_size)
        starts = [0]
        for weight in self.weights:
            starts.append(starts[-1] + weight.count * self.members)
        self._starts = dict(zip((w.name for w in self.weights), starts, strict=False))
        self.master = torch.empty(starts[-1], device=device)
        self.gradient = torch.zeros_like(self.master)
        if origin is None:
            self._fill(seeds)
        else:
            self.give_all(self.master, origin.weights)
        last = "embedding" if size.tied else "matrix"
        self._copied = max(self._end(weight) for weight in self.weights if weight.kind == last)
        low = dtype != torch.float32
        self._copy = self.master[: self._copied].to(dtype) if low else self.master
        self.leaves = self._make_leaves()

    def refresh(self) -> None:
        """Bring the copy in the compute precision up to date."""
        if self._copy is not self.master:
            self._copy.copy_(self.master[: self._copied])

    @property
    def decayed(self) -> int:
        """Where the part of the buffer ends that decays; norms come after it, and do not."""
        return max(self._end(weight) for weight in self.weights if weight.kind != "norm")

    def member(self, k: int) -> dict[str, Tensor]:
        """Return views of one member's fp32 weights by name; call `refresh` after a change."""
        return {w.name: self.view(self.master, w)[k] for w in self.weights}

    def view(self, flat: Tensor, weight: Weight) -> Tensor:
        """Return one weight of all members, shape (K, ...), in a flat buffer."""
        part = flat[self._starts[weight.name] : self._end(weight)]
        return part.view(self.members, *weight.shape)

    @torch.no_grad()
    def give_all(self, flat: Tensor, values: Mapping[str, Tensor]) -> None:
        """Write one member's values, by the names of the weights, to all members in a buffer."""
        for weight in self.weights:
            self.view(flat, weight).copy_(values[weight.name][None])

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
            # The CPU's generator on every device: a trial starts the same everywhere.
            generator = torch.Generator().manual_seed(seed)
            for weight in self.weights:
                view = self.view(self.master, weight)[k]
                if weight.kind == "norm":
                    view.fill_(1.0)
                else:
                    view.copy_(torch.randn(weight.shape, generator=generator) * weight.std)


def _feed_forward(size: DecoderSize, layer: int, narrow: float) -> list[Weight]:
    width = size.width
    if not size.experts:
        return [
            _matrix(f"{layer}.gate_up", width, 2 * size.ff, 1.0),
            _matrix(f"{layer}.down", size.ff, width, narrow),
        ]
    count, inner = size.experts, size.expert_ff
    shapes = (count, width, 2 * inner), (count, inner, width)
    deviations = 1.0 / math.sqrt(width), narrow / math.sqrt(inner)
    return [
        Weight(f"{layer}.experts_gate_up", shapes[0], deviations[0], "matrix"),
        Weight(f"{layer}.experts_down", shapes[1], deviations[1], "matrix"),
    ]


def _matrix(name: str, inputs: int, outputs: int, scale: float) -> Weight:
    return Weight(name, (inputs, outputs), scale / math.sqrt(inputs), "matrix")


def _norm(name: str, width: int) -> Weight:
    return Weight(name, (width,), 0.0, "norm")


class AdamMoments(NamedTuple):
    """Running means of gradients and of their squares, by weight, after so many steps."""

    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    step: int


@dataclass(frozen=True, eq=False)
class StackOrigin:
    """Weights that all members begin with, the rates of so many steps, and Adam's moments."""

    weights: Mapping[str, Tensor]
    rates: Callable[[int], list[float]]
    moments: AdamMoments | None = None
    eps: float = 1e-8
