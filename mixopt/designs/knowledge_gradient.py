"""The batch of trials after which the proposal is expected to be best: a knowledge gradient.

A trial at mixture x moves the predicted values of all mixtures by a normal amount along the
covariance with x: by z cov(., x) / sqrt(cov(x, x) + noise^2). The mixture with the least predicted
value is what is proposed, so a batch is worth by how much the least predicted value is expected to
fall: what is known as the knowledge gradient. Unlike expected improvement it pays for a trial that
is poor itself and tells much about others, and nothing for one that cannot change which mixture is
proposed.

The batch is filled greedily: each next mixture is the best with those before it. The expectation
over what the batch gives is a mean over draws that all candidates share, from scrambled Sobol
points; the covariance after the trials before is exact.

Shapes: K mixtures, A of them that may be proposed, C candidates of a chunk, S draws, B chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixopt.designs.acquisition import Belief
from mixopt.system import Array, BoolArray, IntArray

DRAWS = 128  # a power of 2, as Sobol points want it
PROPOSED = 256  # mixtures that may become the proposal
OPEN = 384  # candidates that stay after the first choice, by what each is worth alone
DEVIATIONS = 2.0  # below its mean, by which mixtures are ranked as possible proposals
TINY = 1e-300  # a trial of what is known without noise moves nothing
CHUNK = 2**20  # numbers at once: what a processor's cache holds


def choose_by_knowledge(
    belief: Belief, noise: float, open_K: BoolArray, count: int, seed: int
) -> tuple[list[int], float]:
    """Choose the mixtures whose trials are expected to lower the least predicted value most.

    Args:
        belief: Of all mixtures; any of them may be proposed.
        noise: Standard deviation of a trial about the truth.
        open_K: Which may be chosen; at least `count`.
        count: How many to choose.
        seed: Of the draws.

    Returns:
        Their positions, and by how much the least predicted value is expected to fall.
    """
    draws_SB = _normal_draws(count, seed)
    covariance_KK = belief.directions_RK.T @ belief.directions_RK
    proposed_A = _may_be_proposed(belief)
    least = float(belief.means_K.min())
    means_SA = np.tile(belief.means_K[proposed_A] - least, (DRAWS, 1))
    rows, chosen, value = np.flatnonzero(open_K), [], 0.0
    for place in range(count):
        scale_K = 1.0 / np.sqrt(np.maximum(np.diag(covariance_KK), 0.0) + noise**2 + TINY)
        effects_CA = covariance_KK[np.ix_(rows, proposed_A)] * scale_K[rows, None]
        values_C = _expected_least(means_SA, effects_CA, draws_SB[:, place])
        best = int(np.argmin(values_C))
        row, value = int(rows[best]), float(values_C[best])
        chosen.append(row)
        means_SA = means_SA + draws_SB[:, place, None] * effects_CA[best]
        known_K = covariance_KK[row] * scale_K[row]
        covariance_KK = covariance_KK - np.outer(known_K, known_K)
        left = np.delete(np.arange(len(rows)), best)
        if place == 0:
            left = np.sort(left[np.argsort(values_C[left], kind="stable")[: max(OPEN, count)]])
        rows = rows[left]
    return chosen, max(-value, 0.0)


def _expected_least(means_SA: Array, effects_CA: Array, draws_S: Array) -> Array:
    """Return the mean over draws of the least value, after one more trial, shape (C,)."""
    draws, proposed = means_SA.shape
    size = max(CHUNK // (draws * proposed), 1)
    means, effects = means_SA.astype(np.float32), effects_CA.astype(np.float32)
    factors_S1 = draws_S.astype(np.float32)[:, None]
    found = [
        (means + factors_S1 * effects[at : at + size, None]).min(axis=2).mean(axis=1)
        for at in range(0, len(effects), size)
    ]
    return np.concatenate(found).astype(np.float64)


def _may_be_proposed(belief: Belief) -> IntArray:
    """Return the mixtures that are, or may turn out to be, predicted best."""
    stds_K = np.sqrt((belief.directions_RK**2).sum(axis=0))
    optimistic_K = belief.means_K - DEVIATIONS * stds_K
    half = PROPOSED // 2
    best = np.argsort(belief.means_K, kind="stable")[:half]
    hopeful = np.argsort(optimistic_K, kind="stable")[:half]
    return np.union1d(best, hopeful)


def _normal_draws(count: int, seed: int) -> Array:
    """Return evenly spread standard normal draws, shape (S, B)."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    rng: Any = np.random.default_rng([seed, 4])
    points_SB = qmc.Sobol(count, scramble=True, rng=rng).random(DRAWS)
    return np.asarray(ndtri(np.clip(points_SB, 1e-9, 1.0 - 1e-9)), dtype=np.float64)
