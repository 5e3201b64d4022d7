"""How far a mixture is from all trials, and by how much that widens its intervals.

Errors on held-out folds are those of mixtures among the trials. Within the trials' reach, which is
the largest distance of a trial from its nearest neighbour, intervals are theirs. Beyond it a law is
extrapolated, and is off by more than its deviation says: an interval is (1 + beyond / radius)^2
times as wide, where the radius is the largest distance of a trial from the mean of all. The square
is how the error of a smooth function grows that is continued by its slope; that it and this radius
keep coverage near 90% was measured (experiments/published/intervals_beyond.py).

Distances are total variations. Shapes: N mixtures, K different trials, D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixopt.mixture import pairwise_total_variation
from mixopt.system import Array

ALIKE = 3  # decimals; mixtures that agree to a thousandth of the tokens count as one


@dataclass(frozen=True, eq=False)
class TrialReach:
    """Where the trials are, and how far they reach.

    Attributes:
        weights_ND: Mixtures of the trials.
    """

    weights_ND: Array

    @cached_property
    def reach(self) -> float:
        """The largest distance of a trial from its nearest neighbour; 0 where all are alike."""
        rows = self._different
        if len(rows) < 2:
            return 0.0
        apart_KK = pairwise_total_variation(rows, rows)
        np.fill_diagonal(apart_KK, np.inf)
        return float(apart_KK.min(axis=1).max())

    @cached_property
    def radius(self) -> float:
        """The largest distance of a trial from the mean of all."""
        rows = self._different
        return float(pairwise_total_variation(rows, rows.mean(axis=0)[None]).max())

    def nearest(self, points_ND: Array) -> Array:
        """Return the distance of each mixture from its nearest trial, shape (N,)."""
        near_N: Array = pairwise_total_variation(points_ND, self.weights_ND).min(axis=1)
        return near_N

    def stretch(self, points_ND: Array) -> Array:
        """Return by what intervals are wider at each mixture, shape (N,); 1 within the reach."""
        if self.radius <= 0:
            return np.ones(len(points_ND))
        beyond_N = np.maximum(self.nearest(points_ND) - self.reach, 0.0)
        stretch_N: Array = (1.0 + beyond_N / self.radius) ** 2
        return stretch_N

    @cached_property
    def _different(self) -> Array:
        _, first = np.unique(self.weights_ND.round(ALIKE), axis=0, return_index=True)
        return self.weights_ND[first]
