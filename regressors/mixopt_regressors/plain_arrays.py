"""Fitted arrays in the form that a plain law has them (mixopt.fitting.capabilities).

A page carries a law for each of 60 losses, so that arrays are as small as predictions to 1e-6 let
them be: triangles of symmetric matrices, and whole numbers of a unit for each row.

Shapes: M matrices of shape (P, P), T = P (P + 1) / 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.system import Array

LARGE = 2**12  # entries of an array that has 32 bits instead of 64
MANY = 2**16  # entries of roots that have 16 bits instead of 32
SHORT, LONG = 2**15 - 1, 2**31 - 2**10  # room for units that are rounded themselves


def lower_triangles(matrices_MPP: NDArray[np.floating[Any]]) -> Array:
    """Return the lower triangles of symmetric matrices, row by row, shape (M, T)."""
    rows_T, columns_T = np.tril_indices(matrices_MPP.shape[-1])
    return np.asarray(matrices_MPP[..., rows_T, columns_T], dtype=np.float64)


def lower_roots(roots_MPQ: NDArray[np.floating[Any]]) -> Array:
    """Return triangular roots L of R R', for roots R of any kind, shape (M, P, P)."""
    upper_MPP = np.linalg.qr(np.swapaxes(roots_MPQ, -1, -2), mode="r")
    return np.asarray(np.swapaxes(upper_MPP, -1, -2), dtype=np.float64)


def root_of(matrix_PP: NDArray[np.floating[Any]]) -> Array:
    """Return a triangular root of a matrix whose eigenvalues are >= 0, shape (P, P)."""
    values_P, vectors_PP = np.linalg.eigh(matrix_PP)
    return lower_roots(vectors_PP * np.sqrt(np.maximum(values_P, 0.0)))


def single_if_large(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return an array in single precision where it is large."""
    return values.astype(np.float32) if values.size > LARGE else values


def rounded_roots(roots_MPP: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Return the triangular roots of covariances as whole numbers of a unit for each row."""
    lower_MPP = lower_roots(roots_MPP)
    most = LONG if lower_MPP.size < MANY else SHORT
    units_MP = (np.maximum(np.abs(lower_MPP).max(axis=2), 1e-30) / most).astype(np.float32)
    whole_MT = lower_triangles(np.round(lower_MPP / units_MP[:, :, None].astype(np.float64)))
    kind = np.int32 if most == LONG else np.int16
    return {"roots_MT": whole_MT.astype(kind), "root_units_MP": units_MP}


def rounded_rows(values_MN: Array) -> tuple[NDArray[np.int32], Array]:
    """Return rows as whole numbers of a unit for each, and the units, shape (M,)."""
    units_M = np.maximum(np.abs(values_MN).max(axis=1), 1e-300) / LONG
    return np.round(values_MN / units_M[:, None]).astype(np.int32), units_M


def set_apart(trust_MN: Array) -> dict[str, NDArray[Any]]:
    """Return the entries that are not 1, which are few: places, row by row, and values."""
    places = np.flatnonzero(trust_MN != 1.0)
    return {"doubted": places.astype(np.int32), "trusts": trust_MN.ravel()[places]}
