"""Choose the mixtures of the next round: candidates within the limits, and the best batch of them.

Candidates are spread over all allowed mixtures, drawn widely around the natural and the uniform
mixture, and narrowly around the predicted optimum and the best trials. Those that promise most are
changed in one domain, and the best of these again: with many domains random draws alone miss
what is worth a trial. A mixture that is trained already, or nearly, is none.

Shapes: N trained mixtures, D domains, K candidates (and trained mixtures), P parents, B mixtures
of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixopt.constraints import Allowed
from mixopt.designs.acquisition import (
    Belief,
    choose_by_improvement,
    choose_by_variance,
    expected_gain,
    improvement,
)
from mixopt.designs.dirichlet import SAME
from mixopt.designs.knowledge_gradient import choose_by_knowledge
from mixopt.designs.surrogate import Surrogate
from mixopt.errors import DesignError
from mixopt.proposals import Problem, search
from mixopt.system import Array, BoolArray, IntArray

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
    return np.asarray((away_KN > SAME).all(axis=1))


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
