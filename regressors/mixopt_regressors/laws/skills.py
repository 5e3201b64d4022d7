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

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

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
STEP_SIZES = (3.0, 3.0, 1.0, 3.0)  # units in which logs, decays, roots and floors descend
MEMORY = 10  # steps that L-BFGS remembers
WALL = 10.0  # what a squared step outside of the bounds costs; bounds themselves are slow
ENOUGH = 1e-7  # a step that gains a smaller part of the loss is the last


LOG_DECAYS = (math.log(0.05), math.log(20.0))
LOGS = (-12.0, 6.0)  # of heights in standard deviations; with least decays, sums stay normal
MAX_LOG = 30.0  # largest logarithm of a mean, in case a mixture is outside the simplex
NOTHING = 1e-300  # a mixture without any weight has a finite mean


class Heights:
    """Heights of units and their decays, and what means of any mixtures need of them."""

    def __init__(self, logs_KD: Array, log_decays_K: Array) -> None:
        self.logs_KD, self.decays_K = logs_KD, np.exp(log_decays_K)
        powers_KD = -logs_KD / self.decays_K[:, None]
        self.top_K = powers_KD.max(axis=1)
        self.terms_KD = np.exp(powers_KD - self.top_K[:, None])

    def means(self, weights_ND: Array) -> tuple[Array, Array, Array]:
        """Return the units at mixtures, their logarithms, and sums of their terms, (N, K) each."""
        sums_NK = weights_ND @ self.terms_KD.T + NOTHING
        logs_NK = -self.decays_K * (np.log(sums_NK) + self.top_K)
        return np.exp(np.minimum(logs_NK, MAX_LOG)), logs_NK, sums_NK


