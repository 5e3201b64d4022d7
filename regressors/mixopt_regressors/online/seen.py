"""Observations under one plan, added up.

Shapes: D domains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mixopt.online import HeldOut, Observation
from mixopt.system import Array


@dataclass(frozen=True)
class Seen:
    """All that was told under a plan; a domain that was not counted adds nothing to a sum.

    Attributes:
        step: That of the last observation.
        tokens_D: Tokens that were trained on.
        loss_sum_D: Sum of the training losses, nats.
        loss_count_D: Tokens in that sum.
        excess_sum_D: Sum of the excess losses over the same tokens, nats; 0 where none was told.
        alignment_D: The last that was told; NaN where none was.
        learning_rate: At the last step; 0 where unknown.
        held_out: Held-out losses after the last step, where they were told.
    """

    step: int
    tokens_D: Array
    loss_sum_D: Array
    loss_count_D: Array
    excess_sum_D: Array
    alignment_D: Array
    learning_rate: float = 0.0
    held_out: HeldOut | None = None

    @classmethod
    def nothing(cls, domains: int, step: int) -> Self:
        """Return what was seen at the beginning of a plan."""
        none_D = np.zeros(domains)
        return cls(step, none_D, none_D, none_D, none_D, alignment_D=np.full(domains, np.nan))

    @property
    def mean_loss_D(self) -> Array:
        """Mean training loss of each domain; NaN where none was seen."""
        return _means(self.loss_sum_D, self.loss_count_D)

    @property
    def mean_excess_D(self) -> Array:
        """Mean excess loss of each domain; NaN where none was seen."""
        return _means(self.excess_sum_D, self.loss_count_D)

    def add(self, observation: Observation) -> Self:
        """Return both in one."""
        counted_D = np.asarray(observation.loss_count_D) > 0
        excess_D, alignment_D = observation.excess_sum_D, observation.alignment_D
        return replace(
            self,
            step=int(observation.step),
            tokens_D=self.tokens_D + observation.tokens_D,
            loss_sum_D=self.loss_sum_D + np.where(counted_D, observation.loss_sum_D, 0.0),
            loss_count_D=self.loss_count_D + observation.loss_count_D,
            excess_sum_D=self.excess_sum_D
            + (0.0 if excess_D is None else np.where(counted_D, excess_D, 0.0)),
            alignment_D=self.alignment_D
            if alignment_D is None
            else np.where(counted_D, alignment_D, self.alignment_D),
            learning_rate=float(observation.learning_rate),
            held_out=observation.held_out,
        )


def _means(sum_D: Array, count_D: Array) -> Array:
    means_D = np.full(count_D.shape, np.nan)
    np.divide(sum_D, count_D, out=means_D, where=count_D > 0)
    return means_D
