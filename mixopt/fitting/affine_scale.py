"""Runs at another scale: a linear correction from predicted to observed losses.

Losses of one mixture at two sizes lie near a line, a different one for each target. Through each
run goes the line of all other runs, so that none is fitted to itself.

Shapes: N runs, M targets.
"""

from __future__ import annotations

import numpy as np

from mixopt.errors import TrialsError
from mixopt.system import Array

LEAST_RUNS = 4
MUCH = 0.5  # a line that leaves less of the error than this speaks of another scale


def leave_one_out_lines(
    predicted_NM: Array, observed_NM: Array, *, affine: bool
) -> tuple[Array, Array]:
    """Map each run's predictions by the line through the other runs.

    Args:
        predicted_NM: Predictions.
        observed_NM: What the runs gave.
        affine: Whether it is an error if there are too few runs; predictions stay as they are
            otherwise.

    Returns:
        The mapped predictions and the slopes of the lines, shape (N, M) each.

    Raises:
        TrialsError: Too few runs.
    """
    count = len(predicted_NM)
    if count < LEAST_RUNS:
        if affine:
            raise TrialsError(f"--affine needs {LEAST_RUNS} runs, but there are {count}")
        return predicted_NM, np.ones_like(predicted_NM)
    centre_M = predicted_NM.mean(axis=0)
    x_NM = predicted_NM - centre_M

    def others(values_NM: Array) -> Array:
        mean: Array = (values_NM.sum(axis=0) - values_NM) / (count - 1)
        return mean

    x_mean_NM, y_mean_NM = others(x_NM), others(observed_NM)
    variance_NM = others(x_NM**2) - x_mean_NM**2
    covariance_NM = others(x_NM * observed_NM) - x_mean_NM * y_mean_NM
    flat_NM = variance_NM <= 1e-12
    slopes_NM = np.where(flat_NM, 0.0, covariance_NM / np.where(flat_NM, 1.0, variance_NM))
    return y_mean_NM + slopes_NM * (x_NM - x_mean_NM), slopes_NM


def is_other_scale(predicted_NM: Array, observed_NM: Array, lined_NM: Array) -> bool:
    """Tell whether a linear correction removes most of the error of most targets.

    Args:
        predicted_NM: Predictions.
        observed_NM: What the runs gave.
        lined_NM: The predictions, mapped by `leave_one_out_lines`.
    """
    plain_M = np.sqrt(((observed_NM - predicted_NM) ** 2).mean(axis=0))
    lined_M = np.sqrt(((observed_NM - lined_NM) ** 2).mean(axis=0))
    return bool((lined_M < MUCH * plain_M).mean() > 0.5)
