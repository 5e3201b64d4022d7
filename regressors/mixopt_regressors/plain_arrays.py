"""Fitted arrays in the form that a plain law has them (mixopt.fitting.capabilities).

Shapes: M matrices of shape (P, P), T = P (P + 1) / 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.system import Array


def lower_triangles(matrices_MPP: NDArray[np.floating[Any]]) -> Array:
    """Return the lower triangles of symmetric matrices, row by row, shape (M, T)."""
    rows_T, columns_T = np.tril_indices(matrices_MPP.shape[-1])
    return np.asarray(matrices_MPP[..., rows_T, columns_T], dtype=np.float64)
