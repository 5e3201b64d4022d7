"""Correct the objective by a few runs at the target size, beyond the lines of its losses.

Lines carry each loss (mixopt.fitting.pilot_correction), and what they leave of the objective y,
which is a single number with errors of its own, gets a Gaussian process over mixtures:

    y = objective(lines) + level + r(w) + noise

The level is free. r has a Matern kernel, whose length and whose variance over the noise's have the
greatest marginal likelihood on a grid; on the grid there always is a residual. The deviation is
estimated from the pilots and from `NOISE_FREEDOM` more runs that are off by `OFF` of the
objective's spread. Lines through the pilots leave less of them than of new runs; squares are scaled
up by what each pilot shows when the lines are drawn through all others.

`OFF` and the grid were chosen in synthetic worlds of two sizes, and nothing on published runs.

Shapes: K runs, N mixtures, D domains, M losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from mixopt.fitting.pilot_correction import NOISE_FREEDOM, SLOPE_SPREAD, Correction, PilotKernel
from mixopt.objective import Objective
from mixopt.system import Array

LENGTHS = (0.3, 0.6, 1.2, 2.4)
RATIOS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
OFF = 0.2  # of the objective's spread; one run shows no slope, and is off by what slopes differ by
LEAST = 1e-9  # of the objective's spread: squares below are rounding


@dataclass(frozen=True, eq=False)
class ObjectiveResidual:
    """What carries an objective to the size of the runs.

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
        correction: Correction,
        objective: Objective,
        losses_LM: Array,
        *,
        lengths: Sequence[float] = LENGTHS,
        ratios: Sequence[float] = RATIOS,
        off: float = OFF,
    ) -> Self:
        """Learn what lines leave of an objective.

        Args:
            correction: Of the losses.
            objective: Over the same losses.
            losses_LM: Of the proxies' trials, from which the objective's spread is.
            lengths: Among which one is chosen; so is one of the ratios.
            ratios: Of variances, > 0.
            off: See the class.
        """
        lines = correction.lines()
        spread = float(objective.value(lines.carry(losses_LM)).std())
        first = cls(lines, objective, max(spread, LEAST), off=off)
        every = [replace(first, length=x, ratio=q) for x in lengths for q in ratios]
        return max(every, key=lambda one: one._likelihood)

    @property
    def sigma(self) -> float:
        """Standard deviation of a run about the objective of the lines, the level known."""
        squares = self._squares * self._inflation + self._prior
        return float(self.spread * np.sqrt(squares / self.lines.freedom))

    def value(self, predicted_NM: Array, weights_ND: Array) -> Array:
        """Return the objective at the runs' size, shape (N,).

        Args:
            predicted_NM: Losses that the fit predicts.
            weights_ND: For which mixtures.
        """
        value_N: Array = self.objective.value(self.lines.carry(predicted_NM))
        return value_N + self.shift(weights_ND)

    def shift(self, weights_ND: Array) -> Array:
        """Return what is added to the objective of the lines, shape (N,)."""
        shift_N: Array = self._level + self._kernel.alike(weights_ND) @ self._dual_K
        return self.spread * shift_N

    def std(self, weights_ND: Array) -> Array:
        """Return standard deviations of a new run's objective, shape (N,)."""
        alike_NK = self._kernel.alike(weights_ND)
        known_N = np.einsum("nk,kj,nj->n", alike_NK, self._inverse_KK, alike_NK)
        left_N = np.maximum(1.0 + self.ratio - known_N, 1.0)
        open_N = 1.0 - alike_NK @ self._inverse_KK.sum(axis=1)
        variance_N = left_N + open_N**2 / self._inverse_KK.sum()
        std_N: Array = self.sigma * np.sqrt(variance_N / (1.0 + self.ratio))
        return std_N

    def gradient(self, weights_D: Array) -> Array:
        """Return the slope of `shift` by each weight at one mixture, shape (D,)."""
        slope_D: Array = self.spread * self._kernel.slopes(weights_D, self._dual_K[:, None])[0]
        return slope_D

    def plain_law(self) -> dict[str, Any]:
        """Return the numbers of `shift` and `std`, for a plain law."""
        return {
            "lines": self.lines.plain_lines(),
            "kernel": self._kernel.plain(self._dual_K[:, None]),
            "spread": self.spread,
            "level": self._level,
            "sigma": self.sigma,
            "totals_K": self._inverse_KK.sum(axis=1),
            "total": float(self._inverse_KK.sum()),
            "pieces_PM": self.objective.pieces(),
        }

    @cached_property
    def _left_K(self) -> Array:
        """What the lines leave of the objective, in its spreads."""
        lines = self.lines
        fitted_K = self.objective.value(lines.carry(lines.predicted_KM))
        left_K: Array = (self.objective.value(lines.observed_KM) - fitted_K) / self.spread
        return left_K

    @cached_property
    def _kernel(self) -> PilotKernel:
        return PilotKernel(self.lines.weights_KD, self.length, self.ratio)

    @cached_property
    def _inverse_KK(self) -> Array:
        alike_KK = self._kernel.alike(self.lines.weights_KD)
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
        """Return squares that are left, over the variance of residual and noise together."""
        return float(self._dual_K @ (self._left_K - self._level)) * (1.0 + self.ratio)

    @property
    def _prior(self) -> float:
        alone = len(self._left_K) == 1
        return NOISE_FREEDOM * (SLOPE_SPREAD if alone else self.off) ** 2

    @property
    def _likelihood(self) -> float:
        """Return the logarithm of the marginal likelihood, but for a constant."""
        total_KK = self._inverse_KK * (1.0 + self.ratio)
        volume = np.log(total_KK.sum()) - np.linalg.slogdet(total_KK)[1]
        return float(-0.5 * (volume + self.lines.freedom * np.log(self._squares + self._prior)))

    @cached_property
    def _inflation(self) -> float:
        """Return by what squares of runs are larger that the lines were not drawn through."""
        count, lines = len(self._left_K), self.lines
        own = float((self._left_K**2).sum())
        if count == 1 or own <= LEAST**2:
            return 1.0
        observed_K = self.objective.value(lines.observed_KM)
        carried_KM = [
            lines.without(k).carry(lines.predicted_KM[k : k + 1])[0] for k in range(count)
        ]
        errors_K = (observed_K - self.objective.value(carried_KM)) / self.spread
        # A level without the run is off by its part of the run's error; `std` counts that itself.
        return float((errors_K**2).sum()) * (count - 1) / count / own
