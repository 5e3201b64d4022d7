"""Experts in place of a feed-forward, for a stack of members at once.

All assignments of all members are sorted by (member, expert) and multiplied group by group, in one
product over K * E groups: PyTorch's `grouped_mm`, which takes groups of any size, so that no token
is dropped and, but for bf16 on a CPU, no row is computed for padding.

A member's rows are in groups of its own, so nothing of it reaches another.

Shapes: K members, N tokens, C width, E experts, S experts of a token, A = K * N * S assignments,
G = K * E groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mixopt.errors import ConfigError
from mixopt_proxies.decoder.expert_choice import Choice, choose


def check_grouped_products() -> None:
    """Check that this PyTorch has them.

    Raises:
        ConfigError: It is too old.
    """
    if not hasattr(functional, "grouped_mm"):
        raise ConfigError(
            "proxy.options.experts: need torch.nn.functional.grouped_mm, which PyTorch "
            f"{torch.__version__} does not have: pip install --upgrade torch, or take a dense "
            "size"
        )


def route(
    leaves: Mapping[str, Tensor], prefix: str, normed_KNC: Tensor, top_k: int
) -> tuple[Tensor, Choice]:
    """Give each token to its experts and add up what they say.

    Args:
        leaves: Weights whose names begin with `prefix`: `router`, `experts_gate_up`,
            `experts_down`, and `bias` where there is one.
        prefix: Of the layer.
        normed_KNC: What experts and router read.
        top_k: S.

    Returns:
        Shape (K, N, C), and what the router chose.
    """
    router_KCE = leaves[f"{prefix}router"]
    choice = choose(normed_KNC, router_KCE, leaves.get(f"{prefix}bias"), top_k)
    dtype = product_dtype(normed_KNC)
    multiple = rounding(normed_KNC.device, dtype)
    place_A, ends_G = places(choice.ids_KNS, router_KCE.shape[-1], multiple)
    rows = len(place_A) + len(ends_G) * (multiple - 1)
    rows_AC = normed_KNC.to(dtype).flatten(0, 1).repeat_interleave(top_k, 0)
    given = _put(rows_AC, place_A, rows)
    gate_up = leaves[f"{prefix}experts_gate_up"].to(dtype).flatten(0, 1)
    down = leaves[f"{prefix}experts_down"].to(dtype).flatten(0, 1)
    said_AC = _taken(swiglu(given, gate_up, down, ends_G), place_A)
    weighed = said_AC.view(*choice.ids_KNS.shape, -1) * choice.weights_KNS[..., None]
    return weighed.sum(2), choice


def swiglu(rows_AC: Tensor, gate_up_GCF: Tensor, down_GFC: Tensor, ends_G: Tensor) -> Tensor:
    """Return what each group's expert says of its rows, shape (A, C).

    Args:
        rows_AC: Rows, group after group.
        gate_up_GCF: Weights of each group, gate and up side by side.
        down_GFC: Likewise.
        ends_G: Where each group ends, int32.
    """
    gate, up = functional.grouped_mm(rows_AC, gate_up_GCF, offs=ends_G).chunk(2, -1)
    return functional.grouped_mm(functional.silu(gate) * up, down_GFC, offs=ends_G)


def product_dtype(rows: Tensor) -> torch.dtype:
    """Return in which precision to multiply: autocast knows no grouped products."""
    kind = rows.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype


def rounding(device: torch.device, dtype: torch.dtype) -> int:
    """Return of how many rows a group is a multiple, the last ones being 0.

    On a CPU a bf16 product of a new number of rows makes new code, which takes longer than the
    product, so that there must be few numbers.
    """
    return 32 if device.type == "cpu" and dtype == torch.bfloat16 else 1


def places(ids_KNS: Tensor, experts: int, multiple: int) -> tuple[Tensor, Tensor]:
    """Return where each assignment goes, group after group, and where each group ends.

    In a group assignments keep the order of the tokens, so that sums are the same each time.

    Args:
        ids_KNS: Experts of each token.
        experts: E.
        multiple: Groups end at multiples of it.

    Returns:
        Rows, shape (A,), and ends, int32, shape (G,).
    """
    members = torch.arange(len(ids_KNS), device=ids_KNS.device)[:, None, None]
    group_A = (ids_KNS + members * experts).flatten()
    sorted_A, order_A = group_A.sort(stable=True)
    groups = torch.arange(len(ids_KNS) * experts + 1, device=ids_KNS.device)
    starts_G = torch.searchsorted(sorted_A, groups)
    sizes_G = starts_G.diff()
    ends_G = ((sizes_G + multiple - 1) // multiple * multiple).cumsum(0)
    # By how much a group lies further back than without rounding.
    shift_G = ends_G - starts_G[1:] - (ends_G.diff(prepend=ends_G[:1] * 0) - sizes_G)
    places_A = torch.arange(len(group_A), device=ids_KNS.device) + shift_G[sorted_A]
    return torch.empty_like(order_A).scatter_(0, order_A, places_A), ends_G.to(torch.int32)


class Put(Function):
    """Rows at their places, and 0 elsewhere; each place is taken once."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, place: Tensor, count: int) -> Tensor:
        """Return `count` rows."""
        ctx.save_for_backward(place)
        return rows.new_zeros(count, rows.shape[1]).index_copy_(0, place, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the rows."""
        (place,) = ctx.saved_tensors
        return upstream[0].index_select(0, place), None, None


class Taken(Function):
    """Rows from their places; the gradient is put back without adding up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, place: Tensor) -> Tensor:
        """Return a row for each place."""
        ctx.save_for_backward(place)
        ctx.count = len(rows)
        return rows.index_select(0, place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of all rows, 0 where none was taken."""
        (place,) = ctx.saved_tensors
        rows = upstream[0]
        return rows.new_zeros(ctx.count, rows.shape[1]).index_copy_(0, place, rows), None


def _put(rows: Tensor, place: Tensor, count: int) -> Tensor:
    put: Tensor = Put.apply(rows, place, count)
    return put


def _taken(rows: Tensor, place: Tensor) -> Tensor:
    taken: Tensor = Taken.apply(rows, place)
    return taken
