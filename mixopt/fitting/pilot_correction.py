"""Carry a fit from one size of model to another by a few runs at the other size.

Losses of a larger model are not those of a proxy, but nearly a straight line in them, another
for each target. For a target with the fit's prediction f and what a run gave y,

    y = f0 + s (b0 + b1 (f - f0) / s + noise)

with s the spread of the target over the proxies' trials and f0 the mean prediction at the runs.
b0 is free. b1 is taken to be one slope of all targets, give or take `SLOPE_SPREAD`, and that one
to be near 1: one run is a shift, and a few are lines drawn towards what all targets say
together. A slope never turns the ranks round. The noise's variance starts at that of the fit on its
own trials, worth `NOISE_FREEDOM` runs.

What lines leave of the objective, which is a single number with errors of its own, gets a Gaussian
process over mixtures, objective(lines) + level + r(w) + noise. The level is free; r has a Matern
kernel on w^0.35, whose length and whose variance over the noise's have the greatest marginal
likelihood on a grid. The deviation is estimated from the runs and from `NOISE_FREEDOM` more that
are off by `OFF` of the objective's spread. Lines through the runs leave less of them than of new
ones; squares are scaled up by what each run shows when the lines are drawn through all others.
(`OFF` and the grid were chosen in synthetic worlds of two sizes, and nothing on published runs.)

Shapes: K runs at the other size, L trials, N mixtures, D domains, M targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import TrialsError
from mixopt.objective import Objective
from mixopt.system import Array

SLOPE_SPREAD = 0.4  # of targets; slopes between the published 1M and 1B runs are 0.2 to 1.1
COMMON_HOLD = 0.5  # so many runs a spread from the mean hold the slope of all targets at 1
MIN_HOLD = 0.3  # and a target's slope at that one, at least
MIN_SLOPE = 0.05
MIN_NOISE = 1e-6  # in squared spreads; a fit that is never off would be sure of every slope
NOISE_FREEDOM = 2.0
ARRAYS = ("weights_KD", "predicted_KM", "observed_KM", "spread_M", "noise_M")

WARP, SHIFT = 0.35, 1e-6
STEEPEST = 1e-4  # below this weight the warp's slope counts as it is here
LENGTHS = (0.3, 0.6, 1.2, 2.4)
RATIOS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
OFF = 0.2  # of the objective's spread; one run shows no slope, and is off by what slopes differ by
ROUNDING = 1e-9  # of the objective's spread


@dataclass(frozen=True, eq=False)
class PilotLine:
    """The line of one target, in spreads of its loss.

    `unsure_22` is the covariance of level and slope over the noise's variance.
    """

    level: float
    slope: float
    variance: float
    unsure_22: Array

    @classmethod
    def fitted(cls, column_K: Array, values_K: Array, noise: float, common: float) -> PilotLine:
        """Draw a line through what runs gave, its slope held back towards the common one."""
        basis_K2 = np.column_stack([np.ones(len(column_K)), column_K])
        hold = max(noise / SLOPE_SPREAD**2, MIN_HOLD)
        precision_22 = basis_K2.T @ basis_K2 + np.diag([0.0, hold])
        level, slope = np.linalg.solve(precision_22, basis_K2.T @ values_K + [0.0, hold * common])
        if slope < MIN_SLOPE:
            slope = MIN_SLOPE
            level = basis_K2[:, 0] @ (values_K - slope * column_K) / precision_22[0, 0]
        left_K = values_K - level - slope * column_K
        squares = float(left_K @ left_K) + hold * (slope - common) ** 2 + NOISE_FREEDOM * noise
        # It is held back out of caution; how unsure it is, is its prior's spread.
        open_22 = precision_22 - np.diag([0.0, hold - max(noise, MIN_NOISE) / SLOPE_SPREAD**2])
        return cls(
            float(level),
            float(slope),
            squares / (NOISE_FREEDOM + len(column_K) - 1),
            np.asarray(np.linalg.inv(open_22), dtype=np.float64),
        )


@dataclass(frozen=True, eq=False)
class Correction:
    """The lines that map a fit's predictions to the other size.

    Attributes:
        weights_KD: Mixtures of the runs.
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
        return np.array([line.slope for line in self._lines])

    @property
    def sigma_M(self) -> Array:
        """Standard deviation of a run about its line."""
        variances_M = np.array([line.variance for line in self._lines])
        sigma_M: Array = self.spread_M * np.sqrt(variances_M)
        return sigma_M

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the noise's variance, those that it starts with included."""
        return NOISE_FREEDOM + len(self.weights_KD) - 1

    def apply(self, predicted_NM: Array) -> Array:
        """Return losses at the other size, shape (N, M), of what the fit predicts."""
        line_NM: Array = self.slopes_M * (predicted_NM - self._middle_M)
        line_NM += self._middle_M + self.spread_M * self._levels_M
        return line_NM

    def std(self, predicted_NM: Array, own_NM: Array | float = 1.0) -> Array:
        """Return standard deviations of a new run's losses, shape (N, M)."""
        parts = []
        for line, column_N in zip(self._lines, self._columns(predicted_NM).T, strict=True):
            basis_N2 = np.column_stack([np.ones(len(column_N)), column_N])
            parts.append(np.einsum("ni,ij,nj->n", basis_N2, line.unsure_22, basis_N2))
        std_NM: Array = self.sigma_M * np.sqrt(np.square(own_NM) + np.stack(parts, axis=1))
        return std_NM

    def gradient(self, slopes_MD: Array) -> Array:
        """Return the slope of each corrected loss by each weight, shape (M, D)."""
        gradient_MD: Array = self.slopes_M[:, None] * slopes_MD
        return gradient_MD

    def select(self, targets: Sequence[int]) -> Correction:
        """Return the correction of some targets, by position."""
        kept = list(targets)
        return replace(
            self,
            predicted_KM=self.predicted_KM[:, kept],
            observed_KM=self.observed_KM[:, kept],
            spread_M=self.spread_M[kept],
            noise_M=self.noise_M[kept],
        )

    def without(self, run: int) -> Correction:
        """Return the lines through all runs but one, by position."""
        kept = np.arange(len(self.weights_KD)) != run
        others = replace(
            self,
            weights_KD=self.weights_KD[kept],
            predicted_KM=self.predicted_KM[kept],
            observed_KM=self.observed_KM[kept],
        )
        return others.drawn_together()

    def drawn_together(self) -> Correction:
        """Return the correction whose slopes are drawn towards one that all targets agree on."""
        left_KM, right_KM = (self._columns(x) for x in (self.predicted_KM, self.observed_KM))
        products = float((left_KM * (right_KM - right_KM.mean(axis=0))).sum())
        squares = float((left_KM**2).sum())
        common = (products + COMMON_HOLD) / (squares + COMMON_HOLD)
        return replace(self, common=max(common, MIN_SLOPE))

    def plain_lines(self) -> dict[str, Array]:
        """Return the lines as arrays of a plain law (mixopt.fitting.capabilities)."""
        return {
            "slopes_M": self.slopes_M,
            "middle_M": self._middle_M,
            "levels_M": self.spread_M * self._levels_M,
        }

    def plain_law(self) -> dict[str, Any]:
        """Return all that carries predictions and deviations over, for a plain law."""
        return {
            "lines": self.plain_lines(),
            "spread_M": self.spread_M,
            "sigma_M": self.sigma_M,
            "unsure_M4": np.array([line.unsure_22.ravel() for line in self._lines]),
            "columns_KM": self._columns(self.predicted_KM),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**{name: getattr(self, name).tolist() for name in ARRAYS}, "common": self.common}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Correction:
        """Build the correction that `to_json` described."""
        arrays = {name: np.array(content[name], dtype=np.float64) for name in ARRAYS}
        return cls(**arrays, common=content["common"])

    @property
    def _middle_M(self) -> Array:
        middle_M: Array = self.predicted_KM.mean(axis=0)
        return middle_M

    @property
    def _levels_M(self) -> Array:
        return np.array([line.level for line in self._lines])

    def _columns(self, predicted_NM: Array) -> Array:
        columns_NM: Array = (predicted_NM - self._middle_M) / self.spread_M
        return columns_NM

    @cached_property
    def _lines(self) -> list[PilotLine]:
        columns_KM, values_KM = self._columns(self.predicted_KM), self._columns(self.observed_KM)
        noise_M = np.square(self.noise_M / self.spread_M)
        return [
            PilotLine.fitted(column_K, values_K, float(noise), self.common)
            for column_K, values_K, noise in zip(columns_KM.T, values_KM.T, noise_M, strict=True)
        ]


