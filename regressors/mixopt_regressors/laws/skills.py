"""Power laws of units shared by all targets, so that each loss informs the others.

    L_m(w) = c_m + sum_k B_mk (e_k + sum_j A_kj w_j)^(-g_k),  A, B >= 0

Each unit is a skill that some domains teach, and each loss falls with the skills that it needs. The
first percent of a domain that matters lowers a loss more than the next ten. A sum of units can
follow more than one domain at different speeds, and because units belong to all targets there are
many more losses than trials to find them from. It is convex in the mixture. Several fits from
different starts are averaged, which is again such a law, of all their units.

e and the scale of a unit go into A, because weights add up to 1: what is left is a height h_j for
each domain, that of the unit where it is all there is, h(w) = (sum_j w_j h_j^(-1/g))^(-g).

The strength of the prior is chosen on held-out folds of the training rows, which also show how much
larger errors are there than residuals. The standard deviation is that of a new trial: residuals
times that, and times sqrt(1 + p' H^-1 p) over the mean of it, where p are the units at the mixture
and H their products over the trials.

A load is the square of its root, so that descent (L-BFGS with exact gradients) needs no bound at 0,
where bounded descent is seen to get stuck. The prior says that units are small, that a domain does
not matter to a unit, and that decays are low; one strength scales all of it.

Shapes: N trials, D domains, M targets, K units of a fit, U units of all fits, Q = U + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.fitting import splits
from mixopt.system import Array, IntArray
from mixopt_regressors.mixture_regressor import (
    MixtureRegressor,
    plain_roots,
    root_of,
    single_if_large,
)

# Strengths of the prior, at strength 1: a squared logarithm of a height costs 0.05, and so on.
OF_LOGS, OF_DECAYS, OF_LOADS, OF_SQUARED_LOADS, OF_FLOORS = 0.1, 0.3, 0.01, 0.01, 1e-3
USUAL_DECAY = 0.15
USUAL_FLOOR = 0.5  # standard deviations below the least loss
OWN = 2.0  # how far a unit starts to fall where its own domain is all there is
FAST, ROOT_STEP = 3.0, 1.0  # units in which logs, decays and floors descend, and roots of loads
MEMORY = 10  # steps that L-BFGS remembers
WALL = 10.0  # what a squared step outside of the bounds costs; bounds themselves are slow
ENOUGH = 1e-7  # a step that gains a smaller part of the loss is the last


LOG_DECAYS = (math.log(0.05), math.log(20.0))
LOGS = (-12.0, 6.0)  # of heights in standard deviations; with least decays, sums stay normal
MAX_LOG = 30.0  # largest logarithm of a mean, in case a mixture is outside the simplex
NOTHING = 1e-300  # a mixture without any weight has a finite mean


def _between(values: Array, ends: tuple[float, float]) -> Array:
    """Return values cut off at both ends, faster than numpy's clip where there are few."""
    cut: Array = np.minimum(np.maximum(values, ends[0]), ends[1])
    return cut


@dataclass(frozen=True, eq=False)
class Heights:
    """Heights of units and their decays, and what means of any mixtures need of them."""

    logs_KD: Array
    log_decays_K: Array

    @cached_property
    def decays_K(self) -> Array:
        """Decays."""
        return np.asarray(np.exp(self.log_decays_K), dtype=np.float64)

    @cached_property
    def terms(self) -> tuple[Array, Array]:
        """Heights to the power -1/g over the greatest of them, and the logarithm of that."""
        powers_KD = -self.logs_KD / self.decays_K[:, None]
        top_K = powers_KD.max(axis=1)
        return np.exp(powers_KD - top_K[:, None]), top_K


