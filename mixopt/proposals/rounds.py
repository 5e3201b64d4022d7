"""Choose the mixtures of the next round: posterior from the trials so far, candidates, batch.

The posterior covariance is the regressor's own (`covariance`). If a regressor has only standard
deviations, errors are correlated by a Matern kernel on the square roots of the weights. If it has
none, or constant ones, it is refitted on resampled trials, and the disagreement of the refits gives
the covariance. Standard deviations are those of a new trial, so its noise is subtracted: the spread
of replicates, at most the smallest deviation at a trained mixture.

Candidates are spread over all allowed mixtures, drawn widely around natural and uniform, and
narrowly around the predicted optimum and the best trials. The most promising ones are varied in one
domain, twice: with many domains random draws alone miss good candidates.

The batch is chosen by its knowledge gradient. A trial at mixture x changes the predicted values of
all mixtures by z cov(., x) / sqrt(cov(x, x) + noise^2) with a standard normal z. The proposal has
the lowest predicted value, so the value of a batch is the expected decrease of that minimum. Unlike
expected improvement, this rewards a poor trial that tells much about others. The batch is filled
greedily. The expectation is a mean over scrambled Sobol draws common to all candidates; the
covariance is updated exactly after each choice.

Shapes: N trials, D domains, M measured losses, K mixtures, A potential proposals, C
candidates of a chunk, S draws, P parents, B refits or chosen mixtures.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from mixopt.constraints import FeasibleSet
from mixopt.errors import DesignError
from mixopt.fitting import (
    Abilities,
    Fit,
    Predictor,
    predict_losses,
    predict_with_std,
    roots_alike,
    select_targets,
    supports,
)
from mixopt.objective import Objective
from mixopt.proposals.search import Problem, search
from mixopt.system import Array, BoolArray, IntArray
from mixopt.trials import SAME_MIXTURE, mixtures_and_sizes, pooled_std

REFITS = 20  # of a regressor without standard deviations
FLAT = 1e-6  # relative range below which deviations count as constant

# The choice of a batch.
DRAWS = 128  # a power of 2, for Sobol points
PROPOSED = 256  # maximum number of potential proposals
OPEN = 384  # candidates that remain after the first choice, by their own value
DEVIATIONS = 2.0  # lower confidence bound that ranks potential proposals
TINY = 1e-300  # avoids division by 0 for a trial without uncertainty
CHUNK = 2**20  # numbers at once, to fit into the cache

# Candidates.
SAMPLES = 4_000  # draws for the predicted optimum
AVERAGE = 32  # averaged draws for the predicted optimum
CENTERS = 4  # best trials as centres of candidates
MAX_PROJECTED = 64  # maximum number of domains for exact projection
MAX_TRAINED = 128  # maximum number of trained mixtures, the best by prediction
SPREAD = 128  # candidates spread over all allowed mixtures
WIDE = (1.0, 4.0, 16.0, 64.0)  # concentrations of draws around natural and uniform
NARROW = (16.0, 64.0, 256.0, 1024.0)  # the same around optimum and best trials
MIN_CONCENTRATION = 1e-3  # of one domain
EACH = 16  # draws around each centre with each concentration
GENERATIONS = 4  # rounds of variations
PARENTS = 24  # candidates that are varied in each
CHILDREN = 6  # variations of each parent
MIN_SHARE = 0.003  # smallest share that a variation gives a domain
MAX_SHARE = 0.3  # largest such share


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A fit of the trials so far, and its regressor for the measured losses alone."""

    fit: Fit
    regressor: Predictor

    @classmethod
    def of(cls, fit: Fit) -> Self:
        """Reduce the regressor of a fit to the losses that its objective measures."""
        return cls(fit, select_targets(fit.regressor, fit.objective.columns))

    @cached_property
    def objective(self) -> Objective:
        """The objective of the fit, over the measured losses."""
        return self.fit.objective.over(self.fit.objective.measured)

    @property
    def weights_ND(self) -> Array:
        """The mixtures of the trials."""
        return self.fit.data.weights_ND

    @cached_property
    def best_ND(self) -> Array:
        """The trained mixtures with the best predictions, best first."""
        distinct_ND = np.unique(self.weights_ND, axis=0)
        order = np.argsort(self.values(distinct_ND), kind="stable")[:MAX_TRAINED]
        return np.asarray(distinct_ND[order])

    def values(self, weights_KD: Array) -> Array:
        """Return the predicted objective, shape (K,)."""
        return self.objective.value(predict_losses(self.regressor, weights_KD))

    def moments(self, weights_KD: Array) -> tuple[Array, Array]:
        """Return means and standard deviations of the objective without noise, shape (K,) each."""
        if self._refits:
            deviations_BK = self._disagreement(weights_KD)
            return self.values(weights_KD), np.sqrt((deviations_BK**2).sum(axis=0))
        means_K, stds_K = self._claimed(weights_KD)
        min_std = float(self._stds_N.min())
        noise = min_std if self._replicates is None else min(self._replicates, min_std)
        return means_K, np.sqrt(np.maximum(stds_K**2 - noise**2, 0.0))

    def believe(self, weights_KD: Array) -> tuple[Array, Array]:
        """Return the posterior means of the objective at mixtures, (K,), and covariance, (K, K)."""
        if supports(self.regressor, "covariance"):
            return self.values(weights_KD), self._covariance(self.regressor, weights_KD)
        if self._refits:
            deviations_BK = self._disagreement(weights_KD)
            return self.values(weights_KD), deviations_BK.T @ deviations_BK
        means_K, stds_K = self.moments(weights_KD)
        return means_K, roots_alike(weights_KD) * np.outer(stds_K, stds_K)

    @cached_property
    def noise(self) -> float:
        """Noise of a trial's objective, from replicates or the regressor's standard deviations."""
        if self._replicates is not None:
            return self._replicates
        min_std_M = predict_with_std(self.regressor, self.weights_ND)[1].min(axis=0)
        # Errors of targets are independent, as in the covariance.
        return float(np.sqrt(((self.objective.pieces() * min_std_M) ** 2).sum(axis=1)).max())

    @cached_property
    def _replicates(self) -> float | None:
        """Standard deviation of the objective within mixtures; None without replicates."""
        return pooled_std(mixtures_and_sizes(self.fit.trials), self.fit.data.observed_N)

    def _covariance(self, regressor: Abilities, weights_KD: Array) -> Array:
        """Return the covariance of the objective, shape (K, K)."""
        pieces_PM = self.objective.pieces()
        active_K = self.objective.sums(predict_losses(regressor, weights_KD)).argmax(axis=1)
        total_KK = np.zeros((len(weights_KD), len(weights_KD)))
        for piece in np.unique(active_K):
            rows = np.flatnonzero(active_K == piece)
            total_KK[np.ix_(rows, rows)] = regressor.covariance(weights_KD[rows], pieces_PM[piece])
        return total_KK

    def _claimed(self, weights_KD: Array) -> tuple[Array, Array]:
        """Return the predicted objective of new trials, and the regressor's standard deviation."""
        means_KM, stds_KM = predict_with_std(self.regressor, weights_KD)
        return self.objective.value(means_KM), self.objective.spread(stds_KM)

    @cached_property
    def _stds_N(self) -> Array:
        """The regressor's standard deviations at the trials, shape (N,)."""
        return self._claimed(self.weights_ND)[1]

    @cached_property
    def _refits(self) -> tuple[Predictor, ...]:
        """Refits on resampled mixtures; none if the regressor has standard deviations."""
        if np.ptp(self._stds_N) > FLAT * self._stds_N.max():
            return ()
        rng = np.random.default_rng([self.fit.data.seed, 2])
        return self.fit.resampled(self.fit.objective.columns, count=REFITS, rng=rng)

    def _disagreement(self, weights_KD: Array) -> Array:
        """Return how refits differ from their mean, in directions of unit variance, (B, K)."""
        losses = [predict_losses(refit, weights_KD) for refit in self._refits]
        values_BK = np.stack([self.objective.value(losses_KM) for losses_KM in losses])
        return np.asarray((values_BK - values_BK.mean(axis=0)) / np.sqrt(len(values_BK) - 1))


