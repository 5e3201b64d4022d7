"""Losses as a linear function: of the mixture by least squares, or of one domain's share.

Weights add up to 1, so an intercept and the weights are collinear. Centred on the trials' mean, the
minimum-norm solution is unique, and also exists with fewer trials than domains. The standard
deviation is that of a new observation: the residuals' spread by degrees of freedom, times
sqrt(1 + 1/N + leverage); without degrees of freedom, the spread of the losses.

Shapes: N trials, D domains, M targets.
"""

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting import rank_correlations
from mixopt.system import Array
from mixopt_regressors.mixture_regressor import MixtureRegressor

RANK = 1e-10  # relative singular values below it are directions without data
STEEPEST = 1e-4  # the slope of the root is constant below this share


class LinearRegressor(MixtureRegressor):
    """Minimum-norm ordinary least squares, without parameters."""

    by_target = ("slopes_MD", "means_M", "noise_M")
    shared = ("center_D", "inverse_DD", "trials")

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss, shape (M, D), which is constant."""
        self._checked(np.atleast_2d(weights_D))
        slopes: Array = self.slopes_MD.copy()
        return slopes

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        self.trials = np.array(len(weights_ND))
        self.center_D = weights_ND.mean(axis=0)
        self.means_M = losses_NM.mean(axis=0)
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
        return np.asarray(factor_N[:, None] * self.noise_M)


class OwnShareRegressor(LinearRegressor):
    """A line in the square root of one domain's share: the control that a fit must beat.

    The domain of a target is the one whose share ranks its losses best.
    """

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss, shape (M, D)."""
        weights = self._checked(np.atleast_2d(weights_D))[0]
        return np.asarray(self.slopes_MD / (2.0 * np.sqrt(np.maximum(weights, STEEPEST))))

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        best_M = np.abs(rank_correlations(weights_ND, losses_NM)).argmax(axis=0)
        roots_ND = np.sqrt(weights_ND)
        self.trials = np.array(len(weights_ND))
        self.center_D = roots_ND.mean(axis=0)
        self.means_M = losses_NM.mean(axis=0)
        centered_ND = roots_ND - self.center_D
        squares_D = (centered_ND**2).sum(axis=0)
        self.inverse_DD = np.diag(1.0 / np.where(squares_D > 0, squares_D, np.inf))
        slopes_DM = self.inverse_DD @ centered_ND.T @ (losses_NM - self.means_M)
        is_best_MD = np.arange(len(slopes_DM)) == best_M[:, None]
        self.slopes_MD = np.where(is_best_MD, slopes_DM.T, 0.0)
        self.noise_M = self._noise(losses_NM, self._predict(weights_ND), rank=1)

    def _predict(self, weights_ND: Array) -> Array:
        return super()._predict(np.sqrt(np.maximum(weights_ND, 0.0)))

    def _std(self, weights_ND: Array) -> Array:
        distances_ND = (np.sqrt(np.maximum(weights_ND, 0.0)) - self.center_D) ** 2
        used_MD = (self.slopes_MD != 0) * np.diag(self.inverse_DD)
        factor_NM = np.sqrt(1.0 + 1.0 / self.trials + distances_ND @ used_MD.T)
        return np.asarray(factor_NM * self.noise_M)
