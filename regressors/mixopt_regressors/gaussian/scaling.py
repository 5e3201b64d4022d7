"""Losses as a function of the mixture, the model's parameters and its tokens, all at once.

From trials of a few sizes it predicts a larger one: one Gaussian process for each target, with a
scaling law whose floor and amplitudes depend on the mixture
(mixopt_regressors.gaussian.scale_kernel). A mixture that was trained at several sizes lends its own
trend to the larger size, and one that was not, those of its neighbours. Rows of one scale make it
the regressor `gaussian_process`, to what its nearly free terms leave.

A row is the weights, then the parameters and the tokens that the trial was trained with. Count
parameters without embeddings: those of small models are mostly embeddings, and the losses of the
published 70M to 410M models follow no power law of all parameters.

The standard deviation is that of a new trial (see mixopt_regressors.gaussian.gaussian_process),
and has the uncertainty of exponents and amplitudes in it: it grows with the distance to the trials'
sizes.

Shapes: N trials, K other trials, D domains, M targets, P = D + 7 hyperparameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import lapack, solve_triangular

from mixopt.errors import TrialsError
from mixopt.system import Array
from mixopt_regressors.gaussian.gaussian_process import plain_posteriors
from mixopt_regressors.gaussian.hyperparameters import FIRST, cholesky
from mixopt_regressors.gaussian.matern import log_weights
from mixopt_regressors.gaussian.scale_kernel import OWN, ScaleEvidence, ScaleKernel, scale_evidences
from mixopt_regressors.mixture_regressor import MixtureRegressor

CHUNK = 2**17  # pairs of trials at once
AWAY = 0.02  # how far from 1 weights may add up to; published tables are rounded


class ScalingRegressor(MixtureRegressor):
    """A scaling law with a floor and amplitudes that depend on the mixture, one for each target.

    Rows are the weights of D domains, then parameters, then tokens.

    Attributes:
        learning_trials: Hyperparameters are learned from so many trials at most, drawn at random.
        hyperparameters: What `tuned` passes on, a row for each target; None learns them.
        random_state: Seed of the draw.
    """

    uses_scale: ClassVar[bool] = True
    by_target = ("parameters_MP", "means_M", "units_M", "losses_MN", "dual_MN")
    shared = ("weights_ND", "scales_N2", "largest_2")

    def __init__(
        self,
        learning_trials: int = 512,
        hyperparameters: Sequence[Sequence[float]] | None = None,
        random_state: int = 0,
    ) -> None:
        self.learning_trials = learning_trials
        self.hyperparameters = hyperparameters
        self.random_state = random_state

    def at(self, parameters: float, tokens: float) -> AtScale:
        """Return the fit for one scale: a predictor of mixtures alone."""
        return AtScale(self, float(parameters), float(tokens))

    def gradient(self, row: ArrayLike) -> Array:
        """Return the slope of each loss by each weight, at one row's scale, shape (M, D)."""
        rows = self._checked(np.atleast_2d(np.asarray(row, dtype=np.float64)))
        weights_1D, scales_12 = self._split(rows)
        slopes = [one.slopes(weights_1D[0], scales_12) for one in self._posteriors()]
        gradient_MD: Array = self.units_M[:, None] * np.array(slopes)
        return gradient_MD

    def law_at(self, parameters: float, tokens: float) -> dict[str, Any]:
        """Return the law at one scale as plain numbers (mixopt.fitting.capabilities)."""
        kernels = [posterior.kernel for posterior in self._posteriors()]
        asked_12 = np.log(np.array([[parameters, tokens]]) / self.largest_2)
        matern = [kernel.matern for kernel in kernels]
        return {
            **plain_posteriors(
                matern, self.weights_ND, self.dual_MN, self.means_M, self.units_M, self._roots
            ),
            "sizes": {
                "scales_N2": self.scales_N2,
                "asked_2": asked_12[0],
                "reach_2": self.scales_N2.min(axis=0),
                "changes_M2": np.array([kernel.changes_2 for kernel in kernels]),
                "exponents_M2": np.array([kernel.exponents_2 for kernel in kernels]),
            },
        }

    def tuned(self) -> Self:
        """Return a copy to fit again with these hyperparameters: a Cholesky for each target."""
        columns = [self.parameters_MP, self.means_M[:, None], self.units_M[:, None]]
        copy: Self = super().tuned()
        return copy.set_params(hyperparameters=np.hstack(columns).tolist())  # type: ignore[no-any-return]

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        rows_ND2 = _check_rows(weights_ND)
        self.largest_2 = rows_ND2[:, -2:].max(axis=0)
        self.weights_ND, self.scales_N2 = self._split(rows_ND2)
        self.losses_MN = losses_NM.T.copy()
        self.__dict__.pop("_roots", None)
        if self.hyperparameters is None:
            spread_M = losses_NM.std(axis=0)
            self.means_M, self.units_M = losses_NM.mean(axis=0), np.where(spread_M > 0, spread_M, 1)
            order_N = np.random.default_rng(self.random_state).permutation(len(losses_NM))
            learned = [one.learned(order_N, self.learning_trials) for one in self._evidences()]
            self.parameters_MP = np.array(learned)
        else:
            self.parameters_MP, self.means_M, self.units_M = self._kept(losses_NM.shape[1])
        self.dual_MN = np.array(
            [
                _dual(self._kernel(own_P), self.weights_ND, self.scales_N2, losses_N)
                for own_P, losses_N in zip(self.parameters_MP, self._standard_MN(), strict=True)
            ]
        )

    def _kept(self, targets: int) -> tuple[Array, Array, Array]:
        kept = np.array(self.hyperparameters, dtype=np.float64)
        shape = (targets, self.n_features_in_ + 3 + OWN)
        if kept.shape != shape:
            raise TrialsError(
                f"scaling: hyperparameters of shape {kept.shape}; these trials need {shape}, or"
                " None to learn them"
            )
        return kept[:, :-2], kept[:, -2], kept[:, -1]

    def _checked(self, weights_ND: ArrayLike) -> Array:
        columns = np.shape(weights_ND)[-1]
        if columns + 2 == getattr(self, "n_features_in_", None):
            raise TrialsError(
                f"scaling: rows of {columns} columns; they need {columns} weights, then parameters"
                " and tokens: append both, or predict with at(parameters, tokens)"
            )
        return _check_rows(super()._checked(weights_ND))

    def _split(self, rows_ND2: Array) -> tuple[Array, Array]:
        """Return the weights, and the scales relative to the largest."""
        return rows_ND2[:, :-2].copy(), np.log(rows_ND2[:, -2:] / self.largest_2)

    def _kernel(self, parameters_P: Array) -> ScaleKernel:
        return ScaleKernel.of(parameters_P, self.scales_N2.min(axis=0))

    def _standard_MN(self) -> Array:
        standard_MN: Array = (self.losses_MN - self.means_M[:, None]) / self.units_M[:, None]
        return standard_MN

    def _evidences(self) -> list[ScaleEvidence]:
        return scale_evidences(self.weights_ND, self.scales_N2, self._standard_MN().T)

    def _posteriors(self) -> list[_ScalePosterior]:
        return [
            _ScalePosterior(self._kernel(own_P), self.weights_ND, self.scales_N2, dual_N)
            for own_P, dual_N in zip(self.parameters_MP, self.dual_MN, strict=True)
        ]

    def _predict(self, weights_ND: Array) -> Array:
        weights, scales = self._split(weights_ND)
        means = [one.mean(weights, scales) for one in self._posteriors()]
        predicted: Array = self.means_M + self.units_M * np.column_stack(means)
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        weights, scales = self._split(weights_ND)
        variances = [
            one.variance(weights, scales, root_PP)
            for one, root_PP in zip(self._posteriors(), self._roots, strict=True)
        ]
        stds: Array = self.units_M * np.sqrt(np.column_stack(variances))
        return stds

    @cached_property
    def _roots(self) -> list[Array]:
        """Roots of the hyperparameters' covariances, found when a standard deviation is asked."""
        trials = len(self.weights_ND)
        some_K = np.random.default_rng(self.random_state).permutation(trials)[:FIRST]
        return [
            one.some(some_K).spread(own_P, min(trials, self.learning_trials))
            for one, own_P in zip(self._evidences(), self.parameters_MP, strict=True)
        ]


