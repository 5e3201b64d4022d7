"""A Gaussian process for each target.

The variance of a new trial has three parts: the posterior, the noise, and the uncertainty of the
hyperparameters by the delta method. Without the last, intervals from a few dozen trials are too
narrow:

    var(w) = k(w, w) - k' K^-1 k + noise + j' C j,   j = d(k' K^-1 y) / d(parameters)

Above 256 trials, hyperparameters are learned from 256 trials and polished on up to
`learning_trials`; the posterior uses all trials. With few trials, hyperparameters that have seen a
fold make its errors look far too small, so each fold learns its own, starting at the centre of the
targets' common prior if there is one; with more than 256 other trials a few steps from those of the
whole fit give the same result.

Shapes: N trials, K other mixtures, D domains, M targets, P hyperparameters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lapack, solve_triangular

from mixopt.errors import ConfigError
from mixopt.fitting import splits
from mixopt.system import Array, IntArray, Update, no_progress
from mixopt_regressors.gaussian.hyperparameters import (
    FIRST,
    MIN_POOLED,
    POOLED_STEPS,
    STEPS,
    Evidence,
    Prior,
    cholesky,
    evidence_by_target,
    pooled,
)
from mixopt_regressors.gaussian.kernels import (
    CONSTANT,
    SHIFT,
    STEEPEST,
    Matern,
    log_weights,
    matern_and_slope,
)
from mixopt_regressors.mixture_regressor import (
    MixtureRegressor,
    distinct_rows,
    lower_roots,
    plain_roots,
)

CHUNK = 2**17  # pairs of mixtures at once, to fit into the cache
MIN_CHUNK = 16  # mixtures at once, to reuse the trials of many targets
FOLD_STEPS = 12  # optimiser steps of a fold from the prior's centre
REFIT_STEPS = 4  # optimiser steps of a fold with many trials, from the whole fit
CURVATURE_TRIALS = 128  # maximum for the posterior of hyperparameters; scaled to more trials


@dataclass(frozen=True)
class Posterior:
    """A kernel (mixopt_regressors.gaussian.kernels) and the trials that it is conditioned on."""

    kernel: Matern
    rows: Array
    dual_N: Array

    @classmethod
    def of(cls, kernel: Matern, rows: Array, losses_N: Array) -> Self:
        """Condition a kernel on trials."""
        side = kernel.scaled(rows)
        factor_NN = cholesky(kernel.noisy(kernel.pairs(side, side)))
        return cls(kernel, rows, lapack.dpotrs(factor_NN, losses_N, lower=1)[0])

    @cached_property
    def scaled_rows(self) -> Array:
        """The warped trials."""
        return self.kernel.scaled(self.rows)

    def variance(self, rows: Array, root_PP: Array) -> Array:
        """Return the variance of a new trial's loss, shape (K,)."""
        factor_NN, solved_NP = self._solved()
        prior = self.kernel.variance + CONSTANT
        parts = []
        for chunk in _chunks(rows, len(self.rows)):
            explained_NK, moved_KP = self._explained(chunk, root_PP, factor_NN, solved_NP)
            unexplained_K = np.maximum(prior - (explained_NK**2).sum(axis=0), 0.0)
            parts.append(unexplained_K + self.kernel.jittered_noise + (moved_KP**2).sum(axis=1))
        return np.concatenate(parts)

    def covariance(self, rows: Array, root_PP: Array) -> Array:
        """Return the posterior covariance at some mixtures without noise, shape (K, K)."""
        factor_NN, solved_NP = self._solved()
        explained_NK, moved_KP = self._explained(rows, root_PP, factor_NN, solved_NP)
        side = self.kernel.scaled(rows)
        prior_KK = self.kernel.covariance(self.kernel.pairs(side, side))
        return np.asarray(prior_KK - explained_NK.T @ explained_NK + moved_KP @ moved_KP.T)

    def _solved(self) -> tuple[Array, Array]:
        """Return the factor of K, and K^-1 d(K dual) / d(parameters), shape (N, P)."""
        pairs = self.kernel.pairs(self.scaled_rows, self.scaled_rows)
        factor_NN = cholesky(self.kernel.noisy(pairs))
        moved_NP = self.kernel.push_forward_noisy(pairs, log_weights(self.rows), self.dual_N)
        return factor_NN, lapack.dpotrs(factor_NN, moved_NP, lower=1)[0]

    def _explained(
        self, rows: Array, root_PP: Array, factor_NN: Array, solved_NP: Array
    ) -> tuple[Array, Array]:
        """Return the variance explained by trials, and the mean's derivative by parameters."""
        logs_KD = log_weights(rows)
        across = self.kernel.pairs(self.kernel.warped(logs_KD), self.scaled_rows)
        covariance_KN = self.kernel.covariance(across)
        explained_NK = solve_triangular(factor_NN, covariance_KN.T, lower=True, check_finite=False)
        moved_KP = self.kernel.push_forward(across, logs_KD, log_weights(self.rows), self.dual_N)
        return explained_NK, (moved_KP - covariance_KN @ solved_NP) @ root_PP


