"""Power laws of units that all targets share, so that each loss informs the others.

    L_m(w) = c_m + sum_k B_mk (e_k + sum_j A_kj w_j)^(-g_k),  A, B >= 0

Each unit is a skill taught by some domains, and each loss falls with the skills that it needs. The
first percent of a relevant domain lowers a loss more than the next ten. A sum of units can depend
on several domains with different decays, and because all targets share the units, each unit is
estimated from many more losses than trials. The law is convex in the mixture. Fits from several
starts are averaged, which is again such a law with all their units.

Because weights add up to 1, e and the scale of a unit are absorbed into A: what remains is a height
h_j for each domain, the unit's value at that domain alone, h(w) = (sum_j w_j h_j^(-1/g))^(-g).

The strength of the prior is chosen on held-out folds of the training rows, which also give the
ratio of held-out errors to residuals. The standard deviation of a new trial is the residuals'
times that ratio, times sqrt(1 + p' H^-1 p) relative to its mean, where p are the units at the
mixture and H their cross products over the trials.

A load is the square of a root, so that descent (L-BFGS with exact gradients) needs no bound at 0,
where bounded descent gets stuck. The prior prefers small units, units that ignore a domain, and low
decays; one strength scales all three.

Shapes: N trials, D domains, M targets, K units of a fit, U units of all fits, Q = U + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from mixopt.fitting import splits
from mixopt.system import Array, IntArray
from mixopt_regressors.laws.descent import minimise
from mixopt_regressors.mixture_regressor import (
    MixtureRegressor,
    distinct_rows,
    plain_roots,
    root_of,
    single_if_large,
)

# Curvatures of the penalties at strength 1; LOAD_PENALTY is a slope.
LOG_PENALTY = 0.1  # of the logarithm of a height
DECAY_PENALTY = 0.3  # of the logarithm of a decay, from the usual one
LOAD_PENALTY = 0.01
SQUARED_LOAD_PENALTY = 0.01
FLOOR_PENALTY = 1e-3  # of a floor, from the usual one
USUAL_DECAY = 0.15
USUAL_FLOOR = 0.5  # standard deviations below the lowest loss
START_DECREASE = 2.0  # initial decrease of a unit's log height at one domain
STEP_SIZES = (3.0, 3.0, 3.0, 1.0)  # scales of logs, decays, floors and roots in the descent
WALL = 10.0  # penalty of squared distances outside the bounds; hard bounds are slow
LOG_DECAYS = (math.log(0.05), math.log(20.0))  # bounds
LOGS = (-12.0, 6.0)  # bounds of log heights; with the lowest decays, sums stay finite
MAX_LOG = 30.0  # cap on the logarithm of a mean, for mixtures outside the simplex
TINY = 1e-300  # keeps the mean of a mixture without weights finite
STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
DEFAULT_STRENGTH = 2  # index of the strength tried first
STEPS = 260  # of the descent
FOLD_STEPS = 130
WARM_STEPS = 100  # of a refit, which then varies .3 to .9 times as much as a fit from scratch
MIN_UNITS = 40  # of a fit; in between one for each domain
MAX_UNITS = 128
RESTARTS = 3  # fits to average


class Heights:
    """Heights and decays of units, with values precomputed for their means."""

    def __init__(self, logs_KD: Array, log_decays_K: Array) -> None:
        self.logs_KD = logs_KD
        self.decays_K = np.exp(log_decays_K)
        powers_KD = -logs_KD / self.decays_K[..., None]
        self.top_K = powers_KD.max(axis=-1)
        self.terms_KD = np.exp(powers_KD - self.top_K[..., None])

    def means(self, weights_ND: Array) -> tuple[Array, Array, Array]:
        """Return the units at mixtures, their logarithms, and the sums inside them, (N, K) each."""
        sums_NK = weights_ND @ self.terms_KD.mT + TINY
        logs_NK = -self.decays_K[..., None, :] * (np.log(sums_NK) + self.top_K[..., None, :])
        return np.exp(np.minimum(logs_NK, MAX_LOG)), logs_NK, sums_NK


class Units(NamedTuple):
    """Parameters of several fits: units, and the loads of each target."""

    logs_FKD: Array
    log_decays_FK: Array
    floors_FM: Array
    roots_FMK: Array

    def predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (F, N, M)."""
        heights_FNK, _, _ = Heights(self.logs_FKD, self.log_decays_FK).means(weights_ND)
        return self.floors_FM[:, None] + heights_FNK @ (self.roots_FMK**2).mT

    def vectors(self) -> Array:
        """Return all parameters of each fit as a row, shape (F, P)."""
        return np.concatenate([part.reshape(len(part), -1) for part in self], axis=1)

    def shaped(self, vectors_FP: Array) -> Units:
        """Return units of the shapes of these from `vectors` of them."""
        parts = []
        start = 0
        for part in self:  # slices are faster than np.split
            end = start + part[0].size
            parts.append(vectors_FP[:, start:end].reshape(-1, *part.shape[1:]))
            start = end
        return Units(*parts)

    def descend(self, weights_ND: Array, losses_NM: Array, strength: float, steps: int) -> Units:
        """Minimise by L-BFGS; equal rows, as in resampled trials, are merged."""
        domains = weights_ND.shape[1]
        rows, index_N = distinct_rows(np.hstack([weights_ND, losses_NM]))
        distinct_ND = np.ascontiguousarray(rows[:, :domains])
        distinct_NM = np.ascontiguousarray(rows[:, domains:])
        counts_N1 = np.bincount(index_N).astype(float)[:, None]
        step_P = np.repeat(STEP_SIZES, [part[0].size for part in self])
        prior = Prior.of(self, losses_NM.min(axis=0), strength)
        in_prior = slice(prior.centers_B.size)

        def cost(points_FP: Array) -> tuple[Array, Array]:
            scaled_FP = step_P * points_FP
            units = self.shaped(scaled_FP)
            values_F, slopes = squares(units, distinct_ND, distinct_NM, counts_N1, strength)
            penalties_F, slopes_FB = prior.cost(scaled_FP[:, in_prior])
            slopes_FP = slopes.vectors()
            slopes_FP[:, in_prior] += slopes_FB
            return values_F + penalties_F, step_P * slopes_FP

        minimum = self.shaped(step_P * minimise(cost, self.vectors() / step_P, steps))
        return minimum._replace(
            logs_FKD=minimum.logs_FKD.clip(*LOGS),
            log_decays_FK=minimum.log_decays_FK.clip(*LOG_DECAYS),
        )


