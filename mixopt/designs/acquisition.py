"""Choose the next mixtures to try among many, given a fit's beliefs.

A belief is a normal distribution of the objective over some mixtures together: means, and the
directions in which all of them may be off at once. The batch is chosen one mixture after another.

- Knowledge gradient (mixopt.designs.knowledge_gradient): the mixture whose trial, with those of
  the batch, is expected to lower the least predicted value most. What counts is the proposal that
  follows, not the best of the trials.
- Expected improvement: the mixture whose true value, over draws of the belief, is expected to fall
  furthest below the best of those that are trained or already in the batch. Draws are joint, so a
  neighbour of what is in the batch gains nothing more; and the best trained mixture is found again
  in each draw, so that a trial which was lucky with its seed is not taken at its word (what is
  known as noisy expected improvement, with a batch filled greedily).
- Variance: among the mixtures predicted best, the one that is least certain given those before it
  (pivoted Cholesky).

Shapes: K mixtures, R directions, S draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixopt.system import Array, BoolArray

DRAWS = 512
NEAR = 0.1  # share of the mixtures, by predicted value, that count as near the optimum
ROUNDING = 1e-12  # part of the largest eigenvalue below which a direction is none
LEAST = 64  # mixtures that do at any rate


@dataclass(frozen=True, eq=False)
class Belief:
    """What a fit holds of the objective at some mixtures.

    Attributes:
        means_K: Predicted values.
        directions_RK: Ways to be off: the truth is the mean plus a standard normal amount of each.
    """

    means_K: Array
    directions_RK: Array

    @classmethod
    def of(cls, means_K: Array, covariance_KK: Array) -> Belief:
        """Return a belief of this covariance; what rounding makes negative counts as 0."""
        values_R, vectors_KR = np.linalg.eigh(covariance_KK)
        kept_R = values_R > values_R.max() * ROUNDING
        directions_RK = np.sqrt(values_R[kept_R])[:, None] * vectors_KR.T[kept_R]
        return cls(means_K, np.asarray(directions_RK, dtype=np.float64))

    def draws(self, seed: int) -> Array:
        """Return draws of the truth, shape (S, K)."""
        amounts_SR = np.random.default_rng(seed).standard_normal((DRAWS, len(self.directions_RK)))
        drawn: Array = self.means_K + amounts_SR @ self.directions_RK
        return drawn


def choose_by_improvement(
    draws_SK: Array, trained_K: BoolArray, open_K: BoolArray, count: int
) -> list[int]:
    """Choose the mixtures with the largest expected improvement, each given those before it.

    Args:
        draws_SK: Draws of the objective; below is better.
        trained_K: Which mixtures trials were trained on.
        open_K: Which may be chosen; at least `count`.
        count: How many to choose.

    Returns:
        Their positions; where no draw improves any more, those with the lowest mean.
    """
    best_S = draws_SK[:, trained_K].min(axis=1)
    open_K, chosen = open_K.copy(), []
    for _ in range(count):
        gains_K = np.maximum(best_S[:, None] - draws_SK, 0.0).mean(axis=0)
        scores_K = gains_K if gains_K[open_K].any() else -draws_SK.mean(axis=0)
        chosen.append(int(np.argmax(np.where(open_K, scores_K, -np.inf))))
        open_K[chosen[-1]] = False
        best_S = np.minimum(best_S, draws_SK[:, chosen[-1]])
    return chosen


def choose_by_variance(belief: Belief, open_K: BoolArray, count: int) -> list[int]:
    """Choose the least certain of the mixtures that are predicted best.

    Args:
        belief: Of all mixtures.
        open_K: Which may be chosen; at least `count`.
        count: How many to choose.

    Returns:
        Their positions.
    """
    rows = np.flatnonzero(open_K)
    most = max(int(NEAR * len(rows)), LEAST, count)
    near = rows[np.argsort(belief.means_K[rows], kind="stable")[:most]]
    left_RK, chosen = belief.directions_RK[:, near].copy(), []
    taken_K = np.zeros(len(near), dtype=np.bool_)
    for _ in range(count):
        size_K = np.where(taken_K, -1.0, (left_RK**2).sum(axis=0))
        place = int(np.argmax(size_K))
        taken_K[place] = True
        chosen.append(int(near[place]))
        if size_K[place] > 0:
            known_R = left_RK[:, place] / np.sqrt(size_K[place])
            left_RK = left_RK - np.outer(known_R, known_R @ left_RK)
    return chosen


def improvement(below_K: Array, stds_K: Array) -> Array:
    """Return the expected improvement on one known value, shape (K,).

    Args:
        below_K: How far each mean is below the value.
        stds_K: Standard deviations.
    """
    from scipy.special import ndtr

    safe_K = np.maximum(stds_K, 1e-300)
    ratio_K = np.clip(below_K / safe_K, -40.0, 40.0)
    density_K = np.exp(-0.5 * ratio_K**2) / np.sqrt(2.0 * np.pi)
    gain: Array = below_K * ndtr(ratio_K) + stds_K * density_K
    return np.maximum(gain, 0.0)


def expected_gain(draws_SK: Array, proposal: int, batch: list[int]) -> float:
    """Return how far the best of a batch is expected to fall below the proposal.

    The truth of the whole batch is taken to become known, so this is the most that it can bring.

    Args:
        draws_SK: Draws of the objective.
        proposal: Position of the mixture that is predicted best.
        batch: Positions of the batch.
    """
    best_S = draws_SK[:, batch].min(axis=1)
    return float(np.maximum(draws_SK[:, proposal] - best_S, 0.0).mean())