@dataclass(frozen=True)
class StackedPairs:
    """Warped mixtures, and their kernels to the trials with their derivatives."""

    weights_KD: Array
    scaled_MKD: Array
    similarity_MKN: Array
    slope_MKN: Array


class StackedPosteriors:
    """Posteriors of all targets, evaluated together.

    Duals of trials of one mixture are added up, so that a mixture is compared with it once.
    """

    def __init__(self, posteriors: Sequence[Posterior]) -> None:
        kernels = [posterior.kernel for posterior in posteriors]
        rows, index_N = distinct_rows(posteriors[0].rows)
        variances_M = np.array([kernel.variance for kernel in kernels])
        self.lengths_M1D = np.stack([kernel.lengths_D for kernel in kernels])[:, None]
        self.powers_M11 = np.array([kernel.power for kernel in kernels])[:, None, None]
        self.rows_MND = np.stack([kernel.scaled(rows) for kernel in kernels])
        self.middles_M1D = self.rows_MND.mean(axis=1, keepdims=True)
        self.rows_MND -= self.middles_M1D
        self.squares_M1N = (self.rows_MND**2).sum(axis=2)[:, None]
        duals_MN = np.stack([np.bincount(index_N, posterior.dual_N) for posterior in posteriors])
        self.duals_MN1 = (duals_MN * variances_M[:, None])[..., None]
        self.levels_M = CONSTANT * duals_MN.sum(axis=1)
        self._last: StackedPairs | None = None

    def means(self, weights_KD: Array) -> Array:
        """Return the means at some mixtures, shape (K, M)."""
        parts = []
        for chunk in _chunks(weights_KD, self.squares_M1N.size):
            means_MK1 = self._pairs(chunk).similarity_MKN @ self.duals_MN1
            parts.append(means_MK1[:, :, 0].T + self.levels_M)
        return np.concatenate(parts)

    def slopes(self, weights_D: Array) -> Array:
        """Return the gradient of the means at one mixture, shape (M, D)."""
        pairs = self._pairs(weights_D[None])
        pull_M1N = 2.0 * pairs.slope_MKN * np.swapaxes(self.duals_MN1, 1, 2)
        total_M11 = pull_M1N.sum(axis=2, keepdims=True)
        by_scaled_M1D = total_M11 * pairs.scaled_MKD - pull_M1N @ self.rows_MND
        logs_D = np.log(np.maximum(weights_D, STEEPEST) + SHIFT)
        steep_M1D = self.powers_M11 * np.exp((self.powers_M11 - 1.0) * logs_D)
        slopes_MD: Array = (by_scaled_M1D * steep_M1D / self.lengths_M1D)[:, 0]
        return slopes_MD

    def _pairs(self, weights_KD: Array) -> StackedPairs:
        """Compare mixtures with the trials.

        The last result is cached: a descent evaluates means and gradients at the same mixture.
        """
        if self._last is not None and np.array_equal(self._last.weights_KD, weights_KD):
            return self._last
        scaled_MKD = np.exp(self.powers_M11 * log_weights(weights_KD))
        scaled_MKD /= self.lengths_M1D
        scaled_MKD -= self.middles_M1D
        squared_MKN = scaled_MKD @ np.swapaxes(self.rows_MND, 1, 2)
        squared_MKN *= -2.0
        squared_MKN += self.squares_M1N
        squared_MKN += (scaled_MKD**2).sum(axis=2, keepdims=True)
        np.maximum(squared_MKN, 0.0, out=squared_MKN)
        similarity_MKN, slope_MKN = matern_and_slope(squared_MKN)
        self._last = StackedPairs(weights_KD.copy(), scaled_MKD, similarity_MKN, slope_MKN)
        return self._last


