"""Carry a fit from one size of model to another by a few runs at the other size.

Losses of a larger model are not those of a proxy, but nearly a straight line in them, another
for each target. For a target with the fit's prediction f and what a run gave y,

    y = f0 + s (b0 + b1 (f - f0) / s + r(w) + noise)

with s the spread of the target over the proxies' trials and f0 the mean prediction at the runs.
b0 is free. b1 is taken to be one slope of all targets, give or take `SLOPE_SPREAD`, and that one
to be near 1: one run is a shift, and a few are lines drawn towards what all targets say
together. A slope never turns the ranks round. From about eight runs on, r, what the line leaves,
may be a Gaussian process of the mixture (co-kriging) with a Matern kernel on w^0.35; its length
and its variance over the noise's are shared by all targets, and are the grid's most likely, 0 among
them. The noise's variance starts at that of the fit on its own trials, worth `NOISE_FREEDOM` runs.

On RegMix's 1B runs per-target lines raise the rank correlation of an aggregate most, and
co-kriging from eight runs on a little more; for the ranks of single targets it costs more than it
gives, because a line does not change them and a residual does.

Shapes: K runs at the other size, N mixtures, D domains, M targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import TrialsError
from mixopt.system import Array

WARP, SHIFT = 0.35, 1e-6
STEEPEST = 1e-4  # below this weight the warp's slope counts as it is here


@dataclass(frozen=True, eq=False)
class PilotKernel:
    """Covariances with the residual at some runs, over the variance of the noise.

    Attributes:
        weights_KD: Mixtures of the runs.
        length: Over which residuals are alike, in warped weights.
        ratio: Variance of the residual over that of the noise; 0 is no residual.
    """

    weights_KD: Array
    length: float
    ratio: float

    def alike(self, weights_ND: Array) -> Array:
        """Return covariances with the residual at the runs, shape (N, K)."""
        from scipy.spatial.distance import cdist

        if not self.ratio:
            return np.zeros((len(weights_ND), len(self.weights_KD)))
        apart_NK = cdist(_warped(weights_ND), _warped(self.weights_KD)) / self.length
        distance_NK = np.sqrt(5.0) * apart_NK
        alike_NK: Array = (1.0 + distance_NK + distance_NK**2 / 3.0) * np.exp(-distance_NK)
        return self.ratio * alike_NK

    def slopes(self, weights_D: Array, dual_KM: Array) -> Array:
        """Return the slope of alike @ dual by each weight at one mixture, shape (M, D)."""
        apart_KD = (_warped(weights_D) - _warped(self.weights_KD)) / self.length
        distance_K = np.sqrt(5.0 * (apart_KD**2).sum(axis=1))
        by_squared_K = -5.0 / 6.0 * (1.0 + distance_K) * np.exp(-distance_K) * self.ratio
        by_warped_KD = 2.0 * by_squared_K[:, None] * apart_KD / self.length
        steep_D = WARP * (np.maximum(weights_D, STEEPEST) + SHIFT) ** (WARP - 1.0)
        slopes_MD: Array = (dual_KM.T @ by_warped_KD) * steep_D
        return slopes_MD

    def plain(self, dual_KM: Array) -> dict[str, Any]:
        """Return the numbers of a plain law (mixopt.fitting.capabilities).

        Args:
            dual_KM: What covariances are multiplied with, for each value.
        """
        covariance_KK = np.eye(len(self.weights_KD)) + self.alike(self.weights_KD)
        return {
            "weights_KD": self.weights_KD,
            "length": self.length,
            "ratio": self.ratio,
            "inverse_KK": np.linalg.inv(covariance_KK),
            "dual": dual_KM,
        }


def _warped(weights_ND: Array) -> Array:
    warped: Array = (np.maximum(weights_ND, 0.0) + SHIFT) ** WARP
    return warped


SLOPE_SPREAD = 0.4  # of targets; slopes between the published 1M and 1B runs are 0.2 to 1.1
LEAST_HOLD = 0.3  # a slope is held back by no less than so many runs a spread from the mean
LEAST_SLOPE = 0.05
LEAST_NOISE = 1e-6  # in squared spreads; a fit that is never off would be sure of every slope
NOISE_FREEDOM = 2.0


@dataclass(frozen=True, eq=False)
class PilotLine:
    """The line of one target, in spreads of its loss.

    `dual_K` is the inverse covariance times what the line leaves, `unsure_22` the covariance of
    level and slope over the noise's variance, `likelihood` the logarithm of the marginal one.
    """

    level: float
    slope: float
    variance: float
    unsure_22: Array
    dual_K: Array
    basis_K2: Array
    likelihood: float

    @classmethod
    def fitted(
        cls,
        column_K: Array,
        values_K: Array,
        inverse_KK: Array,
        log_volume: float,
        noise: float,
        common: float,
    ) -> PilotLine:
        """Draw the line of one target.

        Args:
            column_K: What the fit predicts for the runs, from the runs' mean.
            values_K: What they gave, from the same mean.
            inverse_KK: Inverse covariance of the runs, over the noise's variance.
            log_volume: Logarithm of that covariance's determinant.
            noise: Squared deviation of the fit at its own size.
            common: The slope that all targets are drawn towards.
        """
        basis_K2 = np.column_stack([np.ones(len(column_K)), column_K])
        solved_K2 = inverse_KK @ basis_K2
        hold = max(noise / SLOPE_SPREAD**2, LEAST_HOLD)
        precision_22 = basis_K2.T @ solved_K2 + np.diag([0.0, hold])
        level, slope = np.linalg.solve(precision_22, solved_K2.T @ values_K + [0.0, hold * common])
        if slope < LEAST_SLOPE:
            slope = LEAST_SLOPE
            level = solved_K2[:, 0] @ (values_K - slope * column_K) / precision_22[0, 0]
        left_K = values_K - level - slope * column_K
        squares = float(left_K @ inverse_KK @ left_K) + hold * (slope - common) ** 2
        squares += NOISE_FREEDOM * noise
        freedom = NOISE_FREEDOM + len(column_K) - 1
        # It is held back out of caution; how unsure it is, is its prior's spread.
        open_22 = precision_22 - np.diag([0.0, hold - max(noise, LEAST_NOISE) / SLOPE_SPREAD**2])
        volume = log_volume + float(np.linalg.slogdet(precision_22)[1])
        likelihood = -0.5 * (volume + freedom * np.log(max(squares, 1e-300)))
        return cls(
            float(level),
            float(slope),
            squares / freedom,
            np.asarray(np.linalg.inv(open_22), dtype=np.float64),
            inverse_KK @ left_K,
            basis_K2,
            likelihood,
        )


COMMON_HOLD = 0.5  # so is the slope of all targets from 1
LENGTHS = (0.3, 0.6, 1.2, 2.4)
RATIOS = (0.0, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, eq=False)
class Correction:
    """What maps a fit's predictions to the other size.

    Attributes:
        weights_KD: Mixtures of the runs.
        predicted_KM: What the fit predicts for them.
        observed_KM: What they gave.
        spread_M: Standard deviation of each loss over the proxies' trials, > 0.
        noise_M: How far the fit is off at its own size, >= 0.
        length: Over which residuals are alike, in warped weights.
        ratio: Variance of the residual over that of the noise; 0 is a straight line alone.
        common: The slope that all targets are drawn towards.
    """

    weights_KD: Array
    predicted_KM: Array
    observed_KM: Array
    spread_M: Array
    noise_M: Array
    length: float = LENGTHS[1]
    ratio: float = 0.0
    common: float = 1.0

    @property
    def slopes_M(self) -> Array:
        """Slope of each target's line."""
        return np.array([line.slope for line in self._lines])

    @property
    def sigma_M(self) -> Array:
        """Standard deviation of a run about the law at the other size, residual aside."""
        variances_M = np.array([line.variance for line in self._lines])
        sigma_M: Array = self.spread_M * np.sqrt(variances_M)
        return sigma_M

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the noise's variance, those that it starts with included."""
        return NOISE_FREEDOM + len(self.weights_KD) - 1

    def apply(self, predicted_NM: Array, weights_ND: Array) -> Array:
        """Return losses at the other size, shape (N, M).

        Args:
            predicted_NM: What the fit predicts.
            weights_ND: For which mixtures.
        """
        residual_NM = self._alike(weights_ND) @ self._dual_KM
        corrected_NM: Array = self.carry(predicted_NM) + self.spread_M * residual_NM
        return corrected_NM

    def carry(self, predicted_NM: Array) -> Array:
        """Return losses on the lines alone, shape (N, M), of what the fit predicts."""
        line_NM: Array = self.slopes_M * (predicted_NM - self._middle_M)
        line_NM += self._middle_M + self.spread_M * self._levels_M
        return line_NM

    def std(self, predicted_NM: Array, weights_ND: Array, own_NM: Array | float = 1.0) -> Array:
        """Return standard deviations of a new run's losses, shape (N, M).

        Args:
            predicted_NM: What the fit predicts.
            weights_ND: For which mixtures.
            own_NM: The fit's own standard deviation there over what is typical of it.
        """
        alike_NK = self._alike(weights_ND)
        solved_KN = self._solve(alike_NK.T)
        left_N = np.maximum(self.ratio - (alike_NK * solved_KN.T).sum(axis=1), 0.0)
        parts = []
        for line, column_N in zip(self._lines, self._columns(predicted_NM).T, strict=True):
            basis_N2 = np.column_stack([np.ones(len(column_N)), column_N])
            open_N2 = basis_N2 - solved_KN.T @ line.basis_K2
            parts.append(np.einsum("ni,ij,nj->n", open_N2, line.unsure_22, open_N2))
        variance_NM = np.square(own_NM) + left_N[:, None] + np.stack(parts, axis=1)
        std_NM: Array = self.sigma_M * np.sqrt(variance_NM)
        return std_NM

    def gradient(self, slopes_MD: Array, weights_D: Array) -> Array:
        """Return the slope of each corrected loss by each weight, shape (M, D).

        Args:
            slopes_MD: Those of the fit at the mixture.
            weights_D: The mixture.
        """
        gradient_MD: Array = self.slopes_M[:, None] * slopes_MD
        if self.ratio:
            residual_MD = self._kernel.slopes(weights_D, self._dual_KM)
            gradient_MD += self.spread_M[:, None] * residual_MD
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

    def lines(self) -> Correction:
        """Return the lines alone, without a residual."""
        return replace(self, ratio=0.0)

    def without(self, run: int) -> Correction:
        """Return the lines through all runs but one, by position."""
        kept = np.arange(len(self.weights_KD)) != run
        others = replace(
            self.lines(),
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
        return replace(self, common=max(common, LEAST_SLOPE))

    def likely(self) -> Correction:
        """Return the correction with the most likely residual, pooled over targets."""
        every = [self.lines()]
        every += [replace(self, length=x, ratio=q) for x in LENGTHS for q in RATIOS if q]
        return max(every, key=lambda one: sum(line.likelihood for line in one._lines))

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
            "kernel": self._kernel.plain(self._dual_KM) if self.ratio else None,
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        arrays = {name: getattr(self, name).tolist() for name in ARRAYS}
        return {**arrays, "length": self.length, "ratio": self.ratio, "common": self.common}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Correction:
        """Build the correction that `to_json` described."""
        values: dict[str, Any] = {
            name: np.array(content[name], dtype=np.float64) for name in ARRAYS
        }
        return cls(**values, **{name: content[name] for name in ("length", "ratio", "common")})

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
    def _covariance_KK(self) -> Array:
        covariance_KK: Array = np.eye(len(self.weights_KD)) + self._alike(self.weights_KD)
        return covariance_KK

    def _solve(self, right_KN: Array) -> Array:
        return np.asarray(np.linalg.solve(self._covariance_KK, right_KN), dtype=np.float64)

    @cached_property
    def _lines(self) -> list[PilotLine]:
        inverse_KK = self._solve(np.eye(len(self.weights_KD)))
        log_volume = float(np.linalg.slogdet(self._covariance_KK)[1])
        columns_KM = self._columns(self.predicted_KM)
        values_KM = self._columns(self.observed_KM)
        noise_M = np.square(self.noise_M / self.spread_M)
        return [
            PilotLine.fitted(column_K, values_K, inverse_KK, log_volume, float(noise), self.common)
            for column_K, values_K, noise in zip(columns_KM.T, values_KM.T, noise_M, strict=True)
        ]

    @cached_property
    def _dual_KM(self) -> Array:
        return np.stack([line.dual_K for line in self._lines], axis=1)

    @cached_property
    def _kernel(self) -> PilotKernel:
        return PilotKernel(self.weights_KD, self.length, self.ratio)

    def _alike(self, weights_ND: Array) -> Array:
        return self._kernel.alike(weights_ND)


ARRAYS = ("weights_KD", "predicted_KM", "observed_KM", "spread_M", "noise_M")


def correct(
    predicted_KM: ArrayLike,
    observed_KM: ArrayLike,
    weights_KD: ArrayLike,
    spread_M: ArrayLike,
    noise_M: ArrayLike,
    *,
    residual: bool = False,
) -> Correction:
    """Learn how runs at another size differ from what a fit predicts for them.

    Args:
        predicted_KM: What the fit predicts for the runs' mixtures.
        observed_KM: What they gave.
        weights_KD: The mixtures, in the order of the fit's domains.
        spread_M: Standard deviation of each loss over the trials that were fitted.
        noise_M: How far the fit is off on held-out trials of its own size.
        residual: Whether what the lines leave may depend on the mixture (co-kriging); for an
            aggregate of several targets, and from about eight runs on.

    Raises:
        TrialsError: Shapes that do not belong together, a value that is not finite, or a spread
            that is not above 0.
    """
    given = (weights_KD, predicted_KM, observed_KM, spread_M, noise_M)
    arrays: list[Any] = [np.asarray(values, dtype=np.float64) for values in given]
    _check(*arrays)
    correction = Correction(*arrays).drawn_together()
    return correction.likely() if residual else correction


def _check(weights: Array, predicted: Array, observed: Array, spread: Array, noise: Array) -> None:
    runs, targets = len(weights), predicted.shape[-1]
    for what, array, shape in (
        ("predictions", predicted, (runs, targets)),
        ("losses", observed, (runs, targets)),
        ("spreads", spread, (targets,)),
        ("noise", noise, (targets,)),
    ):
        if array.shape != shape:
            raise TrialsError(f"pilots: {what} of shape {array.shape}; {runs} runs need {shape}")
    named = ("weights", "predictions", "losses", "spreads", "noise")
    for what, array in zip(named, (weights, predicted, observed, spread, noise), strict=True):
        if not array.size or not np.isfinite(array).all():
            raise TrialsError(f"pilots: {what} are empty, or hold a value that is not finite")
    if (spread <= 0).any():
        raise TrialsError(
            f"pilots: the spread of target {int(np.argmin(spread))} is {spread.min():g}; a loss "
            "that is the same in all trials cannot be corrected to another size: leave it out"
        )
