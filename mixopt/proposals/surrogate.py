"""A regressor fitted on the trials so far, and what it predicts for untried mixtures.

Where the regressor says how sure it is of mixtures together (`covariance`), that is what is
believed. Where it says only how sure it is of each prediction, mixtures near each other are taken
to be off together, by a Matern kernel on the square roots of the weights. A regressor that says
nothing, or the same everywhere, is fitted again on resampled trials, and the ways in which the
refits disagree are the ways in which it may be off.

What a regressor says of one prediction is of a new trial, noise included. The noise is taken out:
what replicates differ by, and no more than the least deviation at a mixture that was trained.

Shapes: N trials, D domains, M measured losses, K mixtures, B refits, R directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixopt.config import FitConfig
from mixopt.fitting import (
    Learner,
    Predictor,
    Refitter,
    Repetition,
    fit_regressor,
    fit_trials,
    make_regressor,
    predict_with_std,
    replicate_spread,
    select_targets,
    supports,
)
from mixopt.objective import Objective
from mixopt.system import Array, Update, no_progress, one_blas_thread
from mixopt.trials import Trials

REFITS = 20
ROUNDING = 1e-12  # part of the largest eigenvalue below which a direction is none
REACH = 0.5  # distance of square roots of weights over which errors go together
JITTER = 1e-6
FLAT = 1e-6  # relative range under which deviations are the same everywhere


@dataclass(frozen=True, eq=False)
class Belief:
    """What a fit holds of the objective at some mixtures."""

    means_K: Array
    directions_RK: Array

    @classmethod
    def of(cls, means_K: Array, covariance_KK: Array) -> Belief:
        """Return a belief of this covariance; what rounding makes negative counts as 0."""
        values_R, vectors_KR = np.linalg.eigh(covariance_KK)
        kept_R = values_R > values_R.max() * ROUNDING
        directions_RK = np.sqrt(values_R[kept_R])[:, None] * vectors_KR.T[kept_R]
        return cls(means_K, np.asarray(directions_RK, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A fitted regressor of the objective's measured losses, and its training data.

    Attributes:
        name: The regressor's name.
        regressor: Fitted; predicts the measured losses in their order.
        objective: The objective over these losses.
        weights_ND: Mixtures of the finished trials.
        losses_NM: Their measured losses.
        mixtures: Fingerprint of each trial's mixture.
        seed: Of the regressor and of the refits.
        repetition: Inventory and tokens that the regressor was given.
    """

    name: str
    regressor: Predictor
    objective: Objective
    weights_ND: Array
    losses_NM: Array
    mixtures: list[str]
    seed: int
    repetition: Repetition | None = None

    def values(self, weights_KD: Array) -> Array:
        """Return the predicted objective, shape (K,)."""
        return self._value(self.regressor, weights_KD)

    def moments(self, weights_KD: Array) -> tuple[Array, Array]:
        """Return means and standard deviations of the objective without noise, shape (K,) each."""
        if self._refits:
            away_BK = self._disagreement(weights_KD)
            return self.values(weights_KD), np.sqrt((away_BK**2).sum(axis=0))
        means_K, stds_K = self._claimed(weights_KD)
        return means_K, np.sqrt(np.maximum(stds_K**2 - self._noise**2, 0.0))

    def believe(self, weights_KD: Array) -> Belief:
        """Return the fit's joint belief about the objective at some mixtures."""
        if supports(self.regressor, "covariance"):
            return Belief.of(self.values(weights_KD), self._covariance(weights_KD))
        if self._refits:
            return Belief(self.values(weights_KD), self._disagreement(weights_KD))
        means_K, stds_K = self.moments(weights_KD)
        return Belief(means_K, _together(weights_KD) * stds_K)

    @cached_property
    def noise(self) -> float:
        """Deviation of a trial's objective about its mixture's: of replicates, or as is claimed."""
        measured = replicate_spread(self.objective.value(self.losses_NM), self.mixtures)
        if measured is not None:
            return measured[0]
        stds_NM = predict_with_std(self.regressor, self.weights_ND)[1]
        least_M = stds_NM.reshape(self.losses_NM.shape).min(axis=0)
        # One target's error is independent of another's here, as it is in a covariance.
        return float(np.sqrt(((self.objective.pieces() * least_M) ** 2).sum(axis=1)).max())

    def _covariance(self, weights_KD: Array) -> Array:
        """Return the covariance of the objective, shape (K, K)."""
        assert supports(self.regressor, "covariance")
        pieces_PM = self.objective.pieces()
        losses = np.asarray(self.regressor.predict(weights_KD), dtype=np.float64)
        active_K = (losses.reshape(len(weights_KD), -1) @ pieces_PM.T).argmax(axis=1)
        total_KK = np.zeros((len(weights_KD), len(weights_KD)))
        for piece in np.unique(active_K):
            rows = np.flatnonzero(active_K == piece)
            own = self.regressor.covariance(weights_KD[rows], pieces_PM[piece])
            total_KK[np.ix_(rows, rows)] = own
        return total_KK

    def _claimed(self, weights_KD: Array) -> tuple[Array, Array]:
        """Return the predicted objective of new trials, and the deviation that is claimed."""
        means_KM, stds_KM = predict_with_std(self.regressor, weights_KD)
        shape = (len(weights_KD), len(self.objective.evaluation))
        values_K = self.objective.value(means_KM.reshape(shape))
        return values_K, self.objective.spread(stds_KM.reshape(shape))

    @cached_property
    def _noise(self) -> float:
        least = float(self._claimed(self.weights_ND)[1].min())
        measured = replicate_spread(self.objective.value(self.losses_NM), self.mixtures)
        return least if measured is None else min(measured[0], least)

    @cached_property
    def _refits(self) -> tuple[Predictor, ...]:
        """Fits on resampled mixtures; none where the regressor says itself how sure it is."""
        stds_N = self._claimed(self.weights_ND)[1]
        if np.ptp(stds_N) > FLAT * stds_N.max():
            return ()
        rng = np.random.default_rng([self.seed, 2])
        refitter = Refitter(
            self.name, self.regressor, self._make, self.weights_ND, self.losses_NM, self.mixtures
        )
        return refitter.resampled(REFITS, rng)

    def _make(self) -> Learner:
        return make_regressor(self.name, self.seed, self.repetition)

    def _disagreement(self, weights_KD: Array) -> Array:
        """Return how refits differ from their mean, in directions of unit variance, (B, K)."""
        values_BK = np.stack([self._value(one, weights_KD) for one in self._refits])
        away_BK: Array = (values_BK - values_BK.mean(axis=0)) / np.sqrt(len(values_BK) - 1)
        return away_BK

    def _value(self, regressor: Predictor, weights_KD: Array) -> Array:
        losses = np.asarray(regressor.predict(weights_KD), dtype=np.float64)
        return self.objective.value(losses.reshape(len(weights_KD), -1))


