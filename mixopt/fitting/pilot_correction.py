"""The lines that carry losses to the pilots' size, and what carries an objective beyond them.

Losses of a larger model are nearly a straight line in those of a proxy, another for each target.
For a target with the fit's prediction f and what a run gave y,

    y = f0 + s (b0 + b1 (f - f0) / s + noise)

with s the spread of the target over the proxies' trials and f0 the mean prediction at the runs.
b0 is free. b1 is taken to be one slope of all targets, give or take `SLOPE_SPREAD`, and that one
to be near 1: one run is a shift, and a few are lines drawn towards what all targets say together. A
slope never turns the ranks round. The noise's variance starts at that of the fit on its own trials,
worth `NOISE_FREEDOM` runs.

What lines leave of the objective, whichever is asked for, gets a Gaussian process over mixtures,
objective(lines) + level + r(w) + noise. The level is free; r has a Matern kernel on w^0.35, whose
length and whose variance over the noise's have the greatest marginal likelihood on a grid. The
deviation is estimated from the runs and from `NOISE_FREEDOM` more that are off by `OFF` of the
objective's spread. Lines through the runs leave less of them than of new ones; squares are scaled
up by what each run shows when the lines are drawn through all others. (`OFF` and the grid were
chosen in synthetic worlds of two sizes, and nothing on published runs.)

Shapes: K pilots, L trials, N mixtures, D domains, M losses, P pieces of the objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from mixopt.objective import Objective
from mixopt.system import Array

SLOPE_SPREAD = 0.4  # of targets; slopes between the published 1M and 1B runs are 0.2 to 1.1
COMMON_HOLD = 0.5  # so many runs a spread from the mean hold the slope of all targets at 1
MIN_HOLD = 0.3  # and a target's slope at that one, at least
MIN_SLOPE = 0.05
MIN_NOISE = 1e-6  # in squared spreads; a fit that is never off would be sure of every slope
NOISE_FREEDOM = 2.0

WARP, SHIFT = 0.35, 1e-6
STEEPEST = 1e-4  # below this weight the warp's slope counts as it is here
LENGTHS = (0.3, 0.6, 1.2, 2.4)
RATIOS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
OFF = 0.2  # of the objective's spread; one run shows no slope, and is off by what slopes differ by
ROUNDING = 1e-9  # of the objective's spread


@dataclass(frozen=True, eq=False)
class PilotLines:
    """The lines that map a fit's predictions to the pilots' size, in spreads of each loss.

    Attributes:
        weights_KD: Mixtures of the pilots.
        predicted_KM: What the fit predicts for them.
        observed_KM: What they gave.
        spread_M: Standard deviation of each loss over the proxies' trials, > 0.
        noise_M: How far the fit is off at its own size, >= 0.
        common: The slope that all targets are drawn towards.
    """

    weights_KD: Array
    predicted_KM: Array
    observed_KM: Array
    spread_M: Array
    noise_M: Array
    common: float = 1.0

    @property
    def slopes_M(self) -> Array:
        """Slope of each target's line."""
        return self._fitted[1]

    @property
    def sigma_M(self) -> Array:
        """Standard deviation of a run about its line."""
        sigma_M: Array = self.spread_M * np.sqrt(self._fitted[2])
        return sigma_M

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the noise's variance, those that it starts with included."""
        return NOISE_FREEDOM + len(self.weights_KD) - 1

    def apply(self, predicted_NM: Array) -> Array:
        """Return losses at the pilots' size, shape (N, M), of what the fit predicts."""
        line_NM: Array = self.slopes_M * (predicted_NM - self._middle_M)
        line_NM += self._middle_M + self.spread_M * self._fitted[0]
        return line_NM

    def std(self, predicted_NM: Array, own_NM: Array | float = 1.0) -> Array:
        """Return standard deviations of a new run's losses, shape (N, M)."""
        columns_NM = self._columns(predicted_NM)
        basis_NM2 = np.stack([np.ones_like(columns_NM), columns_NM], axis=2)
        unsure_NM = np.einsum("nmi,mij,nmj->nm", basis_NM2, self._fitted[3], basis_NM2)
        std_NM: Array = self.sigma_M * np.sqrt(np.square(own_NM) + unsure_NM)
        return std_NM

    def select(self, targets: Sequence[int]) -> PilotLines:
        """Return the lines of some targets, by position."""
        kept = list(targets)
        return replace(
            self,
            predicted_KM=self.predicted_KM[:, kept],
            observed_KM=self.observed_KM[:, kept],
            spread_M=self.spread_M[kept],
            noise_M=self.noise_M[kept],
        )

    def without(self, run: int) -> PilotLines:
        """Return the lines through all pilots but one, by position."""
        kept = np.arange(len(self.weights_KD)) != run
        others = replace(
            self,
            weights_KD=self.weights_KD[kept],
            predicted_KM=self.predicted_KM[kept],
            observed_KM=self.observed_KM[kept],
        )
        return others.drawn_together()

    def drawn_together(self) -> PilotLines:
        """Return lines whose slopes are drawn towards one that all targets agree on."""
        left_KM, right_KM = (self._columns(x) for x in (self.predicted_KM, self.observed_KM))
        products = float((left_KM * (right_KM - right_KM.mean(axis=0))).sum())
        squares = float((left_KM**2).sum())
        common = (products + COMMON_HOLD) / (squares + COMMON_HOLD)
        return replace(self, common=max(common, MIN_SLOPE))

    def plain_lines(self) -> dict[str, Array]:
        """Return the lines as arrays of a plain law (mixopt.fitting.regressor)."""
        return {
            "slopes_M": self.slopes_M,
            "middle_M": self._middle_M,
            "levels_M": self.spread_M * self._fitted[0],
        }

    def plain_law(self) -> dict[str, Any]:
        """Return all that carries predictions and deviations over, for a plain law."""
        return {
            "lines": self.plain_lines(),
            "spread_M": self.spread_M,
            "sigma_M": self.sigma_M,
            "unsure_M4": self._fitted[3].reshape(-1, 4),
            "columns_KM": self._columns(self.predicted_KM),
        }

    @cached_property
    def _middle_M(self) -> Array:
        middle_M: Array = self.predicted_KM.mean(axis=0)
        return middle_M

    def _columns(self, predicted_NM: Array) -> Array:
        columns_NM: Array = (predicted_NM - self._middle_M) / self.spread_M
        return columns_NM

    @cached_property
    def _fitted(self) -> tuple[Array, Array, Array, Array]:
        """Levels, slopes, variances, and covariances of level and slope over the variance."""
        columns_KM, values_KM = self._columns(self.predicted_KM), self._columns(self.observed_KM)
        noise_M = np.square(self.noise_M / self.spread_M)
        hold_M = np.maximum(noise_M / SLOPE_SPREAD**2, MIN_HOLD)
        count, targets = columns_KM.shape
        precision_M22 = np.empty((targets, 2, 2))
        precision_M22[:, 0, 0] = count
        precision_M22[:, 0, 1] = precision_M22[:, 1, 0] = columns_KM.sum(axis=0)
        precision_M22[:, 1, 1] = (columns_KM**2).sum(axis=0) + hold_M
        sums_M2 = np.stack([values_KM, columns_KM * values_KM], axis=2).sum(axis=0)
        sums_M2[:, 1] += hold_M * self.common
        levels_M, slopes_M = np.linalg.solve(precision_M22, sums_M2[:, :, None])[:, :, 0].T
        flat_M = slopes_M < MIN_SLOPE
        slopes_M = np.where(flat_M, MIN_SLOPE, slopes_M)
        shifts_M = (values_KM - MIN_SLOPE * columns_KM).mean(axis=0)
        levels_M = np.where(flat_M, shifts_M, levels_M)
        left_KM = values_KM - levels_M - slopes_M * columns_KM
        squares_M = (left_KM**2).sum(axis=0) + hold_M * (slopes_M - self.common) ** 2
        squares_M += NOISE_FREEDOM * noise_M
        # It is held back out of caution; how unsure it is, is its prior's spread.
        precision_M22[:, 1, 1] -= hold_M - np.maximum(noise_M, MIN_NOISE) / SLOPE_SPREAD**2
        unsure_M22 = np.linalg.inv(precision_M22).astype(np.float64)
        return levels_M, slopes_M, squares_M / self.freedom, unsure_M22


