"""DoReMi: more of the domains on which the model is furthest behind a reference model.

The score of a domain is the mean over its tokens of max(loss - reference model's loss, 0), and
log alpha grows by eta times it each step (github.com/sangmichaelxie/doremi, whose smoothing is the
default; the paper's is 1e-3).

A domain that was never seen scores as the mean of the others. The published code gives it the
logarithm of the vocabulary's size, which multiplies its weight by the vocabulary each step.

Shapes: D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mixopt.online import Need
from mixopt.system import Array
from mixopt_regressors.online.options import check_number, check_whole
from mixopt_regressors.online.reweighting import ReweightingEstimator
from mixopt_regressors.online.seen import Seen


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

    eta: float = 1.0
    smoothing: float = 1e-4
    update_steps: int = 1

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            EstimatorError: One that cannot be.
        """
        check_number("doremi: eta", self.eta, least=0.0)
        check_number("doremi: smoothing", self.smoothing, least=0.0, most=1.0)
        check_whole("doremi: update_steps", self.update_steps, least=1)

    def _scores(self, seen: Seen) -> Array:
        return seen.mean_excess_D

    def _move(self, seen: Seen) -> Array:
        return self.eta * self._known_scores()
