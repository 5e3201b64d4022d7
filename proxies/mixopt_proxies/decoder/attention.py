"""Causal attention with rotary positions, by whichever way is fastest here.

On a CPU in bf16 PyTorch's fused attention is slow for short sequences: two batched products
and a softmax take 0.27 to 0.49 of its time up to 256 tokens, and 1.2 to 2 times as long from
512 on. In fp32, and on a GPU, the fused one is never slower.

Shapes: K members, B sequences, N = K * B, T tokens, H heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mixopt_proxies.decoder.named_sizes import DecoderSize

LONGEST_EXPLICIT = 256
QUERY_BLOCK = 128
ROTARY_BASE = 10_000.0


class RowDocuments(NamedTuple):
    """The documents of sequences, those of all members one after the other.

    Attributes:
        place_NT: Each token's place in its document, from 0.
        hidden_NTT: True where a key comes after a query, or is of another document.
    """

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
        """Return the documents of what is read of rows.

        An id that ends a document is a target of the last one, and as an input begins the next.
        """
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
        """Mix the tokens of each sequence, or of each of its documents.

        Args:
            qkv: Queries, keys and values, shape (K, B * T, 3 * H * C).
            length: T, up to that of the size.
            documents: Those of each sequence; None where it is one.

        Returns:
            Shape (K, B * T, H * C).
        """
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
    """Return the cosines and signed sines, each of shape (T, 1, 2, C / 2).

    The halves of a head are rotated against each other, as in Llama.
    """
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
    """Attend by batched products, some queries at a time.

    A block of queries multiplies no keys that come after all of it: at 256 tokens and 32
    channels that saves a fifth of the time.

    Args:
        query: Shape (KB, H, T, C), as `key` and `value`.
        key: What the queries are compared with.
        value: What is mixed.
        hidden: True where a query does not see a key, which any after it is; shape (T, T), or
            (KB, T, T).
    """
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
