"""The state of one loss: ready, weak or noise.

With replicates a loss is `ready` where the signal is at least the noise (95% lower bound) and the
chosen regressor ranks held-out trials no worse than controls that know no law; `weak` where only
the estimate of the ratio is 1 or more; `noise` otherwise.

Without replicates the rank correlation on held-out folds bounds the ratio from below. What is
observed is signal and noise, so that even a predictor of the true losses correlates with it by
ratio / sqrt(1 + ratio^2) at most, which is sqrt(1/2) where noise equals signal. A loss is `ready`
where the correlation's 95% lower bound is at least that, `weak` where the bound is above 0, and
`noise` otherwise. A loss that no regressor predicts is then `noise` too: a fit has nothing to say
of it.

The bound is Fisher's, with the variance of a rank correlation of Bonett and Wright (2000),
(1 + r^2 / 2) / (N - 3) for N mixtures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mixopt.trials import Readiness, State

EQUAL = math.sqrt(0.5)  # the most that one can correlate with what is half noise
LEVEL = 1.6449  # standard deviations below which 5% of a normal distribution lies


@dataclass(frozen=True)
class LossReadiness:
    """What is known of a loss.

    Attributes:
        of_trials: Its spread, noise, and their ratio.
        weight: Its weight in the objective; 0 where the objective does not measure it.
        mixtures: How many different mixtures were ranked.
        spearman: Rank correlation of the chosen regressor on held-out folds.
        ceiling: The rank correlation of a predictor that knew the truth.
        control: The control that ranks best, and its rank correlation.
        domains: Rank correlation over the trials with the own loss of each training domain.
    """

    of_trials: Readiness
    weight: float
    mixtures: int
    spearman: float | None
    ceiling: float | None
    control: tuple[str, float] | None
    domains: dict[str, float]

    @property
    def name(self) -> str:
        """The loss."""
        return self.of_trials.name

    @property
    def spearman_low(self) -> float | None:
        """The 95% lower bound of the rank correlation on held-out folds."""
        if self.spearman is None or self.mixtures < 4:
            return None
        return math.tanh(_fisher(self.spearman) - LEVEL * self._error(self.spearman))

    @property
    def state(self) -> State:
        """`ready`, `weak` or `noise`; from the rank correlation alone without replicates."""
        found = self.of_trials.state
        if found == "unknown":
            low = self.spearman_low
            if low is None or low <= 0:
                return "noise"
            found = "ready" if low >= EQUAL else "weak"
        return "weak" if found == "ready" and self._is_beaten else found

    @property
    def nearest(self) -> tuple[str, float] | None:
        """The training domain whose own loss goes most with this one, and how much."""
        if not self.domains:
            return None
        return max(self.domains.items(), key=lambda one: abs(one[1]))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        name, best = self.control or (None, None)
        return {
            **self.of_trials.to_json(),
            "state": self.state,
            "weight": self.weight,
            "spearman": self.spearman,
            "spearman_low": self.spearman_low,
            "ceiling": self.ceiling,
            "control": name,
            "control_spearman": best,
            "domains": dict(self.domains),
        }

    @property
    def _is_beaten(self) -> bool:
        """Whether the regressor ranks nothing, or a control ranks better beyond doubt.

        With two domains a domain's own share says all there is to know: a control that is as good
        is no fault.
        """
        if self.spearman is None or self.control is None:
            return self.spearman is None
        apart = _fisher(self.control[1]) - _fisher(self.spearman)
        return self.mixtures > 3 and apart > LEVEL * self._error(self.spearman)

    def _error(self, rank: float) -> float:
        return math.sqrt((1 + rank**2 / 2) / (self.mixtures - 3))


def _fisher(rank: float) -> float:
    return math.atanh(min(max(rank, -1 + 1e-12), 1 - 1e-12))
