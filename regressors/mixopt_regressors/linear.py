"""Losses as a linear function of the mixture: ordinary least squares on the simplex.

Weights add up to 1, so an intercept and the weights are collinear. Centred on the trials' mean,
the solution of least norm is unique, and it exists with fewer trials than domains too. The
standard deviation is the textbook one of a new observation: the residuals' spread by degrees of
freedom, times sqrt(1 + 1/N + leverage); where no freedom is left, the spread of the losses.

Shapes: N trials, D domains, M targets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mixopt.system import Array
from mixopt_regressors.mixture_regressor import MixtureRegressor

RANK = 1e-10  # singular values below this part of the largest are directions without data


class LinearRegressor(MixtureRegressor):
    """Ordinary least squares, of least norm; it has no parameters."""

    by_target = ("slopes_MD", "means_M", "noise_M")
    shared = ("center_D", "inverse_DD", "trials")

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight, shape (M, D): the same everywhere."""
        self._checked(np.atleast_2d(np.asarray(weights_D, dtype=np.float64)))
        slopes: Array = self.slopes_MD.copy()
        return slopes

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        self.trials = np.array(len(weights_ND))
        self.center_D, self.means_M = weights_ND.mean(axis=0), losses_NM.mean(axis=0)
        centered_ND = weights_ND - self.center_D
        inverse_DN = np.linalg.pinv(centered_ND, rcond=RANK)
        self.slopes_MD = (inverse_DN @ (losses_NM - self.means_M)).T
        self.inverse_DD = inverse_DN @ inverse_DN.T
        rank = round(float(np.trace(inverse_DN @ centered_ND)))
        self.noise_M = self._noise(losses_NM, self._predict(weights_ND), rank)

    def _noise(self, losses_NM: Array, fitted_NM: Array, rank: int) -> Array:
        freedom = len(losses_NM) - 1 - rank
        if freedom < 1:
            spread: Array = losses_NM.std(axis=0)
            return spread
        noise: Array = np.sqrt(((losses_NM - fitted_NM) ** 2).sum(axis=0) / freedom)
        return noise

    def _predict(self, weights_ND: Array) -> Array:
        predicted: Array = self.means_M + (weights_ND - self.center_D) @ self.slopes_MD.T
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        centered_ND = weights_ND - self.center_D
        leverage_N = np.einsum("nd,de,ne->n", centered_ND, self.inverse_DD, centered_ND)
        factor_N = np.sqrt(1.0 + 1.0 / self.trials + np.maximum(leverage_N, 0.0))
        std: Array = factor_N[:, None] * self.noise_M
        return std
