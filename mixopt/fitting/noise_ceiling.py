"""The noise ceiling: the rank correlation that a predictor of the true values would reach.

Observed values contain noise, so no predictor ranks them perfectly; reports show the ceiling beside
the correlations of regressors.

Shapes: N trials, R simulated repeats.
"""

import numpy as np

from mixopt.fitting.rank_correlation import spearman
from mixopt.system import Array

REPEATS = 200  # simulations of the noise


def noise_ceiling(observed_N: Array, noise: float, seed: int) -> float | None:
    """Return the mean rank correlation of the true values with values under noise.

    The true values are the observed ones, shrunk to the variance that noise does not explain.

    Args:
        observed_N: Observed values of the trials.
        noise: Standard deviation of a trial about its true value.
        seed: Seed of the simulated noise.

    Returns:
        The correlation; None if noise explains all of the variance.
    """
    signal_share = 1.0 - noise**2 / max(float(observed_N.var()), 1e-300)
    if signal_share <= 0:
        return None
    mean = observed_N.mean()
    true_N = mean + np.sqrt(signal_share) * (observed_N - mean)
    rng = np.random.default_rng(seed)
    noise_RN = rng.normal(0.0, noise, (REPEATS, len(observed_N)))
    correlations = [spearman(true_N, true_N + noise_N) for noise_N in noise_RN]
    return float(np.mean([value for value in correlations if value is not None]))