def expected_improvement(below_K: Array, stds_K: Array) -> Array:
    """Return the expected improvement over a known value, shape (K,)."""
    from scipy.special import ndtr

    safe_K = np.maximum(stds_K, TINY)
    ratio_K = np.clip(below_K / safe_K, -40.0, 40.0)
    density_K = np.exp(-0.5 * ratio_K**2) / np.sqrt(2.0 * np.pi)
    gain: Array = below_K * ndtr(ratio_K) + stds_K * density_K
    return np.maximum(gain, 0.0)


def choose_by_knowledge(
    means_K: Array, covariance_KK: Array, noise: float, open_K: BoolArray, count: int, seed: int
) -> tuple[list[int], float]:
    """Choose mixtures greedily by their knowledge gradient."""
    draws_SB = _normal_draws(count, seed)
    proposed_A = _may_be_proposed(means_K, covariance_KK)
    means_SA = np.tile(means_K[proposed_A] - float(means_K.min()), (DRAWS, 1))
    rows = np.flatnonzero(open_K)
    chosen: list[int] = []
    value = 0.0
    for place in range(count):
        scale_K = 1.0 / np.sqrt(np.maximum(np.diag(covariance_KK), 0.0) + noise**2 + TINY)
        effects_CA = covariance_KK[np.ix_(rows, proposed_A)] * scale_K[rows, None]
        values_C = _expected_least(means_SA, effects_CA, draws_SB[:, place])
        best = int(np.argmin(values_C))
        row = int(rows[best])
        value = float(values_C[best])
        chosen.append(row)
        means_SA = means_SA + draws_SB[:, place, None] * effects_CA[best]
        effect_K = covariance_KK[row] * scale_K[row]
        covariance_KK = covariance_KK - np.outer(effect_K, effect_K)
        remaining = np.delete(np.arange(len(rows)), best)
        if place == 0:
            by_value = np.argsort(values_C[remaining], kind="stable")
            remaining = np.sort(remaining[by_value[: max(OPEN, count)]])
        rows = rows[remaining]
    return chosen, max(-value, 0.0)


