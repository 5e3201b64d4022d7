"""Similarity of residuals at two mixtures: a Matern kernel on weights to the power 0.35.

The power spreads out small shares, where losses are steep.

Shapes: N mixtures, K runs, D domains, M columns of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.system import Array

WARP, SHIFT = 0.35, 1e-6
STEEPEST = 1e-4  # below this weight the warp's slope counts as it is here


@dataclass(frozen=True, eq=False)
class PilotKernel:
    """Covariances with the residual at some runs, over the variance of the noise.

    Attributes:
        weights_KD: Mixtures of the runs.
        length: Over which residuals are alike, in warped weights.
        ratio: Variance of the residual over that of the noise; 0 is no residual.
    """

    weights_KD: Array
    length: float
    ratio: float

    def alike(self, weights_ND: Array) -> Array:
        """Return covariances with the residual at the runs, shape (N, K)."""
        from scipy.spatial.distance import cdist

        if not self.ratio:
            return np.zeros((len(weights_ND), len(self.weights_KD)))
        apart_NK = cdist(_warped(weights_ND), _warped(self.weights_KD)) / self.length
        distance_NK = np.sqrt(5.0) * apart_NK
        alike_NK: Array = (1.0 + distance_NK + distance_NK**2 / 3.0) * np.exp(-distance_NK)
        return self.ratio * alike_NK

    def slopes(self, weights_D: Array, dual_KM: Array) -> Array:
        """Return the slope of alike @ dual by each weight at one mixture, shape (M, D)."""
        apart_KD = (_warped(weights_D) - _warped(self.weights_KD)) / self.length
        distance_K = np.sqrt(5.0 * (apart_KD**2).sum(axis=1))
        by_squared_K = -5.0 / 6.0 * (1.0 + distance_K) * np.exp(-distance_K) * self.ratio
        by_warped_KD = 2.0 * by_squared_K[:, None] * apart_KD / self.length
        steep_D = WARP * (np.maximum(weights_D, STEEPEST) + SHIFT) ** (WARP - 1.0)
        slopes_MD: Array = (dual_KM.T @ by_warped_KD) * steep_D
        return slopes_MD

    def plain(self, dual_KM: Array) -> dict[str, Any]:
        """Return the numbers of a plain law (mixopt.fitting.capabilities).

        Args:
            dual_KM: What covariances are multiplied with, for each value.
        """
        covariance_KK = np.eye(len(self.weights_KD)) + self.alike(self.weights_KD)
        return {
            "weights_KD": self.weights_KD,
            "length": self.length,
            "ratio": self.ratio,
            "inverse_KK": np.linalg.inv(covariance_KK),
            "dual": dual_KM,
        }


def _warped(weights_ND: Array) -> Array:
    warped: Array = (np.maximum(weights_ND, 0.0) + SHIFT) ** WARP
    return warped
