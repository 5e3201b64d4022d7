"""Errors of a fit's regressor on held-out trials, and intervals calibrated on them.

Losses are lower-better: metrics of which higher is better are negated. A share of right answers has
a binomial error that depends on the share itself; it replaces the typical one in the regressor's
standard deviations.

Shapes: N trials or mixtures, M evaluation domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from mixopt.fitting.intervals import Calibration, calibrate, conformal_quantile
from mixopt.objective import Objective
from mixopt.system import Array

# Factor on the quantile of held-out errors, which come from fits without one fold.
GAIN_WIDTH = 0.85


@dataclass(frozen=True, eq=False)
class HeldOutErrors:
    """Held-out predictions of one regressor beside the observed losses.

    Attributes:
        objective: The fit's objective.
        observed_NM: Observed losses.
        predicted_NM: Held-out predictions.
        stds_NM: The regressor's standard deviations of these.
        local: Whether widths of intervals follow the standard deviations in any case.
    """

    objective: Objective
    observed_NM: Array
    predicted_NM: Array
    stds_NM: Array
    local: bool

    @classmethod
    def of(
        cls,
        table: pl.DataFrame,
        name: str,
        objective: Objective,
        observed_NM: Array,
        *,
        local: bool,
    ) -> "HeldOutErrors":
        """Read the predictions of a regressor from the table of held-out predictions."""
        by_target = table.filter(predictor=name).partition_by("target", as_dict=True)
        rows = [by_target[(target,)] for target in objective.evaluation]
        predicted_NM = np.stack([row["predicted"].to_numpy() for row in rows], axis=1)
        stds_NM = np.stack([row["std"].to_numpy() for row in rows], axis=1)
        return cls(objective, observed_NM, objective.turned(predicted_NM), stds_NM, local)

    @property
    def errors_NM(self) -> Array:
        """Observed minus predicted losses."""
        return np.asarray(self.observed_NM - self.predicted_NM)

    @property
    def rmse_M(self) -> Array:
        """Root mean squared error of each loss."""
        return np.asarray(np.sqrt((self.errors_NM**2).mean(axis=0)))

    def of_objective(self, objective: Objective) -> Array:
        """Return observed minus predicted objectives, shape (N,)."""
        predicted_N = objective.value(self.predicted_NM)
        return np.asarray(objective.value(self.observed_NM) - predicted_N)

    def objective_rmse(self, objective: Objective) -> float:
        """Return the root mean squared error of an objective."""
        return float(np.sqrt((self.of_objective(objective) ** 2).mean()))

    def gain_width(self, objective: Objective) -> float:
        """Return the half width of the 90% interval of a gain within the trials' reach."""
        return GAIN_WIDTH * conformal_quantile(np.abs(self.of_objective(objective)))

    @cached_property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The calibration of intervals of each loss."""
        calibrations = []
        for column, name in enumerate(self.objective.evaluation):
            errors_N = self.errors_NM[:, column]
            calibrations.append(self._calibrated(errors_N, self._full_stds_NM[:, column], [name]))
        return tuple(calibrations)

    def objective_calibration(self, objective: Objective) -> Calibration:
        """Return the calibration of intervals of an objective."""
        stds_N = objective.spread(self._full_stds_NM)
        return self._calibrated(self.of_objective(objective), stds_N, objective.measured)

    def _calibrated(self, errors_N: Array, stds_N: Array, names: Sequence[str]) -> Calibration:
        has_items = any(name in self.objective.items for name in names)
        return calibrate(errors_N, stds_N, local=self.local or has_items)

    @cached_property
    def _full_stds_NM(self) -> Array:
        """The regressor's standard deviations, including binomial errors."""
        return with_item_errors(
            self.objective, self.predicted_NM, self.stds_NM, self.item_variances
        )

    @cached_property
    def item_variances(self) -> Array:
        """Binomial variance of shares of right answers, mean over trials, shape (M,)."""
        errors_NM = self.objective.item_errors(self.observed_NM)
        return np.asarray(np.nan_to_num((errors_NM**2).mean(axis=0)))


def with_item_errors(
    objective: Objective, losses_NM: Array, stds_NM: Array, typical_M: Array
) -> Array:
    """Return standard deviations with the binomial errors of shares of right answers.

    Args:
        objective: The objective, with the number of questions of each metric.
        losses_NM: Predicted losses.
        stds_NM: The regressor's standard deviations.
        typical_M: Binomial variance that these contain; 0 for losses that are not such shares.
    """
    if not typical_M.any():
        return stds_NM
    item_variance_NM = np.nan_to_num(objective.item_errors(losses_NM)) ** 2
    other_variance_NM = np.maximum(stds_NM**2 - typical_M, 0.0)
    full_NM = np.sqrt(other_variance_NM + item_variance_NM)
    return np.asarray(np.where(typical_M > 0, full_NM, stds_NM))
