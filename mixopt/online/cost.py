"""The cost of an estimator so far, besides training."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cost:
    """Counts since the start of the run; times are those of rank 0.

    Attributes:
        evaluations: How often held-out text was evaluated.
        evaluation_tokens: Tokens of it, over all ranks.
        evaluation_seconds: Time spent in it.
        perturbed_steps: Optimiser steps on weights that were there to learn from.
        perturbed_tokens: Tokens of those steps, at the mean length of the reference mixture.
        perturbed_seconds: Time of those steps.
    """

    evaluations: int = 0
    evaluation_tokens: int = 0
    evaluation_seconds: float = 0.0
    perturbed_steps: int = 0
    perturbed_tokens: int = 0
    perturbed_seconds: float = 0.0


class CostMeter:
    """Adds to the cost; a lap is the time since the last."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.cost = Cost()
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since this was last asked."""
        before, self._since = self._since, time.perf_counter()
        return self._since - before

    def add_perturbed(self, tokens: int, seconds: float) -> None:
        """Count a step on weights that perturb."""
        self.cost = replace(
            self.cost,
            perturbed_steps=self.cost.perturbed_steps + 1,
            perturbed_tokens=self.cost.perturbed_tokens + tokens,
            perturbed_seconds=self.cost.perturbed_seconds + seconds,
        )

    def add_evaluation(self, tokens: int, seconds: float) -> None:
        """Count an evaluation."""
        self.cost = replace(
            self.cost,
            evaluations=self.cost.evaluations + 1,
            evaluation_tokens=self.cost.evaluation_tokens + tokens,
            evaluation_seconds=self.cost.evaluation_seconds + seconds,
        )