def fit_surrogate(
    trials: Trials,
    objective: Objective,
    config: FitConfig,
    *,
    regressor: str | None = None,
    seed: int = 0,
    repetition: Repetition | None = None,
    update: Update = no_progress,
) -> Surrogate:
    """Fit a regressor on the trials so far."""
    done, columns = trials.finished, objective.columns
    weights_ND, losses_NM = done.weights(), done.losses(objective.unit)[:, columns]
    fitted: Predictor
    if regressor is None:
        fit = fit_trials(done, config, objective, seed, repetition=repetition, update=update)
        name, fitted = fit.name, select_targets(fit.regressor, columns)
    else:
        name = regressor
        made = make_regressor(name, seed, repetition)
        with one_blas_thread(len(losses_NM)):
            fitted = fit_regressor(name, made, weights_ND, losses_NM)
    measured = objective.only_measured()
    return Surrogate(name, fitted, measured, weights_ND, losses_NM, done.mixtures, seed, repetition)


def _together(weights_KD: Array) -> Array:
    """Return directions of unit variance in which near mixtures are off alike, shape (R, K)."""
    roots_KD = np.sqrt(np.maximum(weights_KD, 0.0))
    squared_KK = np.maximum(2.0 - 2.0 * roots_KD @ roots_KD.T, 0.0)
    scaled_KK = np.sqrt(5.0 * squared_KK) / REACH
    kernel_KK = (1.0 + scaled_KK + scaled_KK**2 / 3.0) * np.exp(-scaled_KK)
    kernel_KK[np.diag_indices(len(kernel_KK))] = 1.0 + JITTER
    return np.asarray(np.linalg.cholesky(kernel_KK).T, dtype=np.float64)
