"""The plain mean of several regressors, close to the best of them without a choice.

On the published RegMix runs the mean of a Gaussian process and shared power laws is better than
either; which weights are best hardly shows in a few dozen trials.

Shapes: N trials, M targets, C members.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.system import Array
from mixopt_regressors.combinations.combined import CombinedRegressor


class EnsembleRegressor(CombinedRegressor):
    """The mean of its members' predictions.

    Attributes:
        members: Names of regressors.
        random_state: Seed of the members.
    """

    def __init__(
        self,
        members: Sequence[str] = ("gaussian_process", "skills", "power"),
        random_state: int = 0,
    ) -> None:
        self.members = members
        self.random_state = random_state

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self.members)

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        if self._refit(weights_ND, losses_NM):
            return
        self.members_ = [self._fitted(name, None, weights_ND, losses_NM) for name in self.names]
        self.weights_MC = self._weights(np.empty((len(self.names), 0)), losses_NM)

    def _weights(self, means_CNM: Array, losses_NM: Array) -> Array:
        return np.full((losses_NM.shape[1], len(means_CNM)), 1.0 / len(means_CNM))