@dataclass(frozen=True, eq=False)
class PowerMeans:
    """Means of heights at mixtures, and their derivatives."""

    weights_ND: Array
    of: Heights

    @cached_property
    def heights_NK(self) -> Array:
        """The means."""
        heights: Array = np.exp(np.minimum(self.logs_NK, MAX_LOG))
        return heights

    @cached_property
    def logs_NK(self) -> Array:
        """Logarithms of the means."""
        logs: Array = -self.of.decays_K * (np.log(self._sums_NK) + self.of.terms[1])
        return logs

    def by_weight(self) -> Array:
        """Return derivatives of the means by the weights, shape (N, K, D)."""
        factors_NK = -self.of.decays_K * self.heights_NK / self._sums_NK
        slopes: Array = factors_NK[:, :, None] * self.of.terms[0]
        return slopes

    def pull(self, slopes_NK: Array) -> tuple[Array, Array]:
        """Return derivatives of a loss by the log decays, (K,), and by the logs, (K, D)."""
        by_log_NK = slopes_NK * self.heights_NK
        by_logs_KD = self.of.terms[0] * ((by_log_NK / self._sums_NK).T @ self.weights_ND)
        by_decay_K = (by_log_NK * self.logs_NK).sum(axis=0)
        by_decay_K -= (by_logs_KD * self.of.logs_KD).sum(axis=1)
        return by_decay_K, by_logs_KD

    @cached_property
    def _sums_NK(self) -> Array:
        return np.asarray(self.weights_ND @ self.of.terms[0].T + NOTHING, dtype=np.float64)


