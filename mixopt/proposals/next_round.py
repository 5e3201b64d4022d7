"""Choose the next mixtures to try among many, given a fit's beliefs.

A belief is a normal distribution of the objective over some mixtures together: means, and the
directions in which all of them may be off at once. The batch is chosen one mixture after another.

- Knowledge gradient (mixopt.proposals.next_round): the mixture whose trial, with those of
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
from typing import Any, Literal

import numpy as np

from mixopt.constraints import Allowed
from mixopt.errors import DesignError
from mixopt.proposals.mixture_search import search
from mixopt.proposals.problem import Problem
from mixopt.proposals.surrogate import Belief, Surrogate
from mixopt.system import Array, BoolArray, IntArray
from mixopt.trials import SAME_MIXTURE

NEAR = 0.1  # share of the mixtures, by predicted value, that count as near the optimum
LEAST = 64  # mixtures that do at any rate


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


SOBOL_DRAWS = 128  # a power of 2, as Sobol points want it
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
    means_SA = np.tile(belief.means_K[proposed_A] - least, (SOBOL_DRAWS, 1))
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
    points_SB = qmc.Sobol(count, scramble=True, rng=rng).random(SOBOL_DRAWS)
    return np.asarray(ndtri(np.clip(points_SB, 1e-9, 1.0 - 1e-9)), dtype=np.float64)


Acquisition = Literal["knowledge_gradient", "expected_improvement", "variance"]
DEFAULT: Acquisition = "knowledge_gradient"
SAMPLES, AVERAGE = 4_000, 32  # of the search for the predicted optimum
CENTERS = 4  # best trials that candidates are drawn around
KNOWN = 128  # trained mixtures that count, the best by prediction
SPREAD = 128  # candidates spread over all that is allowed
WIDE = (1.0, 4.0, 16.0, 64.0)  # concentrations of draws around natural and uniform
NARROW = (16.0, 64.0, 256.0, 1024.0)  # and around optimum and best trials
EACH = 16  # draws around each centre with each concentration
GENERATIONS, PARENTS, CHILDREN = 4, 24, 6


@dataclass(frozen=True, eq=False)
class Batch:
    """The mixtures of a round, and their expected gain.

    Attributes:
        weights_BD: The mixtures.
        proposal_D: The mixture that is predicted best so far.
        predicted: Its predicted objective.
        gain: How far the best of the batch is expected to fall below the proposal, at most; by
            knowledge gradient, how far the proposal that follows is.
        regressor: Name of the regressor that they were chosen by.
    """

    weights_BD: Array
    proposal_D: Array
    predicted: float
    gain: float
    regressor: str


def choose_batch(
    surrogate: Surrogate,
    candidates_KD: Array,
    count: int,
    *,
    acquisition: Acquisition = DEFAULT,
    taken_ND: Array | None = None,
    seed: int = 0,
) -> Batch:
    """Choose mixtures among candidates.

    Args:
        surrogate: A regressor fitted on the trials so far.
        candidates_KD: Allowed mixtures; the one that is predicted best is the proposal.
        count: How many to choose, B.
        acquisition: By knowledge gradient, by expected improvement, or by variance near the
            predicted optimum.
        taken_ND: Mixtures that are not tried again; those of the fit when None.
        seed: Of the draws.

    Raises:
        DesignError: Fewer candidates than `count` are new.
    """
    taken = surrogate.weights_ND if taken_ND is None else taken_ND
    fresh_K = _fresh(candidates_KD, taken)
    if fresh_K.sum() < count:
        raise DesignError(
            f"design.rounds: {count} further mixtures requested, but only {int(fresh_K.sum())} "
            "untried ones are left within the limits; lower the last of design.rounds, or widen "
            "the limits"
        )
    known_ND = _best(surrogate)
    belief = surrogate.believe(np.vstack([candidates_KD, known_ND]))
    open_K = np.concatenate([fresh_K, np.zeros(len(known_ND), dtype=np.bool_)])
    trained_K = np.arange(len(open_K)) >= len(candidates_KD)
    proposal = int(np.argmin(belief.means_K[: len(candidates_KD)]))
    chosen, gain = _chosen(surrogate, belief, open_K, trained_K, count, acquisition, proposal, seed)
    return Batch(
        weights_BD=candidates_KD[chosen],
        proposal_D=candidates_KD[proposal],
        predicted=float(belief.means_K[proposal]),
        gain=gain,
        regressor=surrogate.name,
    )


def draw_candidates(
    surrogate: Surrogate,
    allowed: Allowed,
    natural_D: Array,
    *,
    minimum: float = 0.0,
    seed: int = 0,
) -> Array:
    """Draw distinct allowed mixtures that are worth considering.

    Args:
        surrogate: A regressor fitted on the trials so far.
        allowed: Limits of the weights.
        natural_D: Where wide draws are centred, beside the uniform mixture.
        minimum: Weights below become 0, where the limits leave room for that.
        seed: Of the draws.
    """
    rng = np.random.default_rng([seed, 3])
    best_ND = _best(surrogate)[:CENTERS]
    problem = Problem(surrogate.regressor, surrogate.objective, allowed, natural_D, best_ND)
    found = search(problem, "auto", samples=SAMPLES, average=AVERAGE, seed=seed)
    uniform_D = np.full_like(natural_D, 1.0 / len(natural_D))
    drawn_KD = np.vstack(
        [
            found.weights_D,
            allowed.from_cube(rng.random((SPREAD, allowed.dimensions))),
            _around([natural_D, uniform_D], WIDE, rng),
            _around([found.weights_D, *best_ND], NARROW, rng),
        ]
    )
    inside_KD = _cleaned(drawn_KD, allowed, minimum)
    for _ in range(GENERATIONS):
        parents_PD = inside_KD[_most_promising(surrogate, inside_KD)]
        children_KD = _cleaned(_moved(parents_PD, rng), allowed, minimum)
        inside_KD = _distinct(np.vstack([inside_KD, children_KD]))
    return inside_KD


def _chosen(
    surrogate: Surrogate,
    belief: Belief,
    open_K: BoolArray,
    trained_K: BoolArray,
    count: int,
    acquisition: Acquisition,
    proposal: int,
    seed: int,
) -> tuple[list[int], float]:
    """Return the positions of a batch, and what it is expected to gain."""
    if acquisition == "knowledge_gradient":
        return choose_by_knowledge(belief, surrogate.noise, open_K, count, seed)
    draws_SK = belief.draws(seed)
    if acquisition == "variance":
        chosen = choose_by_variance(belief, open_K, count)
    else:
        chosen = choose_by_improvement(draws_SK, trained_K, open_K, count)
    return chosen, expected_gain(draws_SK, proposal, chosen)


def _best(surrogate: Surrogate) -> Array:
    """Return the trained mixtures that are predicted best, best first."""
    distinct_ND = np.unique(surrogate.weights_ND, axis=0)
    order = np.argsort(surrogate.values(distinct_ND), kind="stable")[:KNOWN]
    best_ND: Array = distinct_ND[order]
    return best_ND


def _fresh(candidates_KD: Array, taken_ND: Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Say which candidates are none of the taken mixtures, shape (K,)."""
    away_KN = np.abs(candidates_KD[:, None] - taken_ND[None]).sum(axis=2)
    return np.asarray((away_KN > SAME_MIXTURE).all(axis=1))