class Units(NamedTuple):
    """Parameters: units, and how each target loads on them."""

    logs_KD: Array
    log_decays_K: Array
    roots_MK: Array
    floors_M: Array

    def predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (N, M)."""
        heights_NK = Heights(self.logs_KD, self.log_decays_K).means(weights_ND)[0]
        predicted: Array = self.floors_M + heights_NK @ (self.roots_MK**2).T
        return predicted

    def outside(self) -> tuple[Array, Array]:
        """Return how far logs and log decays are outside of what power means can take."""
        pairs = ((self.logs_KD, LOGS), (self.log_decays_K, LOG_DECAYS))
        # Faster than numpy's clip where there are few.
        logs, decays = (own - np.minimum(np.maximum(own, low), high) for own, (low, high) in pairs)
        return logs, decays

    def descend(self, weights_ND: Array, losses_NM: Array, strength: float, steps: int) -> Units:
        """Go downhill by L-BFGS."""
        from scipy.optimize import minimize

        step = np.repeat(STEP_SIZES, [part.size for part in self])
        ends = np.cumsum([0, *(part.size for part in self)]).tolist()
        places = [slice(*pair) for pair in itertools.pairwise(ends)]  # faster than numpy's split

        def shaped(vector: Array) -> Units:
            parts = zip(places, self, strict=True)
            scaled = step * vector
            return Units(*(scaled[place].reshape(part.shape) for place, part in parts))

        def loss(vector: Array) -> tuple[float, Array]:
            value, slopes = penalised(shaped(vector), weights_ND, losses_NM, strength)
            return value, step * np.concatenate([part.ravel() for part in slopes])

        # A step that goes astray has a loss that is not finite, and is taken back.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            solution: Any = minimize(
                loss,
                np.concatenate([part.ravel() for part in self]) / step,
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": steps, "maxcor": MEMORY, "ftol": ENOUGH, "gtol": 0.0},
            )
        reached = shaped(solution.x)
        over_KD, over_K = reached.outside()
        return reached._replace(
            logs_KD=reached.logs_KD - over_KD, log_decays_K=reached.log_decays_K - over_K
        )


def start(losses_NM: Array, domains: int, units: int, rng: np.random.Generator) -> Units:
    """Return units of which each falls with one domain, in turn."""
    logs_KD = rng.normal(0.0, 0.3, (units, domains))
    logs_KD[np.arange(units), np.arange(units) % domains] -= OWN
    return Units(
        logs_KD,
        np.log(USUAL_DECAY) + 0.3 * rng.standard_normal(units),
        np.sqrt(rng.uniform(0.2, 2.0, (losses_NM.shape[1], units)) / units),
        losses_NM.min(axis=0) - USUAL_FLOOR,
    )


def penalised(
    units: Units, weights_ND: Array, losses_NM: Array, strength: float
) -> tuple[float, list[Array]]:
    """Return half the penalised sum of squares, and its gradient by each part of the units."""
    own, loads_MK = Heights(units.logs_KD, units.log_decays_K), units.roots_MK**2
    heights_NK, logs_NK, sums_NK = own.means(weights_ND)
    residuals_NM = units.floors_M + heights_NK @ loads_MK.T - losses_NM
    by_log_NK = (residuals_NM @ loads_MK) * heights_NK
    by_logs_KD = own.terms_KD * ((by_log_NK / sums_NK).T @ weights_ND)
    by_decay_K = (by_log_NK * logs_NK).sum(axis=0) - (by_logs_KD * units.logs_KD).sum(axis=1)
    slopes = [by_logs_KD, by_decay_K, residuals_NM.T @ heights_NK, residuals_NM.sum(axis=0)]
    decays_K = units.log_decays_K - np.log(USUAL_DECAY)
    apart = (
        units.logs_KD,
        decays_K,
        loads_MK,
        units.floors_M - losses_NM.min(axis=0) + USUAL_FLOOR,
    )
    costs = (OF_LOGS, OF_DECAYS, OF_SQUARED_LOADS, OF_FLOORS)
    prior = OF_LOADS * float(loads_MK.sum())
    for slope, cost, part in zip(slopes, costs, apart, strict=True):
        prior += 0.5 * cost * float(np.vdot(part, part))
        slope += strength * cost * part  # noqa: PLW2901 - in place
    slopes[2] += strength * OF_LOADS
    value = 0.5 * float((residuals_NM**2).sum()) + strength * prior
    for slope, over in zip(slopes, units.outside(), strict=False):
        value += 0.5 * WALL * float(np.vdot(over, over))
        slope += WALL * over  # noqa: PLW2901 - in place
    slopes[2] *= 2.0 * units.roots_MK
    return value, slopes


STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
USUAL = 2  # the place of the strength that is tried first
STEPS, FOLD_STEPS = 260, 130
WARM_STEPS = 100  # of a refit; it then moves .3 to .9 as far as a fit from scratch
MIN_UNITS, MAX_UNITS = 40, 128  # of a fit; one for each domain
RESTARTS = 3  # fits that are averaged


class SkillsRegressor(MixtureRegressor):
    """Power laws of shared units, for all targets at once.

    Attributes:
        folds: Held-out folds that choose the strength.
        random_state: Seed of starts and folds.
    """

    by_target = ("floors_M", "loads_MU", "scales_M", "noise_M")
    shared = ("logs_UD", "log_decays_U", "inverse_QQ", "strength_", "optimism_")
    _steps = STEPS
    _found: tuple[float, float] | None = None

    def __init__(self, folds: int = 3, random_state: int = 0) -> None:
        self.folds = folds
        self.random_state = random_state

    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the slope of each loss by each weight at one mixture, shape (M, D)."""
        weights = self._checked(np.atleast_2d(np.asarray(weights_D, dtype=np.float64)))
        units = self._heights()
        heights_NU, _, sums_NU = units.means(weights)
        slopes_UD = (-units.decays_K * heights_NU / sums_NU)[0][:, None] * units.terms_KD
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

    def chosen(self) -> Self:
        """Return a copy for folds, with the strength and the optimism that this one found."""
        copy = super().chosen()
        copy._found, copy._steps = (float(self.strength_), float(self.optimism_)), FOLD_STEPS
        return copy

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        centres_M, scales_M = losses_NM.mean(axis=0), losses_NM.std(axis=0)
        self.scales_M = np.where(scales_M > 1e-12 * (1.0 + np.abs(centres_M)), scales_M, 1.0)
        scaled_NM = (losses_NM - centres_M) / self.scales_M
        before: Any = self._before
        if before is not None:
            self._found = float(before.strength_), float(before.optimism_)
        strength, optimism = self._found or self._chosen(weights_ND, scaled_NM)
        self.strength_, self.optimism_ = np.array(strength), np.array(optimism)
        starts = self._starts(centres_M, weights_ND.shape[1])
        fits = [one.descend(weights_ND, scaled_NM, strength, WARM_STEPS) for one in starts] or [
            self._reached(weights_ND, scaled_NM, strength, restart, self._steps)
            for restart in range(RESTARTS)
        ]
        self._keep(fits, weights_ND, scaled_NM, centres_M)

    def _starts(self, centres_M: Array, domains: int) -> list[Units]:
        """Return the units that a refit starts from; nothing where it starts from scratch."""
        before = self._before
        if before is None or (len(centres_M), domains) != (
            len(before.floors_M),
            before.logs_UD.shape[1],
        ):
            return []
        floors_M = (before.floors_M - centres_M) / self.scales_M
        ratio_M1 = (before.scales_M / self.scales_M)[:, None]
        roots_MU = np.sqrt(before.loads_MU * RESTARTS) * np.sqrt(ratio_M1)
        parts = (before.logs_UD, before.log_decays_U, roots_MU.T)
        three = zip(*(np.split(part, RESTARTS) for part in parts), strict=True)
        return [Units(logs, decays, roots.T, floors_M) for logs, decays, roots in three]

    def _chosen(self, weights_ND: Array, losses_NM: Array) -> tuple[float, float]:
        """Return the strength with the least error on held-out folds, and the optimism there."""
        fold_N = self._fold_of(weights_ND)
        if fold_N is None:
            return STRENGTHS[0], 1.0

        def tried(strength: float) -> tuple[float, float, float]:
            return *self._held_out(weights_ND, losses_NM, fold_N, strength), strength

        # From the usual strength to weaker ones, else to stronger, while the error falls.
        usual = best = tried(STRENGTHS[USUAL])
        for strengths in (STRENGTHS[USUAL + 1 :], STRENGTHS[USUAL - 1 :: -1]):
            for strength in strengths if best is usual else ():
                trial = tried(strength)
                if trial[0] >= best[0]:
                    break
                best = trial
        return best[2], best[1]

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
    ) -> Units:
        domains = weights_ND.shape[1]
        units = int(np.clip(domains, MIN_UNITS, MAX_UNITS))
        rng = np.random.default_rng([self.random_state, restart])
        return start(losses_NM, domains, units, rng).descend(weights_ND, losses_NM, strength, steps)

    def _keep(
        self, fits: Sequence[Units], weights_ND: Array, losses_NM: Array, centres_M: Array
    ) -> None:
        """Average the fits: side by side, each with a part of the loads."""
        floors_M = np.mean([fit.floors_M for fit in fits], axis=0)
        self.loads_MU = np.hstack([fit.roots_MK**2 for fit in fits]) / len(fits)
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

    def _heights(self) -> Heights:
        known: Heights | None = self.__dict__.get("_known")
        if known is None or known.logs_KD is not self.logs_UD:  # a search asks thousands of times
            known = self._known = Heights(self.logs_UD, self.log_decays_U)
        return known

    def _basis(self, weights_ND: Array) -> Array:
        """Return 1 and the units at mixtures, shape (N, Q)."""
        return np.column_stack([np.ones(len(weights_ND)), self._heights().means(weights_ND)[0]])

    def _widening(self, weights_ND: Array) -> Array:
        basis_NQ = self._basis(weights_ND)
        leverage_N = ((basis_NQ @ self.inverse_QQ) * basis_NQ).sum(axis=1)
        return np.asarray(np.sqrt(1.0 + np.maximum(leverage_N, 0.0)), dtype=np.float64)

    def _predict(self, weights_ND: Array) -> Array:
        heights_NU = self._heights().means(weights_ND)[0]
        predicted: Array = self.floors_M + self.scales_M * (heights_NU @ self.loads_MU.T)
        return predicted

    def _std(self, weights_ND: Array) -> Array:
        std: Array = self._widening(weights_ND)[:, None] * self.noise_M
        return std