@dataclass(frozen=True)
class SharedUnits:
    """Parameters: units, and how each target loads on them."""

    logs_KD: Array
    log_decays_K: Array
    roots_MK: Array
    floors_M: Array

    @classmethod
    def start(cls, losses_NM: Array, domains: int, units: int, rng: np.random.Generator) -> Self:
        """Return units of which each falls with one domain, in turn."""
        logs_KD = rng.normal(0.0, 0.3, (units, domains))
        logs_KD[np.arange(units), np.arange(units) % domains] -= OWN
        targets = losses_NM.shape[1]
        return cls(
            logs_KD,
            np.log(USUAL_DECAY) + 0.3 * rng.standard_normal(units),
            np.sqrt(rng.uniform(0.2, 2.0, (targets, units)) / units),
            losses_NM.min(axis=0) - USUAL_FLOOR,
        )

    def outside(self) -> tuple[Array, Array]:
        """Return how far logs and log decays are outside of what power means can take."""
        return (
            self.logs_KD - _between(self.logs_KD, LOGS),
            self.log_decays_K - _between(self.log_decays_K, LOG_DECAYS),
        )

    def inside(self) -> SharedUnits:
        """Return the nearest units that power means can take."""
        over_KD, over_K = self.outside()
        return replace(
            self, logs_KD=self.logs_KD - over_KD, log_decays_K=self.log_decays_K - over_K
        )

    @property
    def loads_MK(self) -> Array:
        """How much each unit adds to each loss."""
        return np.asarray(self.roots_MK**2, dtype=np.float64)

    def means(self, weights_ND: Array) -> PowerMeans:
        """Return the units at mixtures."""
        return PowerMeans(weights_ND, Heights(self.logs_KD, self.log_decays_K))

    def predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (N, M)."""
        predicted: Array = self.floors_M + self.means(weights_ND).heights_NK @ self.loads_MK.T
        return predicted

    def vector(self) -> Array:
        """Return all parameters, one after the other."""
        parts = (self.logs_KD, self.log_decays_K, self.roots_MK, self.floors_M)
        return np.concatenate([part.ravel() for part in parts])

    def like(self, vector: Array) -> SharedUnits:
        """Return parameters of this shape out of a vector."""
        parts = (self.logs_KD, self.log_decays_K, self.roots_MK, self.floors_M)
        shaped, at = [], 0
        for part in parts:
            shaped.append(vector[at : at + part.size].reshape(part.shape))
            at += part.size
        return SharedUnits(*shaped)


@dataclass(frozen=True)
class UnitsFit:
    """Penalised least squares, and the parameters reached so far."""

    weights_ND: Array
    losses_NM: Array
    strength: float
    units: SharedUnits

    def descend(self, steps: int) -> UnitsFit:
        """Go downhill by L-BFGS."""
        from scipy.optimize import minimize

        units = self.units
        parts = (units.logs_KD, units.log_decays_K, units.roots_MK, units.floors_M)
        sizes = [ROOT_STEP if part is units.roots_MK else FAST for part in parts]
        step = np.repeat(sizes, [part.size for part in parts])

        def loss(steps: Array) -> tuple[float, Array]:
            value, slopes = self.loss(units.like(step * steps))
            return value, step * slopes

        # A step that goes astray has a loss that is not finite, and is taken back.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            found: Any = minimize(
                loss,
                units.vector() / step,
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": steps, "maxcor": MEMORY, "ftol": ENOUGH, "gtol": 0.0},
            )
        return replace(self, units=units.like(step * found.x).inside())

    def loss(self, units: SharedUnits) -> tuple[float, Array]:
        """Return half the penalised sum of squares, and its gradient by `units.vector()`."""
        means = units.means(self.weights_ND)
        residuals_NM = units.floors_M + means.heights_NK @ units.loads_MK.T - self.losses_NM
        by_decay_K, by_logs_KD = means.pull(residuals_NM @ units.loads_MK)
        by_loads_MK, by_floors_M = residuals_NM.T @ means.heights_NK, residuals_NM.sum(axis=0)
        prior, (logs_KD, log_decays_K, loads_MK, floors_M) = self._prior(units)
        gradient = SharedUnits(
            by_logs_KD + logs_KD,
            by_decay_K + log_decays_K,
            2.0 * units.roots_MK * (by_loads_MK + loads_MK),
            by_floors_M + floors_M,
        )
        return 0.5 * float((residuals_NM**2).sum()) + prior, gradient.vector()

    def _prior(self, units: SharedUnits) -> tuple[float, list[Array]]:
        """Return what the prior costs, and its slopes by logs, log decays, loads and floors."""
        decays_K = units.log_decays_K - np.log(USUAL_DECAY)
        floors_M = units.floors_M - (self.losses_NM.min(axis=0) - USUAL_FLOOR)
        apart = (units.logs_KD, decays_K, units.loads_MK, floors_M)
        costs = (OF_LOGS, OF_DECAYS, OF_SQUARED_LOADS, OF_FLOORS)
        pairs = list(zip(costs, apart, strict=True))
        value = 0.5 * sum(cost * float(np.vdot(part, part)) for cost, part in pairs)
        slopes = [self.strength * cost * part for cost, part in pairs]
        slopes[2] += self.strength * OF_LOADS
        value = self.strength * (value + OF_LOADS * float(units.loads_MK.sum()))
        for place, over in enumerate(units.outside()):
            value += 0.5 * WALL * float(np.vdot(over, over))
            slopes[place] += WALL * over
        return value, slopes


STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
USUAL = 2  # the place of the strength that is tried first
STEPS, FOLD_STEPS = 260, 130
WARM_STEPS = 100  # of a refit; it then moves .88 as far as a fit from scratch, with 20 a third
MIN_UNITS, MAX_UNITS = 40, 128


class SkillsRegressor(MixtureRegressor):
    """Power laws of shared units, for all targets at once.

    Attributes:
        units: Units of a fit; None is one for each domain, at least 40 and at most 128.
        strength: Strength of the prior; None chooses from `STRENGTHS` on held-out folds of the
            training rows.
        restarts: Fits that are averaged.
        folds: Held-out folds that choose the strength.
        optimism: How many times larger errors are on new trials than on fitted ones; None
            finds it on the folds.
        random_state: Seed of starts and folds.
    """

    by_target = ("floors_M", "loads_MU", "scales_M", "noise_M")
    shared = ("logs_UD", "log_decays_U", "inverse_QQ", "strength_", "optimism_")
    _steps = STEPS

    def __init__(
        self,
        units: int | None = None,
        strength: float | None = None,
        restarts: int = 3,
        folds: int = 3,
        optimism: float | None = None,
        random_state: int = 0,
    ) -> None:
        self.units = units
        self.strength = strength
        self.restarts = restarts
        self.folds = folds
        self.optimism = optimism
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(np.asarray(weights_D, dtype=np.float64)))
        slopes_UD = self._means(weights).by_weight()[0]
        gradient: Array = self.scales_M[:, None] * (self.loads_MU @ slopes_UD)
        return gradient

    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses, noise left out, shape (K, K)."""
        basis_KQ = self._basis(self._checked(weights_KD))
        scale = float(((np.asarray(loads_M) * self.noise_M) ** 2).sum())
        covariance_KK: Array = scale * (basis_KQ @ self.inverse_QQ @ basis_KQ.T)
        return covariance_KK

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

    def tuned(self) -> Self:
        """Return a copy to fit again with the strength and the optimism that this one found."""
        copy = self.chosen()
        copy._start = (self._units(), self.floors_M, self.scales_M)
        return copy

    def chosen(self) -> Self:
        """Return a copy for folds, with the strength and the optimism that this one found."""
        copy = self._unfitted(strength=float(self.strength_), optimism=float(self.optimism_))
        copy._steps = FOLD_STEPS
        return copy

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        centres_M, scales_M = losses_NM.mean(axis=0), losses_NM.std(axis=0)
        self.scales_M = np.where(scales_M > 1e-12 * (1.0 + np.abs(centres_M)), scales_M, 1.0)
        scaled_NM = (losses_NM - centres_M) / self.scales_M
        strength, optimism = self._chosen(weights_ND, scaled_NM)
        self.strength_, self.optimism_ = np.array(strength), np.array(optimism)
        starts = self._starts(centres_M, losses_NM.shape[1], weights_ND.shape[1])
        fits = [
            UnitsFit(weights_ND, scaled_NM, strength, start).descend(WARM_STEPS).units
            for start in starts
        ] or [
            self._reached(weights_ND, scaled_NM, strength, restart, self._steps)
            for restart in range(self.restarts)
        ]
        self._keep(fits, weights_ND, scaled_NM, centres_M)

    def _units(self) -> list[SharedUnits]:
        """Return the units of each fit that was averaged, with floors of 0."""
        logs = np.split(self.logs_UD, self.restarts)
        decays = np.split(self.log_decays_U, self.restarts)
        roots = np.split(np.sqrt(self.loads_MU * self.restarts), self.restarts, axis=1)
        none_M = np.zeros(len(self.floors_M))
        three = zip(logs, decays, roots, strict=True)
        return [SharedUnits(*one, none_M) for one in three]

    def _starts(self, centres_M: Array, targets: int, domains: int) -> list[SharedUnits]:
        """Return where the units of a refit start; nothing where it starts from scratch."""
        units, floors_M, scales_M = getattr(self, "_start", ([], np.empty(0), np.empty(0)))
        if len(floors_M) != targets or units[0].logs_KD.shape[1] != domains:
            return []
        ratio_M = scales_M / self.scales_M
        return [
            replace(
                one,
                roots_MK=one.roots_MK * np.sqrt(ratio_M)[:, None],
                floors_M=(floors_M - centres_M) / self.scales_M,
            )
            for one in units
        ]

    def _chosen(self, weights_ND: Array, losses_NM: Array) -> tuple[float, float]:
        """Return the strength with the least error on held-out folds, and the optimism there."""
        given, fold_N = self.strength, self._fold_of(weights_ND)
        if fold_N is None or (given is not None and self.optimism is not None):
            alone = STRENGTHS[0] if given is None else float(given)
            return alone, 1.0 if self.optimism is None else float(self.optimism)

        def tried(strength: float) -> tuple[float, float, float]:
            return *self._held_out(weights_ND, losses_NM, fold_N, strength), strength

        if given is not None:
            best = tried(float(given))
        else:  # from the usual strength to weaker ones, else to stronger, while the error falls
            usual = best = tried(STRENGTHS[USUAL])
            for strengths in (STRENGTHS[USUAL + 1 :], STRENGTHS[USUAL - 1 :: -1]):
                for strength in strengths if best is usual else ():
                    found = tried(strength)
                    if found[0] >= best[0]:
                        break
                    best = found
        return best[2], best[1] if self.optimism is None else float(self.optimism)

    def _held_out(
        self, weights_ND: Array, losses_NM: Array, fold_N: IntArray, strength: float
    ) -> tuple[float, float]:
        """Return the root mean squared error on held-out folds, and that over the residuals'."""
        errors, residuals = [], []
        for train_N, out_N in splits(fold_N):
            rows, losses = weights_ND[train_N], losses_NM[train_N]
            units = self._reached(rows, losses, strength, 0, FOLD_STEPS)
            errors.append((units.predict(weights_ND[out_N]) - losses_NM[out_N]) ** 2)
            residuals.append((units.predict(rows) - losses) ** 2)
        error, residual = (float(np.sqrt(np.vstack(x).mean())) for x in (errors, residuals))
        return error, max(error / max(residual, 1e-12), 1.0)

    def _reached(
        self, weights_ND: Array, losses_NM: Array, strength: float, restart: int, steps: int
    ) -> SharedUnits:
        domains = weights_ND.shape[1]
        units = self.units or int(np.clip(domains, MIN_UNITS, MAX_UNITS))
        rng = np.random.default_rng([self.random_state, restart])
        start = SharedUnits.start(losses_NM, domains, units, rng)
        return UnitsFit(weights_ND, losses_NM, strength, start).descend(steps).units

    def _keep(
        self, fits: Sequence[SharedUnits], weights_ND: Array, losses_NM: Array, centres_M: Array
    ) -> None:
        """Average the fits: side by side, each with a part of the loads."""
        floors_M = np.mean([fit.floors_M for fit in fits], axis=0)
        self.loads_MU = np.hstack([fit.loads_MK for fit in fits]) / len(fits)
        self.logs_UD = np.vstack([fit.logs_KD for fit in fits])
        self.log_decays_U = np.concatenate([fit.log_decays_K for fit in fits])
        self.floors_M = centres_M + self.scales_M * floors_M
        basis_NQ = self._basis(weights_ND)
        held_Q = np.append(0.0, np.full(len(self.log_decays_U), OF_SQUARED_LOADS))
        products_QQ = basis_NQ.T @ basis_NQ + np.diag(held_Q * max(float(self.strength_), 1e-6))
        self.inverse_QQ = np.linalg.pinv(products_QQ, hermitian=True)
        residuals_NM = floors_M + basis_NQ[:, 1:] @ self.loads_MU.T - losses_NM
        spread_M = np.sqrt((residuals_NM**2).mean(axis=0))
        usual = float(np.sqrt((self._widening(weights_ND) ** 2).mean()))
        self.noise_M = self.scales_M * spread_M * float(self.optimism_) / usual

    def _means(self, weights_ND: Array) -> PowerMeans:
        known: Heights | None = self.__dict__.get("_heights")
        if known is None or known.logs_KD is not self.logs_UD:  # a search asks thousands of times
            known = self._heights = Heights(self.logs_UD, self.log_decays_U)
        return PowerMeans(weights_ND, known)

    def _basis(self, weights_ND: Array) -> Array:
        """Return 1 and the units at mixtures, shape (N, Q)."""
        return np.column_stack([np.ones(len(weights_ND)), self._means(weights_ND).heights_NK])

    def _widening(self, weights_ND: Array) -> Array:
        basis_NQ = self._basis(weights_ND)
        leverage_N = ((basis_NQ @ self.inverse_QQ) * basis_NQ).sum(axis=1)
        return np.asarray(np.sqrt(1.0 + np.maximum(leverage_N, 0.0)), dtype=np.float64)

    def _predict(self, weights_ND: Array) -> Array:
        heights_NU = self._means(weights_ND).heights_NK
        predicted: Array = self.floors_M + self.scales_M * (heights_NU @ self.loads_MU.T)
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        std: Array = self._widening(weights_ND)[:, None] * self.noise_M
        return std
