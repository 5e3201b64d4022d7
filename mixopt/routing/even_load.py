"""The direction of a bias update that evens loads, by DeepSeek-V3's rule or in proportion."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def towards_even(loads: Tensor, *, in_proportion: bool = False) -> Tensor:
    """Return 1 for experts below the mean load of their router, -1 for those above, else 0.

    Args:
        loads: Assignments, integers of shape (..., E).
        in_proportion: Whether to return how far they are from the mean, of the mean, from -1 to 1.
    """
    total = loads.sum(-1, keepdim=True)
    off = total - loads * loads.shape[-1]
    return (off / total.clamp(min=1)).clamp(-1, 1) if in_proportion else off.sign()