def _expected_least(means_SA: Array, effects_CA: Array, draws_S: Array) -> Array:
    """Return the expected minimum after one more trial, shape (C,)."""
    draws, proposed = means_SA.shape
    size = max(CHUNK // (draws * proposed), 1)
    means = means_SA.astype(np.float32)
    effects = effects_CA.astype(np.float32)
    factors_S1 = draws_S.astype(np.float32)[:, None]
    expected: list[np.ndarray[Any, Any]] = []
    for at in range(0, len(effects), size):
        changed_CSA = means + factors_S1 * effects[at : at + size, None]
        expected.append(changed_CSA.min(axis=2).mean(axis=1))
    return np.concatenate(expected).astype(float)


def _may_be_proposed(means_K: Array, covariance_KK: Array) -> IntArray:
    """Return the mixtures that are, or may become, the proposal."""
    # Variances made negative by rounding count as 0.
    optimistic_K = means_K - DEVIATIONS * np.sqrt(np.maximum(np.diag(covariance_KK), 0.0))
    half = PROPOSED // 2
    best = np.argsort(means_K, kind="stable")[:half]
    hopeful = np.argsort(optimistic_K, kind="stable")[:half]
    return np.union1d(best, hopeful)


def _normal_draws(count: int, seed: int) -> Array:
    """Return quasi-random standard normal draws, shape (S, B)."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    rng: Any = np.random.default_rng([seed, 4])
    points_SB = qmc.Sobol(count, scramble=True, rng=rng).random(DRAWS)
    return np.asarray(ndtri(np.clip(points_SB, 1e-9, 1.0 - 1e-9)))


@dataclass(frozen=True, eq=False)
class Batch:
    """The mixtures of a round and their expected gain.

    Attributes:
        weights_BD: The mixtures, shape (B, D).
        gain: Expected decrease of the proposal's objective by the round, >= 0.
        regressor: Name of the regressor behind the choice.
    """

    weights_BD: Array
    gain: float
    regressor: str


def choose_batch(
    surrogate: Surrogate,
    candidates_KD: Array,
    count: int,
    *,
    taken_ND: Array | None = None,
    seed: int = 0,
) -> Batch:
    """Choose the mixtures of a round among candidates."""
    used_ND = surrogate.weights_ND if taken_ND is None else taken_ND
    distance_KN = np.abs(candidates_KD[:, None] - used_ND).sum(axis=2)
    fresh_K = (distance_KN > SAME_MIXTURE).all(axis=1)
    if fresh_K.sum() < count:
        raise DesignError(
            f"design.rounds: {count} further mixtures requested, but only {int(fresh_K.sum())} "
            "untried ones are left within the limits; lower the last of design.rounds, or widen "
            "the limits"
        )
    belief = surrogate.believe(np.vstack([candidates_KD, surrogate.best_ND]))
    open_K = np.pad(fresh_K, (0, len(surrogate.best_ND)))
    chosen, gain = choose_by_knowledge(*belief, surrogate.noise, open_K, count, seed)
    return Batch(candidates_KD[chosen], gain, surrogate.fit.name)


def draw_candidates(
    surrogate: Surrogate,
    allowed: FeasibleSet,
    natural_D: Array,
    *,
    minimum: float = 0.0,
    seed: int = 0,
) -> Array:
    """Draw distinct allowed candidates."""
    rng = np.random.default_rng([seed, 3])
    best_D = best_candidate(surrogate, allowed, natural_D, seed=seed)
    uniform_D = np.full_like(natural_D, 1.0 / len(natural_D))
    drawn_KD = np.vstack(
        [
            best_D,
            allowed.from_cube(rng.random((SPREAD, allowed.dimensions))),
            _around([natural_D, uniform_D], WIDE, rng),
            _around([best_D, *surrogate.best_ND[:CENTERS]], NARROW, rng),
        ]
    )
    inside_KD = _cleaned(drawn_KD, allowed, minimum)
    for _ in range(GENERATIONS):
        parents_PD = inside_KD[_most_promising(surrogate, inside_KD)]
        children_KD = _cleaned(_moved(parents_PD, rng), allowed, minimum)
        inside_KD = _distinct(np.vstack([inside_KD, children_KD]))
    return inside_KD


def best_candidate(
    surrogate: Surrogate, allowed: FeasibleSet, natural_D: Array, *, seed: int = 0
) -> Array:
    """Return the mixture with the best prediction, shape (D,)."""
    problem = Problem(
        surrogate.regressor,
        surrogate.objective,
        allowed,
        natural_D,
        surrogate.best_ND[:CENTERS],
        samples=SAMPLES,
        average=AVERAGE,
        seed=seed,
    )
    return search(problem).weights_D


def _around(
    centers: list[Array], concentrations: tuple[float, ...], rng: np.random.Generator
) -> Array:
    """Return Dirichlet draws around each centre, shape (K, D)."""
    drawn: list[Array] = []
    for concentration in concentrations:
        for center_D in centers:
            alpha_D = np.maximum(concentration * center_D, MIN_CONCENTRATION)
            drawn.append(rng.dirichlet(alpha_D, EACH))
    return np.concatenate(drawn)


def _most_promising(surrogate: Surrogate, weights_KD: Array) -> IntArray:
    """Return the rows with the best predictions or the largest expected improvement."""
    means_K, stds_K = surrogate.moments(weights_KD)
    gains_K = expected_improvement(surrogate.values(surrogate.weights_ND).min() - means_K, stds_K)
    half = PARENTS // 2
    return np.concatenate([np.argsort(-gains_K)[:half], np.argsort(means_K)[:half]])


def _moved(parents_PD: Array, rng: np.random.Generator) -> Array:
    """Return variations of mixtures: a domain gets a share, or gives up all of its share."""
    rows = np.repeat(np.arange(len(parents_PD)), CHILDREN)
    moved_KD = parents_PD[rows]
    places = rng.integers(parents_PD.shape[1], size=len(rows))
    share_K = np.exp(rng.uniform(np.log(MIN_SHARE), np.log(MAX_SHARE), len(rows)))
    at = np.arange(len(rows))
    up_KD = moved_KD * (1.0 - share_K[:, None])
    up_KD[at, places] += share_K
    down_KD = moved_KD.copy()
    down_KD[at, places] *= rng.random(len(rows))
    down_KD += 1e-12
    children_KD = np.where((rng.random(len(rows)) < 0.5)[:, None], up_KD, down_KD)
    scaled: Array = children_KD / children_KD.sum(axis=1, keepdims=True)
    return scaled


def _cleaned(weights_KD: Array, allowed: FeasibleSet, minimum: float) -> Array:
    if len(allowed.lower_D) > MAX_PROJECTED and not allowed.has_only_bounds:
        near_KD = allowed.inside(weights_KD)
    else:
        near_KD = allowed.project(weights_KD)
    return _distinct(_without_crumbs(near_KD, allowed, minimum))


def _distinct(weights_KD: Array) -> Array:
    """Drop repeated rows, to nine decimals, and keep the order."""
    _, first = np.unique(np.round(weights_KD, 9), axis=0, return_index=True)
    return weights_KD[np.sort(first)]


def _without_crumbs(weights_KD: Array, allowed: FeasibleSet, minimum: float) -> Array:
    """Set weights below the minimum to 0 if the rescaled mixture stays within the limits."""
    cleaned_KD = np.where(weights_KD < minimum, 0.0, weights_KD)
    cleaned_KD = cleaned_KD / np.maximum(cleaned_KD.sum(axis=1, keepdims=True), 1e-12)
    return np.where(allowed.contains(cleaned_KD)[:, None], cleaned_KD, weights_KD)
