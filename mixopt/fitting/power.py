"""Statistical power to rank arms, before they are trained.

The true metrics of K arms have a standard deviation of `spread`; a run measures its metric with an
error of `noise`, from its seed and its questions. The best arm is told from the control if the
largest of K differences is significant at a family-wise level (Dunnett 1955, with a known error).
The critical difference and the power are integrals over the control's error z, which all
differences share:

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

LEVEL = 0.05  # family-wise error rate, one-sided
SUFFICIENT_POWER = 0.8
MAX_COUNT = 1 << 20  # largest number of arms or seeds that is searched
# Quadrature over a standard normal distribution.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(96)


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
    _check_deviation("noise", noise)
    _check_deviation("spread", spread)
    _check_count("arms", arms)
    _check_count("seeds", seeds)
    if items is not None:
        _check_count("items", items)
    ratio = noise / spread if spread else math.inf
    needed_seeds = _smallest_count(lambda count: _power(ratio, arms, count) >= SUFFICIENT_POWER)
    needed_items = None
    if items is not None and needed_seeds is not None:
        needed_items = math.ceil(items * needed_seeds / seeds)
    return ArmPower(
        power=_power(ratio, arms, seeds),
        arms=_smallest_count(lambda count: _power(ratio, count, seeds) >= SUFFICIENT_POWER),
        seeds=needed_seeds,
        items=needed_items,
    )


def critical_difference(arms: int) -> float:
    """Return the critical difference from the control, in standard deviations of a difference."""
    low, high = 0.0, 10.0
    for _ in range(50):
        middle = (low + high) / 2.0
        if _mean_power(middle * math.sqrt(2.0), 1.0, arms) >= 1.0 - LEVEL:
            high = middle
        else:
            low = middle
    return high


def _check_deviation(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(f"power: {name} is {value}; need a standard deviation, at least 0")


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ConfigError(f"power: {name} is {count}; need at least 1")


def _power(ratio: float, arms: int, seeds: int) -> float:
    """Return the power for a ratio of noise to spread."""
    error = ratio / math.sqrt(seeds)  # of a mean over seeds, in spreads of the arms
    shrinkage = 1.0 if math.isinf(error) else error / math.hypot(1.0, error)
    return 1.0 - _mean_power(critical_difference(arms) * math.sqrt(2.0), shrinkage, arms)


def _mean_power(shift: float, factor: float, arms: int) -> float:
    """Return E[Phi(factor (shift + z))^arms] over a standard normal z."""
    from scipy.special import ndtr

    return float(WEIGHTS @ ndtr(factor * (shift + NODES)) ** arms / WEIGHTS.sum())


def _smallest_count(is_sufficient: Callable[[int], bool]) -> int | None:
    """Return the smallest sufficient count, by doubling and bisection; None above `MAX_COUNT`."""
    high = 1
    while not is_sufficient(high):
        high *= 2
        if high > MAX_COUNT:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if is_sufficient(middle):
            high = middle
        else:
            low = middle
    return high
