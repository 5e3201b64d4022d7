"""The noise in a loss, from replicates, and the best error that any predictor can reach.

Trials of one mixture under several seeds differ by initial weights and the order of the data
alone. Their pooled spread is the noise of a trial. A predictor that knew every mixture's true
loss would still rank trials imperfectly; how well is simulated.

Shapes: N trials, R simulated repeats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.fitting.cross_validation import spearman
from mixopt.system import Array

REPEATS = 200


def replicate_spread(values_N: Array, mixtures: Sequence[str]) -> tuple[float, int] | None:
    """Return the pooled standard deviation within mixtures, and its degrees of freedom.

    Args:
        values_N: One number for each trial.
        mixtures: Fingerprint of each trial's mixture.

    Returns:
        None where no mixture was trained twice.
    """
    squares, freedom = 0.0, 0
    for mixture in dict.fromkeys(mixtures):
        own_N = values_N[[name == mixture for name in mixtures]]
        squares += float(((own_N - own_N.mean()) ** 2).sum())
        freedom += len(own_N) - 1
    return (float(np.sqrt(squares / freedom)), freedom) if freedom else None


def best_spearman(values_N: Array, spread: float, seed: int) -> float | None:
    """Return the rank correlation that a perfect predictor reaches, on average.

    The true values are not known; in their place are the observed ones, drawn together towards
    their mean until noise of this spread would give the variance that is observed.

    Args:
        values_N: Observed losses.
        spread: Standard deviation of the noise of one trial.
        seed: Of the simulated noise.

    Returns:
        None where the losses vary no more than the noise does.
    """
    signal = 1.0 - spread**2 / max(float(values_N.var()), 1e-300)
    if signal <= 0:
        return None
    truth_N = values_N.mean() + np.sqrt(signal) * (values_N - values_N.mean())
    noise_RN = np.random.default_rng(seed).normal(0.0, spread, (REPEATS, len(values_N)))
    found = [spearman(truth_N, truth_N + noise_N) for noise_N in noise_RN]
    return float(np.mean([value for value in found if value is not None]))
