"""Causal attention with rotary positions, by whichever way is fastest here.

On a CPU in bf16 PyTorch's fused attention is slow for short sequences: two batched products
and a softmax take 0.27 to 0.49 of its time up to 256 tokens, and 1.2 to 2 times as long from
512 on. In fp32, and on a GPU, the fused one is never slower.

Shapes: K members, B sequences, T tokens, H heads, C channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mixopt_proxies.sizes import Size

LONGEST_EXPLICIT = 256
ROTARY_BASE = 10_000.0


def is_explicit(device: torch.device, dtype: torch.dtype, length: int) -> bool:
    """Return whether two batched products are faster than the fused attention."""
    return device.type == "cpu" and dtype == torch.bfloat16 and length <= LONGEST_EXPLICIT


def rotary_tables(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
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


def attend(qkv: Tensor, tables: tuple[Tensor, Tensor], size: Size, *, explicit: bool) -> Tensor:
    """Mix the tokens of each sequence.

    Args:
        qkv: Queries, keys and values, shape (K, B * T, 3 * H * C).
        tables: From `rotary_tables`.
        size: Heads and sequence length.
        explicit: Two batched products instead of the fused attention.

    Returns:
        Shape (K, B * T, H * C).
    """
    members, rows, _ = qkv.shape
    shape = (members * rows // size.sequence_length, size.sequence_length, 3, size.heads)
    parts = qkv.view(*shape, 2, size.head_width // 2)
    query = _heads(_rotate(parts[:, :, 0], tables)).to(qkv.dtype)
    key = _heads(_rotate(parts[:, :, 1], tables)).to(qkv.dtype)
    value = _heads(parts[:, :, 2])
    if explicit:
        mixed = _explicit(query, key, value)
    else:
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return mixed.transpose(1, 2).reshape(members, rows, size.width)


def _rotate(heads: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    cosine, signed_sine = tables
    return heads * cosine + heads.flip(-2) * signed_sine


def _heads(rows: Tensor) -> Tensor:
    """Turn (KB, T, H, 2, C / 2) into (KB, H, T, C)."""
    return rows.flatten(-2).transpose(1, 2)


def _explicit(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    length = query.shape[-2]
    query, key, value = (part.reshape(-1, *part.shape[-2:]) for part in (query, key, value))
    scores = torch.bmm(query * query.shape[-1] ** -0.5, key.mT)
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return torch.bmm(weights, value)
