"""Whether arms can be told apart, before they are trained.

K arms have true metrics that differ by a standard deviation of `spread`; a run of each measures
its metric with an error of `noise`, its seed's and its questions'. The best arm is told from the
control where the largest of K differences from it is significant for all K together (Dunnett 1955,
with a known error). Both the critical difference and the power are one integral over the control's
own error z, which all differences share:

    level = 1 - E[Phi(c sqrt(2) + z)^K]
    power = 1 - E[Phi((c sqrt(2) + z) s / sqrt(spread^2 + s^2))^K],   s = noise / sqrt(seeds)

The control is taken to be an arm like the mean of all. experiments/checks/power.py compares claims
with simulated sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixopt.errors import ConfigError

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(96)
LEVEL = 0.05  # of all differences together, one-sided
GOAL = 0.8  # the power that is enough
MAX_NEEDED = 1 << 20


@dataclass(frozen=True)
class ArmPower:
    """How likely the best of the planned arms is told from the control.

    Attributes:
        power: The probability.
        arms: Arms that make it 0.8, with as many seeds as planned; None where none are enough.
        seeds: Seeds of each arm and of the control that do, with as many arms.
        items: Questions of the metric that do, where all noise is theirs.
    """

    power: float
    arms: int | None
    seeds: int | None
    items: int | None = None


def power(
    noise: float, spread: float, arms: int, *, seeds: int = 1, items: int | None = None
) -> ArmPower:
    """Return how likely the best of some arms is told from the control, and what is enough.

    Args:
        noise: Standard deviation of a run's metric over seeds (and questions), >= 0; from
            replicates, or sqrt(p (1 - p) / items), which is the most that questions add.
        spread: Standard deviation of the true metric over arms, >= 0, in the same unit; of a pilot
            sweep or of published runs.
        arms: Mixtures that are planned beside the control, >= 1.
        seeds: Runs of each, the control too, >= 1.
        items: Questions of the metric, where the noise is theirs.

    Raises:
        ConfigError: An argument out of its range.
    """
    for name, value in (("noise", noise), ("spread", spread)):
        if not 0 <= value < math.inf:
            raise ConfigError(f"power: {name} is {value}; need a standard deviation, at least 0")
    for name, count in (("arms", arms), ("seeds", seeds), ("items", 1 if items is None else items)):
        if count < 1:
            raise ConfigError(f"power: {name} is {count}; need at least 1")
    ratio = noise / spread if spread else math.inf

    def reached(arms: int, seeds: int) -> float:
        off = ratio / math.sqrt(seeds)  # of a mean over seeds, in spreads of the arms
        shrink = 1.0 if math.isinf(off) else off / math.hypot(1.0, off)
        return 1.0 - _mean_power(_critical(arms) * math.sqrt(2.0), shrink, arms)

    more_seeds = _least(lambda count: reached(arms, count) >= GOAL)
    return ArmPower(
        reached(arms, seeds),
        _least(lambda count: reached(count, seeds) >= GOAL),
        more_seeds,
        None if items is None or more_seeds is None else math.ceil(items * more_seeds / seeds),
    )


def critical_difference(noise: float, arms: int, *, seeds: int = 1) -> float:
    """Return how much better than the control the best arm must measure to count as better."""
    return _critical(arms) * math.sqrt(2.0 / seeds) * noise


def _critical(arms: int) -> float:
    """Return the critical difference, in deviations of a difference."""
    low, high = 0.0, 10.0
    for _ in range(50):
        middle = (low + high) / 2.0
        enough = _mean_power(middle * math.sqrt(2.0), 1.0, arms) >= 1.0 - LEVEL
        low, high = (low, middle) if enough else (middle, high)
    return high


def _mean_power(shift: float, factor: float, arms: int) -> float:
    """Return E[Phi(factor (shift + z))^arms] over a standard normal z."""
    from scipy.special import ndtr

    return float(WEIGHTS @ ndtr(factor * (shift + NODES)) ** arms / WEIGHTS.sum())


def _least(enough: Callable[[int], bool]) -> int | None:
    """Return the least count that is enough, by doubling and bisection; None beyond a million."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MAX_NEEDED:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
