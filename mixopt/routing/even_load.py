"""Which way a bias is moved so that loads get even, by DeepSeek-V3's rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def towards_even(loads: Tensor) -> Tensor:
    """Return 1 for experts below the mean load of their router, -1 for those above, else 0.

    Args:
        loads: Assignments, integers of shape (..., E).
    """
    return (loads.sum(-1, keepdim=True) - loads * loads.shape[-1]).sign()
