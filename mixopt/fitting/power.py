"""Statistical power to rank arms, before they are trained.

The true metrics of K arms have a standard deviation of `spread`; a run measures its metric with an
error of `noise`, from its seed and its questions. The best arm is told from the control if the
largest of K differences is significant for all K together (Dunnett 1955, with a known error). The
critical difference and the power are integrals over the control's error z, which all differences
share:

    level = 1 - E[Phi(c sqrt(2) + z)^K]
    power = 1 - E[Phi((c sqrt(2) + z) s / sqrt(spread^2 + s^2))^K],   s = noise / sqrt(seeds)

The control is assumed to be an average arm. experiments/checks/power.py compares claims
with simulated sweeps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixopt.errors import ConfigError

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(96)
LEVEL = 0.05  # family-wise, one-sided
GOAL = 0.8  # sufficient power
MAX_NEEDED = 1 << 20


@dataclass(frozen=True)
class ArmPower:
    """Power to tell the best of the planned arms from the control.

    Attributes:
        power: The probability.
        arms: Number of arms that gives 0.8, with the planned seeds; None if no number does.
        seeds: Seeds of each arm and of the control that give 0.8, with the planned arms.
        items: Questions of the metric that give 0.8, if all noise comes from them.
    """

    power: float
    arms: int | None
    seeds: int | None
    items: int | None = None


def power(
    noise: float, spread: float, arms: int, *, seeds: int = 1, items: int | None = None
) -> ArmPower:
    """Return the power to tell the best arm from the control, and the numbers that give 0.8.

    Args:
        noise: Standard deviation of a run's metric over seeds (and questions), >= 0; from
            replicates, or sqrt(p (1 - p) / items), the maximum for questions.
        spread: Standard deviation of the true metric over arms, >= 0, in the same unit; from a
            pilot sweep or published runs.
        arms: Mixtures planned beside the control, >= 1.
        seeds: Runs of each arm and of the control, >= 1.
        items: Questions of the metric, if they cause the noise.

    Raises:
        ConfigError: An argument is out of range.
    """
    for name, value in (("noise", noise), ("spread", spread)):
        if not 0 <= value < math.inf:
            raise ConfigError(f"power: {name} is {value}; need a standard deviation, at least 0")
    for name, count in (("arms", arms), ("seeds", seeds), ("items", 1 if items is None else items)):
        if count < 1:
            raise ConfigError(f"power: {name} is {count}; need at least 1")
    ratio = noise / spread if spread else math.inf

    def reached(arms: int, seeds: int) -> float:
        off = ratio / math.sqrt(seeds)  # error of a mean over seeds, in spreads of the arms
        shrink = 1.0 if math.isinf(off) else off / math.hypot(1.0, off)
        return 1.0 - _mean_power(critical_difference(arms) * math.sqrt(2.0), shrink, arms)

    more_seeds = _least(lambda count: reached(arms, count) >= GOAL)
    return ArmPower(
        reached(arms, seeds),
        _least(lambda count: reached(count, seeds) >= GOAL),
        more_seeds,
        None if items is None or more_seeds is None else math.ceil(items * more_seeds / seeds),
    )


def critical_difference(arms: int) -> float:
    """Return the critical difference from the control, in standard deviations of a difference."""
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
    """Return the smallest sufficient count, by doubling and bisection; None beyond a million."""
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
