"""The posterior of one target given its trials and a kernel: mean and uncertainty.

The variance of a new trial has three parts: the law's posterior, the noise, and how far the
prediction moves with the kernel's parameters, by the delta method:

    var(w) = k(w, w) - k' K^-1 k + noise + j' C j,   j = d(k' K^-1 y) / d(parameters)

with C the parameters' posterior covariance. Without the last part the intervals of a few dozen
trials are too narrow. K^-1 is never kept: the mean needs K^-1 y alone, and the variance factors
K again.

Shapes: N trials, K mixtures, D domains, P parameters. Losses are in standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy.linalg import lapack, solve_triangular

from mixopt.system import Array
from mixopt_regressors.gaussian.hyperparameters import cholesky
from mixopt_regressors.gaussian.matern import (
    CONSTANT,
    SHIFT,
    STEEPEST,
    Matern,
    Pairs,
    log_weights,
    matern_and_slope,
)

CHUNK = 2**17  # pairs of mixtures at once: what a processor's cache holds


@dataclass(frozen=True)
class Posterior:
    """A kernel and the trials that it is conditioned on."""

    kernel: Matern
    weights_ND: Array
    dual_N: Array

    @classmethod
    def of(cls, kernel: Matern, weights_ND: Array, losses_N: Array) -> Posterior:
        """Condition a kernel on trials."""
        rows_ND = kernel.scaled(weights_ND)
        factor_NN = cholesky(kernel.noisy(kernel.pairs(rows_ND, rows_ND)))
        return cls(kernel, weights_ND, lapack.dpotrs(factor_NN, losses_N, lower=1)[0])

    def mean(self, weights_KD: Array) -> Array:
        """Return the mean, shape (K,)."""
        parts = [
            self.kernel.covariance(pairs) @ self.dual_N for _, pairs in self._chunks(weights_KD)
        ]
        return np.concatenate([np.empty(0), *parts])

    def slopes(self, weights_D: Array) -> Array:
        """Return the slope of the mean by the weights at one mixture, shape (D,)."""
        return self.kernel.slopes(weights_D, self._rows, self.dual_N)

    def variance(self, weights_KD: Array, root_PP: Array) -> Array:
        """Return the variance of a new trial's loss, shape (K,)."""
        logs_ND = log_weights(self.weights_ND)
        factor_NN, solved_NP = self._solved(logs_ND)
        parts = []
        for logs_KD, across in self._chunks(weights_KD):
            covariance_KN = self.kernel.covariance(across)
            known_NK = solve_triangular(factor_NN, covariance_KN.T, lower=True, check_finite=False)
            left_K = np.maximum(self.kernel.variance + CONSTANT - (known_NK**2).sum(axis=0), 0.0)
            moved_KP = self.kernel.push_forward(across, logs_KD, logs_ND, self.dual_N)
            moved_KP -= covariance_KN @ solved_NP
            parts.append(
                left_K + self.kernel.jittered_noise + ((moved_KP @ root_PP) ** 2).sum(axis=1)
            )
        return np.concatenate([np.empty(0), *parts])

    def covariance(self, weights_KD: Array, root_PP: Array) -> Array:
        """Return the covariance of the law at some mixtures, noise left out, shape (K, K)."""
        logs_ND, logs_KD = log_weights(self.weights_ND), log_weights(weights_KD)
        factor_NN, solved_NP = self._solved(logs_ND)
        rows_KD = self.kernel.warped(logs_KD)
        across = self.kernel.pairs(rows_KD, self._rows)
        covariance_KN = self.kernel.covariance(across)
        known_NK = solve_triangular(factor_NN, covariance_KN.T, lower=True, check_finite=False)
        moved_KP = self.kernel.push_forward(across, logs_KD, logs_ND, self.dual_N)
        moved_KP = (moved_KP - covariance_KN @ solved_NP) @ root_PP
        prior_KK = self.kernel.covariance(self.kernel.pairs(rows_KD, rows_KD))
        return np.asarray(prior_KK - known_NK.T @ known_NK + moved_KP @ moved_KP.T)

    def _solved(self, logs_ND: Array) -> tuple[Array, Array]:
        """Return the factor of K, and K^-1 d(K dual) / d(parameters), shape (N, P)."""
        pairs = self.kernel.pairs(self._rows, self._rows)
        factor_NN = cholesky(self.kernel.noisy(pairs))
        moved_NP = self.kernel.push_forward_noisy(pairs, logs_ND, self.dual_N)
        return factor_NN, lapack.dpotrs(factor_NN, moved_NP, lower=1)[0]

    @cached_property
    def _rows(self) -> Array:
        """The trials as the kernel takes them, shape (N, D)."""
        return self.kernel.scaled(self.weights_ND)

    def _chunks(self, weights_KD: Array) -> Iterator[tuple[Array, Pairs]]:
        """Yield log weights and pairs with the trials, some mixtures at a time."""
        size = max(CHUNK // len(self.weights_ND), 1)
        for at in range(0, len(weights_KD), size):
            logs_KD = log_weights(weights_KD[at : at + size])
            yield logs_KD, self.kernel.pairs(self.kernel.warped(logs_KD), self._rows)


@dataclass(frozen=True, eq=False)
class StackedPosteriors:
    """Kernels and trials of all targets."""

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
