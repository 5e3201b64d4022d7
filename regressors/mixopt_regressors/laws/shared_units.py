"""Fit units that all targets share: each loss is a floor plus loads times power means.

    L_m(w) = c_m + sum_k b_mk h_k(w),  b >= 0

What one target teaches about a domain serves all the others, which is why few trials are enough.
A load is the square of its root, so that descent (L-BFGS with exact gradients) needs no bound at 0,
where bounded descent is seen to get stuck. The prior says that units are small, that a domain does
not matter to a unit (all heights are 1), and that decays are low, which makes a curve that is steep
where a domain begins. One strength scales all of it, and is the noise that is allowed for.

Losses are in units of their standard deviation, around a mean of 0.

Shapes: N trials, D domains, M targets, K units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from mixopt.system import Array
from mixopt_regressors.laws.power_means import DECAYS, LOGS, PowerMeans

# Strengths of the prior, at strength 1: a squared logarithm of a height costs 0.05, and so on.
OF_LOGS, OF_DECAYS, OF_LOADS, OF_SQUARED_LOADS, OF_FLOORS = 0.1, 0.3, 0.01, 0.01, 1e-3
USUAL_DECAY = 0.15
USUAL_FLOOR = 0.5  # standard deviations below the least loss
OWN = 2.0  # how far a unit starts to fall where its own domain is all there is
FAST = 3.0  # unit in which logs, decays and floors descend, next to roots of loads
MEMORY = 10  # steps that L-BFGS remembers
WALL = 10.0  # what a squared step outside of the bounds costs; bounds themselves are slow
ENOUGH = 1e-7  # a step that gains a smaller part of the loss is the last


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
            self.logs_KD - np.clip(self.logs_KD, *LOGS),
            self.log_decays_K - np.clip(self.log_decays_K, *np.log(DECAYS)),
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
        return PowerMeans(weights_ND, self.logs_KD, self.log_decays_K)

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
        pieces = np.split(vector, np.cumsum([part.size for part in parts])[:-1])
        shaped = (piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True))
        return SharedUnits(*shaped)


@dataclass(frozen=True)
class UnitsFit:
    """Penalised weighted least squares, and the parameters reached so far."""

    weights_ND: Array
    losses_NM: Array
    strength: float
    units: SharedUnits
    trust_NM: Array | float = 1.0

    def descend(self, steps: int) -> UnitsFit:
        """Go downhill by L-BFGS."""
        from scipy.optimize import minimize

        step = self._step()

        def loss(steps: Array) -> tuple[float, Array]:
            value, slopes = self.loss(self.units.like(step * steps))
            return value, step * slopes

        found: Any = minimize(
            loss,
            self.units.vector() / step,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "maxcor": MEMORY, "ftol": ENOUGH, "gtol": 0.0},
        )
        return replace(self, units=self.units.like(step * found.x).inside())

    def _step(self) -> Array:
        """Return the unit of each parameter in which descent is fast."""
        units = self.units
        return SharedUnits(
            np.full_like(units.logs_KD, FAST),
            np.full_like(units.log_decays_K, FAST),
            np.ones_like(units.roots_MK),
            np.full_like(units.floors_M, FAST),
        ).vector()

    def loss(self, units: SharedUnits) -> tuple[float, Array]:
        """Return half the penalised sum of squares, and its gradient by `units.vector()`."""
        means = units.means(self.weights_ND)
        residuals_NM = units.floors_M + means.heights_NK @ units.loads_MK.T - self.losses_NM
        weighted_NM = self.trust_NM * residuals_NM
        by_decay_K, by_logs_KD = means.pull(weighted_NM @ units.loads_MK)
        by_loads_MK, by_floors_M = weighted_NM.T @ means.heights_NK, weighted_NM.sum(axis=0)
        prior, (logs_KD, log_decays_K, loads_MK, floors_M) = self._prior(units)
        gradient = SharedUnits(
            by_logs_KD + logs_KD,
            by_decay_K + log_decays_K,
            2.0 * units.roots_MK * (by_loads_MK + loads_MK),
            by_floors_M + floors_M,
        )
        return 0.5 * float((weighted_NM * residuals_NM).sum()) + prior, gradient.vector()

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
