"""The means of all targets at one mixture, in a few array operations.

A search asks for one mixture thousands of times, and a loop over targets would spend its time on
small arrays. It is what `Posterior.mean` and `Posterior.slopes` return, to rounding.

Shapes: N trials, D domains, M targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mixopt.system import Array
from mixopt_regressors.gaussian.gaussian_posterior import Posterior
from mixopt_regressors.gaussian.matern import (
    CONSTANT,
    SHIFT,
    STEEPEST,
    log_weights,
    matern_and_slope,
)


@dataclass(frozen=True, eq=False)
class StackedPosteriors:
    """Kernels and trials of all targets.

    Attributes:
        lengths_MD: Lengths of the kernels.
        powers_M1: Powers of the warps.
        middles_MD: Mean of the warped trials.
        rows_MND: Warped trials in units of the lengths, centred.
        squares_MN: Their squared lengths.
        duals_MN: K^-1 y times the kernel's variance.
        levels_M: What the kernel's constant adds.
    """

    lengths_MD: Array
    powers_M1: Array
    middles_MD: Array
    rows_MND: Array
    squares_MN: Array
    duals_MN: Array
    levels_M: Array

    @classmethod
    def of(cls, posteriors: Sequence[Posterior]) -> Self:
        """Stack the posteriors of one fit."""
        kernels = [one.kernel for one in posteriors]
        rows_MND = np.stack([one.kernel.scaled(one.weights_ND) for one in posteriors])
        middles_MD = rows_MND.mean(axis=1)
        rows_MND -= middles_MD[:, None]
        duals_MN = np.stack([one.dual_N for one in posteriors])
        return cls(
            np.stack([kernel.lengths_D for kernel in kernels]),
            np.array([[kernel.power] for kernel in kernels]),
            middles_MD,
            rows_MND,
            (rows_MND**2).sum(axis=2),
            duals_MN * np.array([[kernel.variance] for kernel in kernels]),
            CONSTANT * duals_MN.sum(axis=1),
        )

    def means(self, weights_D: Array) -> Array:
        """Return the means at one mixture, shape (M,)."""
        _, alike_MN, _ = self._pairs(weights_D)
        means_M: Array = (alike_MN * self.duals_MN).sum(axis=1) + self.levels_M
        return means_M

    def slopes(self, weights_D: Array) -> Array:
        """Return the slopes of the means by the weights, shape (M, D)."""
        scaled_MD, _, slope_MN = self._pairs(weights_D)
        pull_MN = 2.0 * slope_MN * self.duals_MN
        by_scaled_MD = pull_MN.sum(axis=1)[:, None] * scaled_MD
        by_scaled_MD -= (pull_MN[:, None] @ self.rows_MND)[:, 0]
        logs_D = np.log(np.maximum(weights_D, STEEPEST) + SHIFT)
        steep_MD = self.powers_M1 * np.exp((self.powers_M1 - 1.0) * logs_D)
        slopes_MD: Array = by_scaled_MD * steep_MD / self.lengths_MD
        return slopes_MD

    def _pairs(self, weights_D: Array) -> tuple[Array, Array, Array]:
        """Return the warped mixture, and how alike it and the trials are, with the slope."""
        scaled_MD = np.exp(self.powers_M1 * log_weights(weights_D)) / self.lengths_MD
        scaled_MD -= self.middles_MD
        squared_MN = (self.rows_MND @ scaled_MD[:, :, None])[:, :, 0]
        squared_MN *= -2.0
        squared_MN += self.squares_MN
        squared_MN += (scaled_MD**2).sum(axis=1)[:, None]
        return scaled_MD, *matern_and_slope(np.maximum(squared_MN, 0.0, out=squared_MN))