def correct(
    predicted_KM: ArrayLike,
    observed_KM: ArrayLike,
    weights_KD: ArrayLike,
    spread_M: ArrayLike,
    noise_M: ArrayLike,
) -> Correction:
    """Learn how runs at another size differ from what a fit predicts for them."""
    given = (weights_KD, predicted_KM, observed_KM, spread_M, noise_M)
    arrays: list[Any] = [np.asarray(values, dtype=np.float64) for values in given]
    _check(*arrays)
    return Correction(*arrays).drawn_together()


def _check(weights: Array, predicted: Array, observed: Array, spread: Array, noise: Array) -> None:
    runs, targets = len(weights), predicted.shape[-1]
    for what, array, shape in (
        ("weights", weights, weights.shape),
        ("predictions", predicted, (runs, targets)),
        ("losses", observed, (runs, targets)),
        ("spreads", spread, (targets,)),
        ("noise", noise, (targets,)),
    ):
        if array.shape != shape:
            raise TrialsError(f"pilots: {what} of shape {array.shape}; {runs} runs need {shape}")
        if not array.size or not np.isfinite(array).all():
            raise TrialsError(f"pilots: {what} are empty, or hold a value that is not finite")
    if (spread <= 0).any():
        raise TrialsError(
            f"pilots: the spread of target {int(np.argmin(spread))} is {spread.min():g}; a loss "
            "that is the same in all trials cannot be corrected to another size: leave it out"
        )


@dataclass(frozen=True, eq=False)
class ObjectiveResidual:
    """What carries an objective to the size of the runs, beyond the lines of its losses.

    Attributes:
        lines: Of the losses.
        objective: Over these losses.
        spread: Standard deviation of the objective over the proxies' trials after the lines, > 0.
        length: Over which residuals are alike, in warped weights.
        ratio: Variance of the residual over that of the noise.
        off: What a run is taken to be off by before one is seen, in spreads.
    """

    lines: Correction
    objective: Objective
    spread: float
    length: float = LENGTHS[1]
    ratio: float = RATIOS[0]
    off: float = OFF

    @classmethod
    def learned(
        cls,
        lines: Correction,
        objective: Objective,
        losses_LM: Array,
        *,
        lengths: Sequence[float] = LENGTHS,
        ratios: Sequence[float] = RATIOS,
        off: float = OFF,
    ) -> Self:
        """Learn what lines leave of an objective; its spread is over losses of the trials."""
        spread = float(objective.value(lines.apply(losses_LM)).std())
        first = cls(lines, objective, max(spread, ROUNDING), off=off)
        every = [replace(first, length=x, ratio=q) for x in lengths for q in ratios]
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
        return NOISE_FREEDOM * (SLOPE_SPREAD if alone else self.off) ** 2

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
