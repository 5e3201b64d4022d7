"""Look at paired differences more than once with a total error rate of at most 5%.

Whoever adds seeds until an interval excludes 0 finds an effect where there is none far more often
than one in twenty times. Here the numbers of seeds at which one looks are fixed beforehand, and at
each look the interval is Student's at one nominal level, chosen so that the chance that any of
these intervals misses the true difference is 5% (Pocock, 1977; these are the repeated confidence
intervals of Jennison and Turnbull, 1989). The nominal level is found by simulating the t-statistics
of nested samples, whose joint distribution depends on nothing but the numbers of seeds.

Shapes: R simulated validations, S seeds, K looks.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from mixopt.system import Array

LEVEL = 0.95  # of all looks together
SIMULATED = 100_000
FEWEST = 2  # seeds that give an interval


def looks(seeds: int, most: int) -> tuple[int, ...]:
    """Return the numbers of seeds at which to look: the first, then half as many more each time.

    Args:
        seeds: At the first look, >= 2.
        most: At the last, >= `seeds`.
    """
    step = math.ceil(seeds / 2)
    return (*range(seeds, most, step), most)


@lru_cache(maxsize=64)
def nominal_level(at: tuple[int, ...]) -> float:
    """Return the level of each look's interval that makes all of them hold at once in 95%.

    Args:
        at: Seeds at each look, increasing; 0.95 for a single look.
    """
    if len(at) == 1:
        return LEVEL
    from scipy.special import stdtr  # Student's t; lighter than scipy.stats

    noise_RS = np.random.default_rng(0x10075).standard_normal((SIMULATED, at[-1]))
    least_R = np.ones(SIMULATED)
    for count in at:
        seen_RS = noise_RS[:, :count]
        t_R = seen_RS.mean(axis=1) / (seen_RS.std(axis=1, ddof=1) / math.sqrt(count))
        least_R = np.minimum(least_R, 2.0 * stdtr(count - 1, -np.abs(t_R)))
    return 1.0 - float(np.quantile(least_R, 1.0 - LEVEL))


def paired_interval(differences_S: Array, level: float = LEVEL) -> tuple[float, float]:
    """Return the mean of paired differences and half the width of its interval.

    Args:
        differences_S: One difference a seed, at least two.
        level: That the interval is to have.
    """
    from scipy.special import stdtrit

    count = len(differences_S)
    error = float(differences_S.std(ddof=1)) / math.sqrt(count)
    quantile = float(stdtrit(count - 1, 0.5 + level / 2))
    return float(differences_S.mean()), quantile * error