class Prior(NamedTuple):
    """Normal distributions of logs, log decays and floors, with penalties outside their bounds."""

    centers_B: Array
    costs_B: Array
    low_B: Array
    high_B: Array

    @classmethod
    def of(cls, units: Units, minima_M: Array, strength: float) -> Self:
        """Return the prior of units, given the lowest loss of each target."""
        sizes = [part[0].size for part in units[:3]]
        costs = strength * np.array([LOG_PENALTY, DECAY_PENALTY, FLOOR_PENALTY])
        bounds = np.array([LOGS, LOG_DECAYS, (-math.inf, math.inf)])
        centers_B = np.repeat([0.0, math.log(USUAL_DECAY), 0.0], sizes)
        centers_B[-len(minima_M) :] = minima_M - USUAL_FLOOR
        return cls(
            centers_B,
            costs_B=np.repeat(costs, sizes),
            low_B=np.repeat(bounds[:, 0], sizes),
            high_B=np.repeat(bounds[:, 1], sizes),
        )

    def cost(self, parameters_FB: Array) -> tuple[Array, Array]:
        """Return the penalty of parameters, shape (F,), and its gradient."""
        deviations_FB = parameters_FB - self.centers_B
        slopes_FB = self.costs_B * deviations_FB
        # Faster than np.clip for few values.
        bounded_FB = np.minimum(np.maximum(parameters_FB, self.low_B), self.high_B)
        excess_FB = parameters_FB - bounded_FB
        twice_F = np.vecdot(slopes_FB, deviations_FB) + WALL * np.vecdot(excess_FB, excess_FB)
        return 0.5 * twice_F, slopes_FB + WALL * excess_FB


