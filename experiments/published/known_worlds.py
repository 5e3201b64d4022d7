"""Worlds in which the true loss of every mixture is known, to judge what is proposed.

    world = known_world("interaction", seed=3)
    trials = world.train(world.random(64, seed=0), seed=0)
    world.regret(weights_D)

The loss of evaluation domain m is

    L_m(w) = floor_m + height_m (rest_m + useful_m(w))^(-decay_m) + harm_m(w)
    useful_m(w) = sum_j worth_mj v_j^bend + sum_p together_mp (harmonic mean of the pair's v)^bend
    harm_m(w) = sum_q against_mq 4 w_i w_j + sum_j tired_m x_j^2 / (x_j^2 + 64),

where v_j is what domain j's share is worth. `KINDS` says which terms a world has. With an
inventory, v_j is the domain's size over the run's tokens times e for e <= 1 epochs and
1 + r (1 - exp(-(e - 1) / r)) for more, after Muennighoff et al., "Scaling Data-Constrained
Language Models", and x_j is the epochs beyond 4, over 4. Otherwise v_j = w_j, and nothing tires.

With bend below 1 a share counts by its power before shares are added, which no law in
mixopt_regressors does: the truth is in the family of none of them.

A world is drawn by its seed, and everything that it returns is a function of the arguments. The
noise of a loss is `noise` times the standard deviation of that loss over 2,000 random mixtures.

Shapes: N mixtures, D domains, M losses, P pairs that help only together, Q pairs that hurt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from published_data import observed
from scipy.optimize import minimize

from mixopt.config import ConstraintsConfig, ObjectiveConfig
from mixopt.constraints import Constraints
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials

Kind = Literal["plain", "interaction", "repetition", "forty"]
KINDS: dict[Kind, str] = {
    "plain": "8 domains; each loss falls with its own and related domains' shares",
    "interaction": "10 domains; pairs that help only together, and pairs that hurt each other",
    "repetition": "8 domains; what is useful is scarce, and pays by its epochs",
    "forty": "40 domains; each loss falls with 3 of them, and most sizes are small",
}
DOMAINS: dict[Kind, int] = {"plain": 8, "interaction": 10, "repetition": 8, "forty": 40}
LOSSES: dict[Kind, int] = {"plain": 8, "interaction": 10, "repetition": 8, "forty": 16}
NOISE = 0.05  # of a loss's standard deviation over random mixtures
RANDOM = 2_000  # mixtures that this is taken over
TOKENS = 100_000_000_000  # of the full run, where domains are repeated
PLENTY = 3.0  # distinct tokens of all domains over the run's
MOST_EPOCHS = 16.0
KEPT, TIRES, TIRED = 5.0, 4.0, 64.0  # r, epochs without harm, and where harm is half of its most
TEMPERATURE, STRENGTHS = 0.5, (0.1, 5.0)  # of random mixtures: RegMix's
RESTARTS = 48


@dataclass(frozen=True, eq=False)
class KnownWorld:
    """Losses as a known function of the mixture, and trials that observe them with noise.

    Attributes:
        kind: One of `KINDS`.
        seed: What it was drawn by.
        domains: Names of the domains.
        natural: Each domain's share of the tokens that there are.
        objective: What is minimised: the mean of half of the losses, in nats per token.
        constraints: What is allowed; epochs in `repetition`, nothing else anywhere.
        noise: Standard deviation of a trial's loss, over that of the loss in random mixtures.
        inventory: Distinct tokens of each domain; None where no domain is repeated.
        tokens: Of the full run, and of each trial, which repeats as often; None likewise.
    """

    kind: Kind
    seed: int
    domains: tuple[str, ...]
    natural: Mixture
    objective: Objective
    constraints: Constraints
    noise: float
    inventory: Mapping[str, int] | None
    tokens: int | None
    terms: _Terms = field(repr=False)

    def truth(self, weights_ND: Array) -> Array:
        """Return the losses without noise, shape (N, M)."""
        return self.terms.losses(np.asarray(weights_ND, dtype=np.float64), self._rates_D)

    def values(self, weights_ND: Array) -> Array:
        """Return the objective without noise, shape (N,)."""
        return self.objective.value(self.truth(weights_ND))

    def regret(self, weights_D: Array) -> float:
        """Return the excess of a mixture's objective over the optimum's, without noise."""
        return float(self.values(np.asarray(weights_D)[None])[0]) - self.best

    def random(self, count: int, seed: int) -> Array:
        """Return allowed random mixtures, shape (N, D): RegMix's Dirichlet draws.

        The first are the same for any count.
        """
        rng = np.random.default_rng([seed, 7])
        prior_D = self.natural.array**TEMPERATURE
        least, most = np.log10(STRENGTHS)
        draws = [
            rng.dirichlet(
                np.maximum(10 ** rng.uniform(least, most) * prior_D / prior_D.sum(), 1e-3)
            )
            for _ in range(count)
        ]
        return self.constraints.simplex.inside(np.array(draws))

    def train(self, weights_ND: Array, seed: int, *, first: int = 0) -> Trials:
        """Return trials of these mixtures, their losses with noise.

        Args:
            weights_ND: The mixtures.
            seed: Of the noise.
            first: How many trials came before in this seed. Trials are named t0, t1, ... from
                here, and the noise of a trial depends on its name and the seed alone.
        """
        count = len(weights_ND)
        noise_NM = np.random.default_rng([seed, 11]).standard_normal(
            (first + count, len(self.deviations_M))
        )
        losses_NM = self.truth(weights_ND) + self.deviations_M * noise_NM[first:]
        targets, tokens = self.objective.evaluation, self.tokens or 0
        return observed(self.domains, weights_ND, targets, losses_NM, tokens=tokens, first=first)

    @cached_property
    def spreads_M(self) -> Array:
        """Standard deviation of each loss over random mixtures, shape (M,)."""
        spreads_M: Array = self.truth(self.random(RANDOM, self.seed + 1_000_003)).std(axis=0)
        return spreads_M

    @property
    def deviations_M(self) -> Array:
        """Standard deviation of the noise of each loss, shape (M,)."""
        return self.noise * self.spreads_M

    @cached_property
    def optimum(self) -> Array:
        """The allowed mixture with the least objective, found from many starts, shape (D,)."""
        starts_ND = np.vstack([self._starts(), self.natural.array[None]])
        found_KD = np.array([self._descent(start_D) for start_D in starts_ND])
        best_D: Array = found_KD[int(np.argmin(self.values(found_KD)))]
        return best_D

    @cached_property
    def best(self) -> float:
        """The objective of the optimum."""
        return float(self.values(self.optimum[None])[0])

    def _starts(self) -> Array:
        rng = np.random.default_rng([self.seed, 13])
        count = len(self.domains)
        wide_ND = rng.dirichlet(np.full(count, 0.5), 20_000)
        draws_ND = np.vstack([wide_ND, self.random(RANDOM, self.seed), np.full(count, 1 / count)])
        draws_ND = self.constraints.simplex.inside(draws_ND)
        order = np.argsort(self.values(draws_ND))
        good, some = order[: RESTARTS // 2], rng.permutation(len(order))[: RESTARTS // 2]
        return np.asarray(draws_ND[np.concatenate([good, some])])

    def _descent(self, start_D: Array) -> Array:
        most_D, least_D = self.constraints.upper_D, self.constraints.lower_D
        solved = minimize(
            lambda w_D: float(self.values(w_D[None])[0]),
            start_D,
            jac=self._slope,
            method="SLSQP",
            bounds=list(zip(least_D, most_D, strict=True)),
            constraints={
                "type": "eq",
                "fun": lambda w_D: w_D.sum() - 1.0,
                "jac": lambda w_D: np.ones(len(w_D)),
            },
            options={"maxiter": 500, "ftol": 1e-12},
        )
        return np.asarray(self.constraints.simplex.project(solved.x), dtype=np.float64)

    def _slope(self, weights_D: Array) -> Array:
        """Return the slope of the objective by each weight, from differences, shape (D,)."""
        step = 1e-7
        moved_DD = weights_D + step * np.eye(len(weights_D))
        values = self.values(np.vstack([weights_D[None], moved_DD]))
        slope_D: Array = (values[1:] - values[0]) / step
        return slope_D

    @property
    def _rates_D(self) -> Array | None:
        if self.inventory is None or self.tokens is None:
            return None
        return self.tokens / np.array([self.inventory[name] for name in self.domains])


@dataclass(frozen=True, eq=False)
class _Terms:
    """The terms of the losses; see the module.

    Attributes:
        pairs_P2: Domains that help only together.
        rivals_Q2: Domains that hurt each other.
    """

    floor_M: Array
    height_M: Array
    rest_M: Array
    decay_M: Array
    bend: float
    worth_MD: Array
    pairs_P2: Array
    together_MP: Array
    rivals_Q2: Array
    against_MQ: Array
    tired_M: Array

    def losses(self, weights_ND: Array, rates_D: Array | None) -> Array:
        """Return the losses, shape (N, M); `rates_D` are the epochs at a weight of 1."""
        weights_ND = np.maximum(weights_ND, 0.0)
        value_ND = weights_ND if rates_D is None else _kept(weights_ND * rates_D) / rates_D
        useful_NM = (value_ND**self.bend) @ self.worth_MD.T
        left_NP, right_NP = (value_ND[:, self.pairs_P2[:, side]] for side in (0, 1))
        joint_NP = 2.0 * left_NP * right_NP / (left_NP + right_NP + 1e-3)
        useful_NM = useful_NM + joint_NP**self.bend @ self.together_MP.T
        losses_NM = self.floor_M + self.height_M * (self.rest_M + useful_NM) ** -self.decay_M
        one_NQ, other_NQ = (weights_ND[:, self.rivals_Q2[:, side]] for side in (0, 1))
        losses_NM = losses_NM + (4.0 * one_NQ * other_NQ) @ self.against_MQ.T
        if rates_D is None:
            return np.asarray(losses_NM)
        over_ND = np.maximum(weights_ND * rates_D / TIRES - 1.0, 0.0)
        worn_N = (over_ND**2 / (over_ND**2 + TIRED)).sum(axis=1)
        return np.asarray(losses_NM + worn_N[:, None] * self.tired_M)


def known_world(kind: Kind, seed: int = 0, *, noise: float = NOISE) -> KnownWorld:
    """Draw a world.

    Args:
        kind: One of `KINDS`.
        seed: Of the draw.
        noise: Standard deviation of a trial's loss, over that of the loss in random mixtures.
    """
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    count, losses = DOMAINS[kind], LOSSES[kind]
    domains = tuple(f"domain_{place:02}" for place in range(count))
    terms = _drawn(kind, count, losses, rng)
    sizes_D = _sizes(kind, terms, rng)
    inventory, tokens, limits = None, None, ConstraintsConfig()
    natural = Mixture.from_array(domains, sizes_D / sizes_D.sum())
    if kind == "repetition":
        distinct_D = PLENTY * TOKENS * natural.array
        inventory = {n: round(size) for n, size in zip(domains, distinct_D.tolist(), strict=True)}
        natural, tokens = Mixture.natural(inventory), TOKENS
        limits = ConstraintsConfig(max_epochs=MOST_EPOCHS)
    constraints = Constraints.from_config(limits, inventory or dict.fromkeys(domains, 1), tokens)
    objective = _objective(losses, rng)
    return KnownWorld(
        kind, seed, domains, natural, objective, constraints, noise, inventory, tokens, terms
    )


def _kept(epochs_ND: Array) -> Array:
    """Return the number of fresh epochs that repeated epochs are worth, shape (N, D)."""
    over_ND = np.maximum(epochs_ND - 1.0, 0.0)
    kept_ND: Array = np.minimum(epochs_ND, 1.0) - KEPT * np.expm1(-over_ND / KEPT)
    return kept_ND


def _drawn(kind: Kind, count: int, losses: int, rng: np.random.Generator) -> _Terms:
    pairs_P2, rivals_Q2 = np.empty((0, 2), int), np.empty((0, 2), int)
    worth_MD = _worth(kind, count, losses, rng)
    if kind == "interaction":
        order = rng.permutation(count)
        pairs_P2, rivals_Q2 = order[: count - 2].reshape(-1, 2), order[1 : count - 1].reshape(-1, 2)
    together_MP = rng.gamma(0.7, 1.2, (losses, len(pairs_P2)))
    against_MQ = rng.gamma(0.7, 0.35, (losses, len(rivals_Q2)))
    return _Terms(
        floor_M=rng.uniform(1.0, 2.0, losses),
        height_M=rng.uniform(0.6, 1.4, losses),
        rest_M=rng.uniform(0.03, 0.1, losses),
        decay_M=rng.uniform(0.25, 0.6, losses),
        bend=float(rng.uniform(0.65, 0.85)),
        worth_MD=worth_MD,
        pairs_P2=pairs_P2,
        together_MP=together_MP,
        rivals_Q2=rivals_Q2,
        against_MQ=against_MQ,
        tired_M=rng.uniform(0.2, 0.6, losses) * (kind == "repetition"),
    )


def _worth(kind: Kind, count: int, losses: int, rng: np.random.Generator) -> Array:
    """Return the worth of each domain for each loss, shape (M, D)."""
    if kind == "forty":
        worth_MD = np.zeros((losses, count))
        for row_D in worth_MD:
            row_D[rng.permutation(count)[:3]] = rng.dirichlet(np.full(3, 2.0))
        return worth_MD
    own_MD = np.eye(losses, count) * rng.uniform(0.4, 1.0, (losses, 1))
    related_MD = rng.gamma(0.4, 0.4, (losses, count)) * (1.0 - np.eye(losses, count))
    alone = 0.5 if kind == "interaction" else 1.0
    return np.asarray(alone * (own_MD + related_MD))


def _sizes(kind: Kind, terms: _Terms, rng: np.random.Generator) -> Array:
    """Return the size of each domain: skewed, and scarce where useful if it is repeated."""
    sizes_D = np.exp(rng.normal(0.0, 1.3, len(terms.worth_MD[0])))
    if kind == "repetition":
        order = np.argsort(terms.worth_MD.sum(axis=0))
        sizes_D = np.sort(sizes_D)[::-1][np.argsort(order)]
    return np.asarray(np.maximum(sizes_D, 0.02 * sizes_D.max()))


def _objective(losses: int, rng: np.random.Generator) -> Objective:
    """Return the mean of half of the losses."""
    names = [f"task_{place:02}" for place in range(losses)]
    chosen = sorted(rng.permutation(losses)[: losses // 2].tolist())
    fields: dict[str, Any] = {"mean": dict.fromkeys((names[c] for c in chosen), 1.0)}
    return Objective.from_config(ObjectiveConfig(**fields, unit="nats_per_token"), names)
