"""Which way a bias is moved so that loads get even: DeepSeek-V3's rule, and one in proportion."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def towards_even(loads: Tensor, *, in_proportion: bool = False) -> Tensor:
    """Return 1 for experts below the mean load of their router, -1 for those above, else 0.

    Args:
        loads: Assignments, integers of shape (..., E).
        in_proportion: Whether to return less than 1 where a load is between none and twice the
            mean: the part of the mean that it is off.
    """
    total = loads.sum(-1, keepdim=True)
    off = total - loads * loads.shape[-1]
    return (off / total.clamp(min=1)).clamp(-1, 1) if in_proportion else off.sign()