def start(losses_NM: Array, domains: int, units: int, rngs: Sequence[np.random.Generator]) -> Units:
    """Return initial fits, whose units depend on one domain each, in turn."""
    floors_M = losses_NM.min(axis=0) - USUAL_FLOOR
    logs = []
    log_decays = []
    roots = []
    for rng in rngs:
        logs_KD = rng.normal(0.0, 0.3, (units, domains))
        logs_KD[np.arange(units), np.arange(units) % domains] -= START_DECREASE
        logs.append(logs_KD)
        log_decays.append(np.log(USUAL_DECAY) + 0.3 * rng.standard_normal(units))
        roots.append(np.sqrt(rng.uniform(0.2, 2.0, (len(floors_M), units)) / units))
    floors_FM = np.stack([floors_M] * len(rngs))
    return Units(np.stack(logs), np.stack(log_decays), floors_FM, np.stack(roots))


def squares(
    units: Units, weights_ND: Array, losses_NM: Array, counts_N1: Array, strength: float
) -> tuple[Array, Units]:
    """Return half the squared errors plus the penalty of loads, shape (F,), and gradients."""
    heights = Heights(units.logs_FKD, units.log_decays_FK)
    heights_FNK, logs_FNK, sums_FNK = heights.means(weights_ND)
    loads_FMK = units.roots_FMK**2
    off_FNM = units.floors_FM[:, None] + heights_FNK @ loads_FMK.mT - losses_NM
    pull_FNM = counts_N1 * off_FNM
    by_log_FNK = (pull_FNM @ loads_FMK) * heights_FNK
    by_logs_FKD = heights.terms_KD * ((by_log_FNK / sums_FNK).mT @ weights_ND)
    by_decay_FK = (by_log_FNK * logs_FNK).sum(axis=1) - np.vecdot(by_logs_FKD, units.logs_FKD)
    slopes_FMK = (strength * SQUARED_LOAD_PENALTY) * loads_FMK
    values_F = np.vecdot(pull_FNM, off_FNM).sum(axis=1)
    values_F += np.vecdot(slopes_FMK, loads_FMK).sum(axis=1)
    values_F = 0.5 * values_F + strength * LOAD_PENALTY * loads_FMK.sum(axis=(1, 2))
    slopes_FMK += pull_FNM.mT @ heights_FNK
    slopes_FMK += strength * LOAD_PENALTY
    slopes_FMK *= 2.0 * units.roots_FMK
    return values_F, Units(by_logs_FKD, by_decay_FK, pull_FNM.sum(axis=1), slopes_FMK)


class Choice(NamedTuple):
    """A strength of the prior, and the errors of fits with it."""

    strength: float
    optimism: float  # held-out error relative to the residuals
    error: float = math.nan  # held-out root mean squared error; nan if taken from another fit


