"""A Gaussian process for each target: smooth, and unsure where there are no trials.

The kernel and its warp are in `mixopt_regressors.gaussian.matern`, how its parameters are learned
in `mixopt_regressors.gaussian.hyperparameters`, and what a prediction and its standard deviation
are in `mixopt_regressors.gaussian.posterior`.

Above 256 trials hyperparameters are learned from 256 of them and polished on up to
`learning_trials`; the posterior always has all.

Hyperparameters that have seen a fold make the errors on it look far too small where trials are few,
and a few steps from them on the other trials repair only a part of that. So each fold learns its
own; with more than 256 other trials ten steps come to the same.

Shapes: N trials, K other mixtures, D domains, M targets, P = D + 3 hyperparameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import ConfigError, TrialsError
from mixopt.fitting import splits
from mixopt.system import Array, BoolArray, IntArray
from mixopt_regressors.gaussian.hyperparameters import FIRST, evidences
from mixopt_regressors.gaussian.matern import Matern
from mixopt_regressors.gaussian.posterior import Posterior, StackedPosteriors
from mixopt_regressors.mixture_regressor import (
    MixtureRegressor,
    lower_roots,
    plain_roots,
)


def plain_posteriors(
    kernels: Sequence[Matern],
    weights_ND: Array,
    dual_MN: Array,
    means_M: Array,
    units_M: Array,
    roots: Sequence[Array],
) -> dict[str, Any]:
    """Return the law of some processes on the same trials."""
    return {
        "kind": "gaussian_process",
        "weights_ND": weights_ND,
        "lengths_MD": np.array([kernel.lengths_D for kernel in kernels]),
        "powers_M": np.array([kernel.power for kernel in kernels]),
        "variances_M": np.array([kernel.variance for kernel in kernels]),
        "noises_M": np.array([kernel.noise for kernel in kernels]),
        "duals_MN": dual_MN,
        "means_M": means_M,
        "units_M": units_M,
        **plain_roots(lower_roots(np.array(roots))),
    }


CURVATURE_TRIALS = 128  # trials that tell how sure hyperparameters are; more are scaled up to
WARM = 10  # steps from the hyperparameters of the whole fit, where a fold leaves many trials


class GaussianProcessRegressor(MixtureRegressor):
    """One Gaussian process for each target, on warped weights with a length for each domain.

    Attributes:
        learning_trials: Hyperparameters are learned from so many trials at most, drawn at random.
        hyperparameters: What `tuned` passes on, a row for each target: log lengths, logit of the
            warp's power, log variance, log noise, and the mean and unit of the losses. None
            learns them.
        random_state: Seed of the draw.
    """

    by_target = ("parameters_MP", "means_M", "units_M", "losses_MN", "dual_MN")
    shared = ("weights_ND",)

    def __init__(
        self,
        learning_trials: int = 512,
        hyperparameters: Sequence[Sequence[float]] | None = None,
        random_state: int = 0,
    ) -> None:
        self.learning_trials = learning_trials
        self.hyperparameters = hyperparameters
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(np.asarray(weights_D, dtype=np.float64)))[0]
        gradient_MD: Array = self.units_M[:, None] * self._stacked.slopes(weights)
        return gradient_MD

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses, noise left out, shape (K, K)."""
        weights, loads = self._checked(weights_KD), np.asarray(loads_M, dtype=np.float64)
        total_KK = np.zeros((len(weights), len(weights)))
        for target in np.flatnonzero(loads):
            scale = float(loads[target] * self.units_M[target]) ** 2
            posterior = self._posteriors[target]
            total_KK += scale * posterior.covariance(weights, self._roots[target])
        return total_KK

    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers (mixopt.fitting.capabilities)."""
        kernels = [posterior.kernel for posterior in self._posteriors]
        return plain_posteriors(
            kernels, self.weights_ND, self.dual_MN, self.means_M, self.units_M, self._roots
        )

    def tuned(self) -> Self:
        """Return a copy to fit again with these hyperparameters: a Cholesky for each target."""
        columns = [self.parameters_MP, self.means_M[:, None], self.units_M[:, None]]
        copy: Self = super().tuned()
        return copy.set_params(hyperparameters=np.hstack(columns).tolist())  # type: ignore[no-any-return]

    def held_out(self, fold_N: ArrayLike, *, steps: int | None = None) -> Array:
        """Predict each trial of the fit from the trials of other folds, shape (N, M)."""
        means_NM = np.empty(self.losses_MN.T.shape)
        for refitted, out_N in self._refits(fold_N, steps):
            means_NM[out_N] = refitted._predict(self.weights_ND[out_N])
        return means_NM

    def cross_fit(
        self, weights_ND: ArrayLike, losses_NM: ArrayLike, fold_N: ArrayLike
    ) -> tuple[Array, Array]:
        """Fit on all trials, and predict each one as `held_out` does."""
        self.fit(weights_ND, losses_NM)
        means_NM, stds_NM = np.empty((2, *self.losses_MN.T.shape))
        for refitted, out_N in self._refits(fold_N, steps=None):
            # How sure parameters are costs as much as learning them, and hardly differs by fold.
            refitted._roots = self._roots
            means_NM[out_N] = refitted._predict(self.weights_ND[out_N])
            stds_NM[out_N] = refitted._std(self.weights_ND[out_N])
        return means_NM, stds_NM

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        if self.hyperparameters is None:
            self._learn(weights_ND, losses_NM)
        else:
            self._condition(weights_ND, losses_NM, *self._kept(losses_NM.shape[1]))

    def _learn(
        self,
        weights_ND: Array,
        losses_NM: Array,
        start_MP: Array | None = None,
        steps: int = WARM,
    ) -> None:
        """Learn the hyperparameters, from scratch or in some steps from a start, and condition."""
        if self.learning_trials < 2:
            raise ConfigError(
                f"gaussian_process: learning_trials is {self.learning_trials}; need >= 2"
            )
        means_M, units_M = losses_NM.mean(axis=0), _units(losses_NM)
        every = evidences(weights_ND, (losses_NM - means_M) / units_M)
        order_N, most = self._order(len(losses_NM)), self.learning_trials
        if start_MP is None:
            learned = [evidence.learned(order_N, most) for evidence in every]
        else:
            learned = [
                evidence.some(order_N[:most]).most_probable(start_P, steps)
                for evidence, start_P in zip(every, start_MP, strict=True)
            ]
        self._condition(weights_ND, losses_NM, np.array(learned), means_M, units_M)

    def _kept(self, targets: int) -> tuple[Array, Array, Array]:
        kept = np.array(self.hyperparameters, dtype=np.float64)
        shape = (targets, self.n_features_in_ + 5)
        if kept.shape != shape:
            raise ConfigError(
                f"gaussian_process: hyperparameters of shape {kept.shape}; these trials need"
                f" {shape}, or None to learn them"
            )
        return kept[:, :-2], kept[:, -2], kept[:, -1]

    def _condition(
        self,
        weights_ND: Array,
        losses_NM: Array,
        parameters_MP: Array,
        means_M: Array,
        units_M: Array,
    ) -> None:
        """Take in trials and hyperparameters."""
        self.weights_ND, self.losses_MN = weights_ND.copy(), losses_NM.T.copy()
        self.parameters_MP, self.means_M, self.units_M = parameters_MP, means_M, units_M
        for found in ("_roots", "_posteriors", "_stacked"):
            self.__dict__.pop(found, None)
        pairs = zip(parameters_MP, self._standard().T, strict=True)
        self.dual_MN = np.array(
            [
                Posterior.of(Matern.of(own_P), weights_ND, losses_N).dual_N
                for own_P, losses_N in pairs
            ]
        )

    def _refits(self, fold_N: ArrayLike, steps: int | None) -> Iterator[tuple[Self, BoolArray]]:
        """Yield for each fold a fit on the trials of the others, and which trials are in it."""
        trials, folds_N = len(self.weights_ND), np.asarray(fold_N)
        if folds_N.shape != (trials,):
            raise TrialsError(f"folds of shape {folds_N.shape}; the fit has {trials} trials")
        for other_N, out_N in splits(folds_N):
            if other_N.sum() < 2:
                raise TrialsError(
                    f"fold {folds_N[out_N][0]} leaves {other_N.sum()} of {trials} trials; need >= 2"
                )
            yield self._refitted(self.weights_ND[other_N], self.losses_MN.T[other_N], steps), out_N

    def _refitted(self, weights_KD: Array, losses_KM: Array, steps: int | None) -> Self:
        if steps == 0:
            return self.tuned().fit(weights_KD, losses_KM)
        copy: Self = self._bare_copy().set_params(hyperparameters=None)
        if steps is None and len(losses_KM) <= FIRST:
            return copy.fit(weights_KD, losses_KM)
        copy._learn(weights_KD, losses_KM, self.parameters_MP, steps or WARM)
        return copy

    def _predict(self, weights_ND: Array) -> Array:
        if len(weights_ND) == 1:
            one: Array = self.means_M + self.units_M * self._stacked.means(weights_ND[0])
            return one[None]
        means = [posterior.mean(weights_ND) for posterior in self._posteriors]
        predicted: Array = self.means_M + self.units_M * np.column_stack(means)
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        variances = [
            posterior.variance(weights_ND, root_PP)
            for posterior, root_PP in zip(self._posteriors, self._roots, strict=True)
        ]
        stds: Array = self.units_M * np.sqrt(np.column_stack(variances))
        return stds

    @cached_property
    def _roots(self) -> list[Array]:
        """Roots of the hyperparameters' covariances, found when a standard deviation is asked."""
        trials = len(self.weights_ND)
        some_K = self._order(trials)[:CURVATURE_TRIALS]
        return [
            evidence.some(some_K).spread(own_P, min(trials, self.learning_trials))
            for evidence, own_P in zip(
                evidences(self.weights_ND, self._standard()), self.parameters_MP, strict=True
            )
        ]

    @cached_property
    def _stacked(self) -> StackedPosteriors:
        return StackedPosteriors.of(self._posteriors)

    @cached_property
    def _posteriors(self) -> list[Posterior]:
        """One for each target, kept because a search asks for one mixture thousands of times."""
        return [
            Posterior(Matern.of(own_P), self.weights_ND, dual_N)
            for own_P, dual_N in zip(self.parameters_MP, self.dual_MN, strict=True)
        ]

    def _standard(self) -> Array:
        """Return the losses in standard deviations from their mean, shape (N, M)."""
        standard: Array = (self.losses_MN.T - self.means_M) / self.units_M
        return standard

    def _order(self, trials: int) -> IntArray:
        return np.random.default_rng(self.random_state).permutation(trials)


def _units(losses_NM: Array) -> Array:
    """Return the losses' standard deviations; 1 where they differ by rounding alone."""
    spread_M = losses_NM.std(axis=0)
    return np.where(spread_M > 1e-12 * np.abs(losses_NM).max(axis=0), spread_M, 1.0)
