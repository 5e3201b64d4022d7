"""DoGE: upweight domains whose gradient aligns with the objective's.

The score of a domain is the inner product of its gradient with the objective's over the mean norm
of the domains' gradients, clipped to [least, most]; log alpha grows by learning rate / mu times it
each step (github.com/Olivia-fsm/DoGE).

The published code keeps a domain's own gradient in the objective's, although it has a branch that
takes it out; so does the loop here.

Shapes: D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online import Need, Observation
from mixopt.system import Array
from mixopt_regressors.online.options import check_number, check_whole
from mixopt_regressors.online.reweighting import ReweightingEstimator
from mixopt_regressors.online.seen import Seen


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

    mu: float = 0.01
    least: float = 0.0
    most: float = 5.0
    smoothing: float = 0.0
    update_steps: int = 1

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            EstimatorError: One that cannot be.
        """
        check_number("doge: mu", self.mu, least=1e-12)
        check_number("doge: least", self.least)
        check_number("doge: most", self.most, least=self.least)
        check_number("doge: smoothing", self.smoothing, least=0.0, most=1.0)
        check_whole("doge: update_steps", self.update_steps, least=1)

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
