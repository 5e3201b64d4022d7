"""Gaussian processes as the numbers of a plain law (mixopt.fitting.capabilities).

Many trials are rounded to single precision and the processes conditioned on them again: a mixture
that is off by 1e-8 changes nothing, while with the old duals, which are large and cancel, it would.
Many duals are whole numbers of a unit for each target where that is exact enough, and what they add
up to is apart, because the kernel's constant multiplies it.

Shapes: N trials, D domains, M targets, P hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.system import Array
from mixopt_regressors.gaussian.matern import Matern
from mixopt_regressors.plain_arrays import LARGE, rounded_roots, rounded_rows, single_if_large

EXACT = 1e-8  # of a loss, by which rounding of one dual may move it


def plain_posteriors(
    kernels: Sequence[Matern],
    weights_ND: Array,
    dual: Callable[[int, Array], Array],
    means_M: Array,
    units_M: Array,
    roots: Sequence[Array],
) -> dict[str, Any]:
    """Return the law of some processes on the same trials.

    Args:
        kernels: One for each target.
        weights_ND: The trials.
        dual: Conditions a target, by position, on mixtures; returns its duals, shape (N,).
        means_M: Mean of each loss.
        units_M: Unit of each loss.
        roots: Roots of the hyperparameters' covariances.
    """
    single_ND = single_if_large(weights_ND)
    exact_ND = single_ND.astype(np.float64)
    duals_MN = np.array([dual(target, exact_ND) for target in range(len(kernels))])
    variances_M = np.array([kernel.variance for kernel in kernels])
    return {
        "kind": "gaussian_process",
        "weights_ND": single_ND,
        "lengths_MD": np.array([kernel.lengths_D for kernel in kernels]),
        "powers_M": np.array([kernel.power for kernel in kernels]),
        "variances_M": variances_M,
        "noises_M": np.array([kernel.noise for kernel in kernels]),
        **_duals(duals_MN, units_M * variances_M),
        "means_M": means_M,
        "units_M": units_M,
        **rounded_roots(np.array(roots)),
    }


def _duals(duals_MN: Array, heights_M: Array) -> dict[str, Any]:
    """Return the duals and their sums; heights are what a dual of 1 moves a loss by."""
    whole_MN, steps_M = rounded_rows(duals_MN)
    exact = duals_MN.size > LARGE and bool((steps_M * heights_M < EXACT).all())
    kept: NDArray[Any] = whole_MN if exact else duals_MN
    return {
        "duals_MN": kept,
        "dual_units_M": steps_M if exact else np.ones(len(duals_MN)),
        "dual_sums_M": duals_MN.sum(axis=1),
    }
