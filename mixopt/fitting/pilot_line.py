"""The straight line of one target through a few runs at another size.

b0 is free and b1 is held near the slope of all targets (mixopt.fitting.pilot_correction says in
which law). A line's noise starts at that of the fit on its own trials, worth `NOISE_FREEDOM` runs.

Shapes: K runs at the other size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixopt.system import Array

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