def _around(
    centers: list[Array], concentrations: tuple[float, ...], rng: np.random.Generator
) -> Array:
    """Return Dirichlet draws around each centre, shape (K, D)."""
    pairs = [(center_D, c) for c in concentrations for center_D in centers]
    drawn = [rng.dirichlet(np.maximum(c * center_D, 1e-3), EACH) for center_D, c in pairs]
    return np.concatenate(drawn)


def _most_promising(surrogate: Surrogate, weights_KD: Array) -> IntArray:
    """Return the rows predicted best, and those with the largest expected improvement."""
    means_K, stds_K = surrogate.moments(weights_KD)
    gains_K = improvement(surrogate.values(surrogate.weights_ND).min() - means_K, stds_K)
    half = PARENTS // 2
    return np.concatenate([np.argsort(-gains_K)[:half], np.argsort(means_K)[:half]])


def _moved(parents_PD: Array, rng: np.random.Generator) -> Array:
    """Return mixtures near some: a share given to one domain, or all of one domain's given up."""
    rows = np.repeat(np.arange(len(parents_PD)), CHILDREN)
    moved_KD, places = parents_PD[rows], rng.integers(parents_PD.shape[1], size=len(rows))
    given_K = np.exp(rng.uniform(np.log(0.003), np.log(0.3), len(rows)))
    at = np.arange(len(rows))
    up_KD = moved_KD * (1.0 - given_K[:, None])
    up_KD[at, places] += given_K
    down_KD = moved_KD.copy()
    down_KD[at, places] *= rng.random(len(rows))
    down_KD += 1e-12
    children_KD = np.where((rng.random(len(rows)) < 0.5)[:, None], up_KD, down_KD)
    scaled: Array = children_KD / children_KD.sum(axis=1, keepdims=True)
    return scaled


def _cleaned(weights_KD: Array, allowed: Allowed, minimum: float) -> Array:
    return _distinct(_without_crumbs(allowed.project(weights_KD), allowed, minimum))


def _distinct(weights_KD: Array) -> Array:
    """Drop rows that were there before, to nine decimals; the others keep their order."""
    _, first = np.unique(np.round(weights_KD, 9), axis=0, return_index=True)
    kept: Array = weights_KD[np.sort(first)]
    return kept


def _without_crumbs(weights_KD: Array, allowed: Allowed, minimum: float) -> Array:
    """Set weights below the minimum to 0 where the rest, scaled up, stays within the limits."""
    kept_KD = np.where(weights_KD < minimum, 0.0, weights_KD)
    kept_KD = kept_KD / np.maximum(kept_KD.sum(axis=1, keepdims=True), 1e-12)
    cleaned: Array = np.where(allowed.contains(kept_KD)[:, None], kept_KD, weights_KD)
    return cleaned