@dataclass(frozen=True, eq=False)
class ObjectiveResidual:
    """What carries an objective to the size of the runs, beyond the lines of its losses.

    Attributes:
        lines: Of the losses.
        objective: Over these losses.
        spread: Standard deviation of the objective over the proxies' trials after the lines, > 0.
        length: Over which residuals are alike, in warped weights.
        ratio: Variance of the residual over that of the noise.
    """

    lines: PilotLines
    objective: Objective
    spread: float
    length: float = LENGTHS[1]
    ratio: float = RATIOS[0]

    @classmethod
    def learned(cls, lines: PilotLines, objective: Objective, losses_LM: Array) -> Self:
        """Learn what lines leave of an objective; its spread is over losses of the trials."""
        spread = float(objective.value(lines.apply(losses_LM)).std())
        first = cls(lines, objective, max(spread, ROUNDING))
        every = [replace(first, length=x, ratio=q) for x in LENGTHS for q in RATIOS]
        return max(every, key=lambda one: one._likelihood)

    @property
    def sigma(self) -> float:
        """Standard deviation of a run about the objective of the lines, the level known."""
        squares = self._squares * self._inflation + self._prior
        return float(self.spread * np.sqrt(squares / self.lines.freedom))

    def value(self, predicted_NM: Array, weights_ND: Array) -> Array:
        """Return the objective at the runs' size, shape (N,), of losses that the fit predicts."""
        value_N: Array = self.objective.value(self.lines.apply(predicted_NM))
        return value_N + self.shift(weights_ND)

    def pieces(self, predicted_NM: Array, weights_ND: Array) -> Array:
        """Return the sums whose largest is the objective, shape (N, P)."""
        sums_NP: Array = self.lines.apply(predicted_NM) @ self.objective.pieces().T
        return sums_NP + self.shift(weights_ND)[:, None]

    def shift(self, weights_ND: Array) -> Array:
        """Return what is added to the objective of the lines, shape (N,)."""
        shift_N: Array = self._level + self._alike(weights_ND) @ self._dual_K
        return self.spread * shift_N

    def std(self, weights_ND: Array) -> Array:
        """Return standard deviations of a new run's objective, shape (N,)."""
        alike_NK = self._alike(weights_ND)
        known_N = np.einsum("nk,kj,nj->n", alike_NK, self._inverse_KK, alike_NK)
        left_N = np.maximum(1.0 + self.ratio - known_N, 1.0)
        open_N = 1.0 - alike_NK @ self._inverse_KK.sum(axis=1)
        variance_N = left_N + open_N**2 / self._inverse_KK.sum()
        std_N: Array = self.sigma * np.sqrt(variance_N / (1.0 + self.ratio))
        return std_N

    def gradient(self, weights_D: Array) -> Array:
        """Return the slope of `shift` by each weight at one mixture, shape (D,)."""
        apart_KD = (_warped(weights_D) - _warped(self.lines.weights_KD)) / self.length
        distance_K = np.sqrt(5.0 * (apart_KD**2).sum(axis=1))
        by_squared_K = -5.0 / 6.0 * (1.0 + distance_K) * np.exp(-distance_K) * self.ratio
        by_warped_KD = 2.0 * by_squared_K[:, None] * apart_KD / self.length
        steep_D = WARP * (np.maximum(weights_D, STEEPEST) + SHIFT) ** (WARP - 1.0)
        slope_D: Array = self.spread * ((self._dual_K[None] @ by_warped_KD)[0] * steep_D)
        return slope_D

    def plain_law(self) -> dict[str, Any]:
        """Return the numbers of `shift` and `std`, for a plain law."""
        return {
            "lines": self.lines.plain_lines(),
            "kernel": {
                "weights_KD": self.lines.weights_KD,
                "length": self.length,
                "ratio": self.ratio,
                "inverse_KK": self._inverse_KK,
                "dual": self._dual_K[:, None],
            },
            "spread": self.spread,
            "level": self._level,
            "sigma": self.sigma,
            "totals_K": self._inverse_KK.sum(axis=1),
            "total": float(self._inverse_KK.sum()),
            "pieces_PM": self.objective.pieces(),
        }

    def _alike(self, weights_ND: Array) -> Array:
        """Return covariances with the residual at the runs over the noise's, shape (N, K)."""
        from scipy.spatial.distance import cdist

        apart_NK = cdist(_warped(weights_ND), _warped(self.lines.weights_KD)) / self.length
        distance_NK = np.sqrt(5.0) * apart_NK
        alike_NK: Array = (1.0 + distance_NK + distance_NK**2 / 3.0) * np.exp(-distance_NK)
        return self.ratio * alike_NK

    @cached_property
    def _left_K(self) -> Array:
        """What the lines leave of the objective, in its spreads."""
        lines = self.lines
        fitted_K = self.objective.value(lines.apply(lines.predicted_KM))
        left_K: Array = (self.objective.value(lines.observed_KM) - fitted_K) / self.spread
        return left_K

    @cached_property
    def _inverse_KK(self) -> Array:
        alike_KK = self._alike(self.lines.weights_KD)
        return np.asarray(np.linalg.inv(np.eye(len(alike_KK)) + alike_KK), dtype=np.float64)

    @property
    def _level(self) -> float:
        return float(self._inverse_KK.sum(axis=0) @ self._left_K / self._inverse_KK.sum())

    @cached_property
    def _dual_K(self) -> Array:
        dual_K: Array = self._inverse_KK @ (self._left_K - self._level)
        return dual_K

    @property
    def _squares(self) -> float:
        """Squares that are left, over the variance of residual and noise together."""
        return float(self._dual_K @ (self._left_K - self._level)) * (1.0 + self.ratio)

    @property
    def _prior(self) -> float:
        alone = len(self._left_K) == 1
        return NOISE_FREEDOM * (SLOPE_SPREAD if alone else OFF) ** 2

    @property
    def _likelihood(self) -> float:
        """The logarithm of the marginal likelihood, but for a constant."""
        total_KK = self._inverse_KK * (1.0 + self.ratio)
        volume = np.log(total_KK.sum()) - np.linalg.slogdet(total_KK)[1]
        return float(-0.5 * (volume + self.lines.freedom * np.log(self._squares + self._prior)))

    @cached_property
    def _inflation(self) -> float:
        """By how much squares of runs are larger that the lines were not drawn through."""
        count, lines = len(self._left_K), self.lines
        own = float((self._left_K**2).sum())
        if count == 1 or own <= ROUNDING**2:
            return 1.0
        observed_K = self.objective.value(lines.observed_KM)
        carried_KM = [
            lines.without(k).apply(lines.predicted_KM[k : k + 1])[0] for k in range(count)
        ]
        errors_K = (observed_K - self.objective.value(carried_KM)) / self.spread
        # A level without the run is off by its part of the run's error; `std` counts that itself.
        return float((errors_K**2).sum()) * (count - 1) / count / own


def _warped(weights_ND: Array) -> Array:
    warped: Array = (np.maximum(weights_ND, 0.0) + SHIFT) ** WARP
    return warped
