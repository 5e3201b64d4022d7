"""DoReMi and DoGE: a mixture updated by a score of each domain, and its average over the run.

log alpha grows by a score of each domain, alpha is smoothed with the uniform mixture, and the
outcome is the average of alpha over all updates, for a second run to train on. A domain that was
not seen keeps its last score; one that never was has the mean of the others'. Both published
methods sample from a fixed mixture and weigh the gradients of domains with alpha; here the plan's
mixture is alpha, which has the same expected gradient.

DoReMi's score is the mean over a domain's tokens of max(loss - reference model's loss, 0), times
eta (github.com/sangmichaelxie/doremi, whose smoothing is the default; the paper's is 1e-3). DoGE's
is the inner product of its gradient with the objective's over the mean norm of the domains'
gradients, clipped, times learning rate / mu (github.com/Olivia-fsm/DoGE).

Shapes: D domains.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import Need, Observation, Plan
from mixopt.system import Array
from mixopt_regressors.online.online_estimator import (
    OnlineEstimator,
    Seen,
    check_option,
    log_shares,
    option,
    softmax,
)


class ReweightingEstimator(OnlineEstimator):
    """Moves the mixture by scores of the domains and averages it."""

    saved: ClassVar[tuple[str, ...]] = ("alpha_D", "average_D", "updates", "scores_D")
    mixtures: ClassVar[tuple[str, ...]] = ("alpha_D", "average_D")
    update_steps: int
    smoothing: float

    @abstractmethod
    def _scores(self, seen: Seen) -> Array:
        """Return the score of each domain, shape (D,); NaN of one that was not seen."""

    @abstractmethod
    def _move(self, seen: Seen) -> Array:
        """Return by how much log alpha grows, shape (D,), from `scores_D`."""

    def _first(self) -> Plan:
        self.alpha_D = self.setting.reference_D.copy()
        self.average_D = self.alpha_D
        self.updates = 0
        self.scores_D = np.full(len(self.alpha_D), np.nan)
        return self._plan("reference")

    def _next(self, seen: Seen) -> Plan:
        scores_D = self._scores(seen)
        self.scores_D = np.where(np.isnan(scores_D), self.scores_D, scores_D)
        if not np.isnan(self.scores_D).all():
            self._update(self._move(seen))
        return self._plan(f"update {self.updates}")

    def _update(self, move_D: Array) -> None:
        alpha_D = softmax(log_shares(self.alpha_D) + move_D)
        self.alpha_D = (1.0 - self.smoothing) * alpha_D + self.smoothing / len(alpha_D)
        self.updates += 1
        self.average_D = self.average_D + (self.alpha_D - self.average_D) / self.updates

    def _known_scores(self) -> Array:
        known_D = ~np.isnan(self.scores_D)
        return np.where(known_D, self.scores_D, self.scores_D[known_D].mean())

    def _plan(self, tag: str) -> Plan:
        return Plan(self.bounded(self.alpha_D), self.update_steps, tag)


@dataclass(eq=False)
class DoReMiEstimator(ReweightingEstimator):
    """Moves by the excess loss over a reference model.

    Attributes:
        eta: Step size.
        smoothing: Share of the uniform mixture after each update.
        update_steps: Optimiser steps of a plan; the published is 1.
    """

    name: ClassVar[str] = "doremi"
    needs: ClassVar[frozenset[Need]] = frozenset({"training_loss", "excess_loss"})

    eta: float = option(1.0, least=0.0)
    smoothing: float = option(1e-4, least=0.0, most=1.0)
    update_steps: int = option(1, least=1)

    def _scores(self, seen: Seen) -> Array:
        return seen.mean_excess_D

    def _move(self, seen: Seen) -> Array:
        return self.eta * self._known_scores()


@dataclass(eq=False)
class DoGEEstimator(ReweightingEstimator):
    """Moves by the alignment of gradients.

    Attributes:
        mu: Strength of the pull to the last mixture; the step is learning rate / mu.
        least: Smallest score.
        most: Largest score.
        smoothing: Share of the uniform mixture after each update.
        update_steps: Optimiser steps of a plan; the published is 1.
    """

    name: ClassVar[str] = "doge"
    needs: ClassVar[frozenset[Need]] = frozenset({"training_loss", "alignment"})

    mu: float = option(0.01, least=1e-12)
    least: float = option(0.0)
    most: float = option(5.0)
    smoothing: float = option(0.0, least=0.0, most=1.0)
    update_steps: int = option(1, least=1)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_option("doge: most", self.most, "float", least=self.least)

    def _scores(self, seen: Seen) -> Array:
        return np.clip(seen.alignment_D, self.least, self.most)

    def _check(self, observation: Observation) -> None:
        super()._check(observation)
        if observation.learning_rate <= 0.0 and observation.step > 1:  # a warm-up may begin at 0
            raise EstimatorError(
                f"doge: step {observation.step}: it needs the learning rate, which is 0"
            )

    def _move(self, seen: Seen) -> Array:
        return seen.learning_rate / self.mu * self._known_scores()