class AtScale:
    """A fitted scaling regressor at one number of parameters and tokens: of mixtures alone."""

    def __init__(self, regressor: ScalingRegressor, parameters: float, tokens: float) -> None:
        self.regressor = regressor
        self.parameters = parameters
        self.tokens = tokens

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses at this scale, shape (N, M), and their standard deviations if asked."""
        return self.regressor.predict(self._rows(weights_ND), return_std=return_std)

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        return self.regressor.gradient(self._rows(np.atleast_2d(weights_D))[0])

    def select(self, targets: Sequence[int]) -> AtScale:
        """Return one that predicts only these targets, by position."""
        return AtScale(self.regressor.select(targets), self.parameters, self.tokens)

    def plain_law(self) -> dict[str, Any]:
        """Return the law at this scale as plain numbers (mixopt.fitting.capabilities)."""
        return self.regressor.law_at(self.parameters, self.tokens)

    def tuned(self) -> AtScale:
        """Return one to fit again, on rows with their own scales."""
        return AtScale(self.regressor.tuned(), self.parameters, self.tokens)

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> AtScale:
        """Fit the regressor on weights, parameters and tokens, shape (N, D + 2)."""
        self.regressor.fit(rows, losses_NM)
        return self

    def _rows(self, weights_ND: ArrayLike) -> Array:
        weights = np.asarray(weights_ND, dtype=np.float64)
        scale_N2 = np.broadcast_to([self.parameters, self.tokens], (len(weights), 2))
        return np.hstack([weights, scale_N2])


@dataclass(frozen=True)
class _ScalePosterior:
    """A kernel and the trials that it is conditioned on."""

    kernel: ScaleKernel
    weights_ND: Array
    scales_N2: Array
    dual_N: Array

    def mean(self, weights_KD: Array, scales_K2: Array) -> Array:
        """Return the mean, shape (K,)."""
        parts = [np.empty(0)]
        for some_K in self._chunks(len(weights_KD)):
            side = (self.kernel.matern.scaled(weights_KD[some_K]), scales_K2[some_K])
            parts.append(self.kernel.covariance(self.kernel.pairs(side, self._own)) @ self.dual_N)
        return np.concatenate(parts)

    def slopes(self, weights_D: Array, scales_12: Array) -> Array:
        """Return the slope of the mean by the weights at one trial, shape (D,)."""
        side = (self.kernel.matern.scaled(weights_D[None]), scales_12)
        pairs = self.kernel.pairs(side, self._own)
        return self.kernel.slopes(weights_D, pairs, self._own[0], self.dual_N)

    def variance(self, weights_KD: Array, scales_K2: Array, root_PP: Array) -> Array:
        """Return the variance of a new trial's loss, shape (K,)."""
        kernel, logs_ND = self.kernel, log_weights(self.weights_ND)
        pairs = kernel.pairs(self._own, self._own)
        factor_NN = cholesky(kernel.noisy(pairs))
        moved_NP = kernel.push_forward_noisy(pairs, logs_ND, self.dual_N)
        solved_NP = lapack.dpotrs(factor_NN, moved_NP, lower=1)[0]
        parts = [np.empty(0)]
        for some_K in self._chunks(len(weights_KD)):
            logs_KD, scales = log_weights(weights_KD[some_K]), scales_K2[some_K]
            across = kernel.pairs((kernel.matern.warped(logs_KD), scales), self._own)
            covariance_KN = kernel.covariance(across)
            known_NK = solve_triangular(factor_NN, covariance_KN.T, lower=True, check_finite=False)
            left_K = np.maximum(kernel.height(across) - (known_NK**2).sum(axis=0), 0.0)
            moved_KP = kernel.push_forward(across, logs_KD, logs_ND, self.dual_N)
            moved_KP -= covariance_KN @ solved_NP
            unsure_K = ((moved_KP @ root_PP) ** 2).sum(axis=1)
            parts.append(left_K + kernel.matern.jittered_noise + unsure_K)
        return np.concatenate(parts)

    @cached_property
    def _own(self) -> tuple[Array, Array]:
        return self.kernel.matern.scaled(self.weights_ND), self.scales_N2

    def _chunks(self, count: int) -> Iterator[slice]:
        size = max(CHUNK // len(self.weights_ND), 1)
        for at in range(0, count, size):
            yield slice(at, at + size)


def _dual(kernel: ScaleKernel, weights_ND: Array, scales_N2: Array, losses_N: Array) -> Array:
    side = (kernel.matern.scaled(weights_ND), scales_N2)
    factor_NN = cholesky(kernel.noisy(kernel.pairs(side, side)))
    return np.asarray(lapack.dpotrs(factor_NN, losses_N, lower=1)[0])


def _check_rows(rows_ND2: Array) -> Array:
    """Return the rows, when they end in parameters and tokens."""
    if rows_ND2.shape[1] < 3:
        raise TrialsError(
            f"scaling: rows of {rows_ND2.shape[1]} columns; they need weights, parameters, tokens"
        )
    wrong = (rows_ND2[:, -2:] < 1).any(axis=1)
    wrong = wrong | (np.abs(rows_ND2[:, :-2].sum(axis=1) - 1.0) > AWAY)
    if wrong.any():
        row = int(np.argmax(wrong))
        parameters, tokens = rows_ND2[row, -2:]
        raise TrialsError(
            f"scaling: row {row} ends in {parameters:g} and {tokens:g}, and its other columns add"
            f" up to {rows_ND2[row, :-2].sum():.4g}; a row is weights that add up to 1, then"
            " parameters and tokens, as numpy.column_stack([weights, parameters, tokens])"
        )
    return rows_ND2