def _chunks(rows: Array, trials: int) -> Iterator[Array]:
    """Yield chunks of mixtures with about `CHUNK` pairs with trials."""
    size = max(CHUNK // trials, MIN_CHUNK)
    for start in range(0, max(len(rows), 1), size):
        yield rows[start : start + size]


class GaussianProcessRegressor(MixtureRegressor):
    """One Gaussian process for each target, on warped weights with a length for each domain.

    Attributes:
        learning_trials: Maximum number of trials to learn hyperparameters from, drawn at random.
        random_state: Seed of the draw.
    """

    by_target = ("parameters_MP", "means_M", "units_M", "losses_MN", "dual_MN")
    shared = ("rows", "prior_2P")

    def __init__(self, learning_trials: int = 512, random_state: int = 0) -> None:
        self.learning_trials = learning_trials
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(weights_D))[0]
        return np.asarray(self.units_M[:, None] * self._stacked.slopes(weights))

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses without noise, shape (K, K)."""
        weights = self._checked(weights_KD)
        loads = np.asarray(loads_M, float)
        total_KK = np.zeros((len(weights), len(weights)))
        for target in np.flatnonzero(loads):
            scale = float(loads[target] * self.units_M[target]) ** 2
            posterior = self._posteriors[target]
            total_KK += scale * posterior.covariance(weights, self._roots[target])
        return total_KK

    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers (mixopt.fitting.regressor)."""
        kernels = [posterior.kernel for posterior in self._posteriors]
        return {
            "kind": "gaussian_process",
            "weights_ND": self.rows,
            "lengths_MD": np.array([kernel.lengths_D for kernel in kernels]),
            "powers_M": np.array([kernel.power for kernel in kernels]),
            "variances_M": np.array([kernel.variance for kernel in kernels]),
            "noises_M": np.array([kernel.noise for kernel in kernels]),
            "duals_MN": self.dual_MN,
            "means_M": self.means_M,
            "units_M": self.units_M,
            **plain_roots(lower_roots(np.array(self._roots))),
        }

    def cross_fit(
        self,
        weights_ND: ArrayLike,
        losses_NM: ArrayLike,
        fold_N: ArrayLike,
        update: Update = no_progress,
    ) -> tuple[Array, Array]:
        """Fit on all trials; predict each trial from the other folds."""
        self.fit(weights_ND, losses_NM)
        means_NM = np.empty(self.losses_MN.T.shape)
        stds_NM = np.empty_like(means_NM)
        for train_N, out_N in splits(np.asarray(fold_N)):
            refitted = self._refitted(self.rows[train_N], self.losses_MN.T[train_N])
            # The parameters' posterior costs as much as learning them, and hardly differs by fold.
            refitted._roots = self._roots
            means_NM[out_N] = refitted._predict(self.rows[out_N])
            stds_NM[out_N] = refitted._std(self.rows[out_N])
        return means_NM, stds_NM

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        """Learn the hyperparameters, or take the given ones, and condition on the trials."""
        before: Any = self._before
        if before is not None:
            self.prior_2P = before.prior_2P
            self._condition(
                weights_ND, losses_NM, before.parameters_MP, before.means_M, before.units_M
            )
            return
        max_rows = self.learning_trials
        if max_rows < 2:
            raise ConfigError(f"gaussian_process: learning_trials is {max_rows}; need >= 2")
        means_M = losses_NM.mean(axis=0)
        units_M = _units(losses_NM)
        evidences = evidence_by_target(weights_ND, (losses_NM - means_M) / units_M)
        order_N = self._order(len(losses_NM))
        steps = STEPS
        self.prior_2P = np.empty((2, 0))
        if len(evidences) >= MIN_POOLED:
            steps = POOLED_STEPS
            prior = pooled(evidences, order_N, max_rows)
            self.prior_2P = np.stack([prior.centers_P, prior.spreads_P])
            evidences = [replace(evidence, prior=prior) for evidence in evidences]
        learned = [evidence.learned(order_N, max_rows, steps) for evidence in evidences]
        self._condition(weights_ND, losses_NM, np.array(learned), means_M, units_M)

    def _condition(
        self, rows: Array, losses_NM: Array, parameters_MP: Array, means_M: Array, units_M: Array
    ) -> None:
        """Store trials and hyperparameters."""
        self.rows = rows.copy()
        self.losses_MN = losses_NM.T.copy()
        self.parameters_MP = parameters_MP
        self.means_M = means_M
        self.units_M = units_M
        for cached in ("_roots", "_posteriors", "_stacked"):
            self.__dict__.pop(cached, None)
        duals = []
        for parameters_P, losses_N in zip(parameters_MP, self._standard().T, strict=True):
            posterior = Posterior.of(Matern.of(parameters_P), rows, losses_N)
            duals.append(posterior.dual_N)
        self.dual_MN = np.array(duals)

    def _refitted(self, rows: Array, losses_KM: Array) -> Self:
        copy: Self = self._bare_copy()
        is_small = len(losses_KM) <= FIRST
        if is_small and not self.prior_2P.size:
            return copy.fit(rows, losses_KM)
        means_M = losses_KM.mean(axis=0)
        units_M = _units(losses_KM)
        sample_N = self._order(len(losses_KM))[: self.learning_trials]
        evidences = self._evidences(rows, (losses_KM - means_M) / units_M)
        learned = []
        for evidence, parameters_P in zip(evidences, self.parameters_MP, strict=True):
            sample = evidence.subset(sample_N)
            if is_small:
                learned.append(sample.most_probable(steps=FOLD_STEPS))
            else:
                learned.append(sample.most_probable(parameters_P, REFIT_STEPS))
        copy._condition(rows, losses_KM, np.array(learned), means_M, units_M)
        return copy

    def _predict(self, weights_ND: Array) -> Array:
        return self.means_M + self.units_M * self._stacked.means(weights_ND)

    def _std(self, weights_ND: Array) -> Array:
        pairs = zip(self._posteriors, self._roots, strict=True)
        variances = [posterior.variance(weights_ND, root_PP) for posterior, root_PP in pairs]
        return self.units_M * np.sqrt(np.column_stack(variances))

    @cached_property
    def _roots(self) -> list[Array]:
        """Roots of the hyperparameters' covariances, computed on first use."""
        trials = len(self.rows)
        sample_K = self._order(trials)[:CURVATURE_TRIALS]
        evidences = self._evidences(self.rows, self._standard())
        max_rows = min(trials, self.learning_trials)
        samples = [evidence.subset(sample_K) for evidence in evidences]
        pairs = zip(samples, self.parameters_MP, strict=True)
        return [sample.spread(parameters_P, max_rows) for sample, parameters_P in pairs]

    @cached_property
    def _posteriors(self) -> list[Posterior]:
        """The posterior of each target, cached for searches."""
        kernels = [Matern.of(parameters_P) for parameters_P in self.parameters_MP]
        pairs = zip(kernels, self.dual_MN, strict=True)
        return [Posterior(kernel, self.rows, dual_N) for kernel, dual_N in pairs]

    def _evidences(self, rows: Array, losses_NM: Array) -> list[Evidence]:
        """Return the evidence of each target, under the learned prior if there is one."""
        evidences = evidence_by_target(rows, losses_NM)
        if not self.prior_2P.size:
            return evidences
        prior = Prior(*self.prior_2P)
        return [replace(evidence, prior=prior) for evidence in evidences]

    def _standard(self) -> Array:
        """Return the losses in standard deviations from their mean, shape (N, M)."""
        return (self.losses_MN.T - self.means_M) / self.units_M

    def _order(self, trials: int) -> IntArray:
        return np.random.default_rng(self.random_state).permutation(trials)

    @cached_property
    def _stacked(self) -> StackedPosteriors:
        return StackedPosteriors(self._posteriors)


def _units(losses_NM: Array) -> Array:
    """Return the losses' standard deviations; 1 if a loss is constant up to rounding."""
    spread_M = losses_NM.std(axis=0)
    return np.where(spread_M > 1e-12 * np.abs(losses_NM).max(axis=0), spread_M, 1.0)