class SkillsRegressor(MixtureRegressor):
    """Power laws of units that all targets share.

    Attributes:
        folds: Held-out folds that choose the strength.
        random_state: Seed of starts and folds.
    """

    by_target = ("floors_M", "loads_MU", "scales_M", "noise_M")
    shared = ("logs_UD", "log_decays_U", "inverse_QQ", "strength_", "optimism_")
    _steps = STEPS
    _choice: Choice | None = None

    def __init__(self, folds: int = 3, random_state: int = 0) -> None:
        self.folds = folds
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(weights_D))
        units = self._heights()
        heights_NU, _, sums_NU = units.means(weights)
        by_sum_U = (-units.decays_K * heights_NU / sums_NU)[0]
        slopes_UD = by_sum_U[:, None] * units.terms_KD
        gradient: Array = self.scales_M[:, None] * (self.loads_MU @ slopes_UD)
        return gradient

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses without noise, shape (K, K)."""
        basis_KQ = self._basis(self._checked(weights_KD))
        scale = float(((np.asarray(loads_M) * self.noise_M) ** 2).sum())
        return scale * (basis_KQ @ self.inverse_QQ @ basis_KQ.T)

    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers (mixopt.fitting.regressor)."""
        return {
            "kind": "skills",
            "floors_M": self.floors_M,
            "scales_M": self.scales_M,
            "loads_MU": single_if_large(self.loads_MU),
            "logs_UD": single_if_large(self.logs_UD),
            "log_decays_U": self.log_decays_U,
            "noise_M": self.noise_M,
            **plain_roots(root_of(self.inverse_QQ)[None]),
        }

    def chosen(self) -> Self:
        """Return an unfitted copy for folds, with this fit's strength and error ratio."""
        copy: Self = clone(self)
        copy._choice = Choice(float(self.strength_), float(self.optimism_))
        copy._steps = FOLD_STEPS
        return copy

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        centres_M = losses_NM.mean(axis=0)
        scales_M = losses_NM.std(axis=0)
        self.scales_M = np.where(scales_M > 1e-12 * (1.0 + np.abs(centres_M)), scales_M, 1.0)
        scaled_NM = (losses_NM - centres_M) / self.scales_M
        before: Any = self._before
        if before is not None:
            self._choice = Choice(float(before.strength_), float(before.optimism_))
        choice = self._choice or self._chosen(weights_ND, scaled_NM)
        self.strength_ = np.array(choice.strength)
        self.optimism_ = np.array(choice.optimism)
        units = self._units_before(centres_M, weights_ND.shape[1])
        if units is None:
            units = self._descended(weights_ND, scaled_NM, choice.strength, RESTARTS, self._steps)
        else:
            units = units.descend(weights_ND, scaled_NM, choice.strength, WARM_STEPS)
        self._store(units, weights_ND, scaled_NM, centres_M)

    def _units_before(self, centres_M: Array, domains: int) -> Units | None:
        """Return the units that a refit starts from; None for a fit from scratch."""
        before = self._before
        targets = len(centres_M)
        if before is None or targets != len(before.floors_M) or domains != before.n_features_in_:
            return None
        floors_M = (before.floors_M - centres_M) / self.scales_M
        ratio_M1 = (before.scales_M / self.scales_M)[:, None]
        roots_MU = np.sqrt(before.loads_MU * RESTARTS) * np.sqrt(ratio_M1)
        return Units(
            before.logs_UD.reshape(RESTARTS, -1, domains),
            before.log_decays_U.reshape(RESTARTS, -1),
            np.tile(floors_M, (RESTARTS, 1)),
            roots_MU.reshape(targets, RESTARTS, -1).swapaxes(0, 1),
        )

    def _chosen(self, weights_ND: Array, losses_NM: Array) -> Choice:
        """Return the strength with the lowest held-out error."""
        fold_N = self._fold_of(weights_ND)
        if fold_N is None:
            return Choice(STRENGTHS[0], optimism=1.0)

        def first_minimum(choice: Choice, strengths: Sequence[float]) -> Choice:
            """Return the last choice before the error stops decreasing."""
            for strength in strengths:
                following = self._held_out(weights_ND, losses_NM, fold_N, strength)
                if following.error >= choice.error:
                    break
                choice = following
            return choice

        default = self._held_out(weights_ND, losses_NM, fold_N, STRENGTHS[DEFAULT_STRENGTH])
        best = first_minimum(default, STRENGTHS[DEFAULT_STRENGTH + 1 :])  # weaker ones
        if best is default:
            best = first_minimum(default, STRENGTHS[DEFAULT_STRENGTH - 1 :: -1])
        return best

    def _held_out(
        self, weights_ND: Array, losses_NM: Array, fold_N: IntArray, strength: float
    ) -> Choice:
        """Return a strength with its errors on held-out folds."""
        errors = []
        residuals = []
        for train_N, out_N in splits(fold_N):
            rows = weights_ND[train_N]
            losses = losses_NM[train_N]
            units = self._descended(rows, losses, strength, 1, FOLD_STEPS)
            errors.append(units.predict(weights_ND[out_N])[0] - losses_NM[out_N])
            residuals.append(units.predict(rows)[0] - losses)
        error = _root_mean_square(np.vstack(errors))
        residual = _root_mean_square(np.vstack(residuals))
        return Choice(strength, max(error / max(residual, 1e-12), 1.0), error)

    def _descended(
        self, weights_ND: Array, losses_NM: Array, strength: float, fits: int, steps: int
    ) -> Units:
        domains = weights_ND.shape[1]
        units = int(np.clip(domains, MIN_UNITS, MAX_UNITS))
        rngs = [np.random.default_rng([self.random_state, restart]) for restart in range(fits)]
        initial = start(losses_NM, domains, units, rngs)
        return initial.descend(weights_ND, losses_NM, strength, steps)

    def _store(self, units: Units, weights_ND: Array, losses_NM: Array, centres_M: Array) -> None:
        """Average fits by joining their units with scaled loads."""
        floors_M = units.floors_FM.mean(axis=0)
        loads_MFK = (units.roots_FMK**2).swapaxes(0, 1)
        self.loads_MU = loads_MFK.reshape(len(floors_M), -1) / len(units.floors_FM)
        self.logs_UD = units.logs_FKD.reshape(-1, weights_ND.shape[1])
        self.log_decays_U = units.log_decays_FK.ravel()
        self.floors_M = centres_M + self.scales_M * floors_M
        basis_NQ = self._basis(weights_ND)
        penalty_Q = np.append(0.0, np.full(len(self.log_decays_U), SQUARED_LOAD_PENALTY))
        products_QQ = basis_NQ.T @ basis_NQ + np.diag(penalty_Q * max(float(self.strength_), 1e-6))
        self.inverse_QQ = np.linalg.pinv(products_QQ, hermitian=True)
        residuals_NM = floors_M + basis_NQ[:, 1:] @ self.loads_MU.T - losses_NM
        spread_M = np.sqrt((residuals_NM**2).mean(axis=0))
        mean_widening = float(np.sqrt((self._widening(weights_ND) ** 2).mean()))
        self.noise_M = self.scales_M * spread_M * float(self.optimism_) / mean_widening

    def _heights(self) -> Heights:
        heights: Heights | None = self.__dict__.get("_cached_heights")
        if heights is None or heights.logs_KD is not self.logs_UD:  # cached for searches
            heights = self._cached_heights = Heights(self.logs_UD, self.log_decays_U)
        return heights

    def _basis(self, weights_ND: Array) -> Array:
        """Return 1 and the units at mixtures, shape (N, Q)."""
        heights_NU, _, _ = self._heights().means(weights_ND)
        return np.column_stack([np.ones(len(weights_ND)), heights_NU])

    def _widening(self, weights_ND: Array) -> Array:
        basis_NQ = self._basis(weights_ND)
        leverage_N = ((basis_NQ @ self.inverse_QQ) * basis_NQ).sum(axis=1)
        return np.asarray(np.sqrt(1.0 + np.maximum(leverage_N, 0.0)))

    def _predict(self, weights_ND: Array) -> Array:
        heights_NU, _, _ = self._heights().means(weights_ND)
        predicted: Array = self.floors_M + self.scales_M * (heights_NU @ self.loads_MU.T)
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        std: Array = self._widening(weights_ND)[:, None] * self.noise_M
        return std


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))
