"""What rounds are tried on: mixtures whose true objective is known.

Shapes: N mixtures, D domains, M losses, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from known_worlds import KnownWorld, known_world
from published_data import NATURAL, UNIT, objective_of, regmix

from mixopt.config import DesignConfig, FitConfig
from mixopt.constraints import Allowed
from mixopt.designs import (
    Surrogate,
    design_constraints,
    draw_candidates,
    fit_surrogate,
    make_design,
)
from mixopt.fitting import Repetition, make_regressor
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Problem, search
from mixopt.system import Array
from mixopt.trials import Losses, Trial, TrialResult, Trials

LAW, TARGET = "skills", "pile_cc"
MOST = 512  # trials of one oracle
REPLICATES = 8  # of which each trial of the law is the mean
SAMPLES, AVERAGE = 20_000, 64  # of the search for the proposal
First = Literal["dirichlet", "axial"]
ORACLES = {
    "interaction": "known worlds of 10 domains that help or hurt in pairs",
    "repetition": "known worlds of 8 domains that are repeated",
    "forty": "known worlds of 40 domains",
    "law": f"{TARGET}, {LAW} fitted to the 768 published runs, noise of {REPLICATES} replicates",
}


class Oracle(Protocol):
    """What a mixture would give, and which mixtures can be tried."""

    objective: Objective

    @property
    def best(self) -> float:
        """The least objective of all mixtures that are allowed."""

    def first(self, method: First, count: int, seed: int) -> Array:
        """Return the mixtures of a first round."""

    def train(self, weights_ND: Array, seed: int) -> Trials:
        """Return the trials of these mixtures."""

    def truth(self, weights_ND: Array) -> Array:
        """Return the objective, as well as it is known."""

    def candidates(self, surrogate: Surrogate, seed: int) -> Array:
        """Return mixtures that may be tried next."""

    def fit(self, trials: Trials, regressor: str, seed: int) -> Surrogate:
        """Fit the trials."""

    def propose(self, surrogate: Surrogate, seed: int) -> Array:
        """Return the mixture that would be proposed."""


def oracle_of(folder: Path, name: str, seed: int) -> Oracle:
    """Return the oracle of a name in `ORACLES`; a known world is another for each seed."""
    if name == "law":
        pool = published(folder)
        return Law.of(pool, objective_of(TARGET, pool.targets))
    kind: Any = name
    return World(known_world(kind, seed))


def published(folder: Path) -> Trials:
    """Return train_1m and test_1m as one table."""
    parts = [regmix(folder, name) for name in ("train_1m", "test_1m")]
    tables = [part.table.with_columns(pl.col("trial") + f"-{n}") for n, part in enumerate(parts)]
    return Trials(pl.concat(tables), parts[0].domains, parts[0].targets)


def _searched(surrogate: Surrogate, allowed: Allowed, natural_D: Array, seed: int) -> Array:
    """Return what the product's own search proposes."""
    problem = Problem(
        surrogate.regressor, surrogate.objective, allowed, natural_D, surrogate.weights_ND
    )
    return search(problem, "auto", samples=SAMPLES, average=AVERAGE, seed=seed).weights_D


def _config(method: First, count: int) -> DesignConfig:
    return DesignConfig(method=method, rounds=[count], anchors=[], replicates=0)


@dataclass(frozen=True, eq=False)
class World:
    """A known world; the first round is drawn as a run draws it."""

    world: KnownWorld

    @property
    def objective(self) -> Objective:
        """The world's."""
        return self.world.objective

    @property
    def best(self) -> float:
        """The least objective of all mixtures that are allowed."""
        return self.world.best

    def first(self, method: First, count: int, seed: int) -> Array:
        """Return the mixtures of a design."""
        world = self.world
        trials = make_design(_config(method, count), world.natural, world.constraints, seed)
        return np.array([trial.mixture.array for trial in trials])

    def train(self, weights_ND: Array, seed: int) -> Trials:
        """Return trials with noise, the same for the same place in the table and seed."""
        return self.world.train(weights_ND, seed)

    def truth(self, weights_ND: Array) -> Array:
        """Return the objective without noise."""
        return self.world.values(weights_ND)

    def candidates(self, surrogate: Surrogate, seed: int) -> Array:
        """Draw candidates as a round does."""
        return draw_candidates(
            surrogate, self._allowed, self.world.natural.array, minimum=2e-4, seed=seed
        )

    def fit(self, trials: Trials, regressor: str, seed: int) -> Surrogate:
        """Fit the trials, with what is known of repetition."""
        world, repetition = self.world, None
        if world.inventory is not None and world.tokens is not None:
            sizes = tuple(float(world.inventory[name]) for name in world.domains)
            repetition = Repetition(sizes, float(world.tokens))
        return fit_surrogate(
            trials,
            world.objective,
            FitConfig(),
            regressor=regressor,
            seed=seed,
            repetition=repetition,
        )

    def propose(self, surrogate: Surrogate, seed: int) -> Array:
        """Return what the product's own search proposes."""
        return _searched(surrogate, self._allowed, self.world.natural.array, seed)

    @property
    def _allowed(self) -> Allowed:
        return self.world.constraints.simplex


@dataclass(frozen=True, eq=False)
class Law:
    """A regressor fitted to all published runs, and the noise of a trial around it."""

    domains: tuple[str, ...]
    regressor: Any
    objective: Objective
    noise_M: Array

    @classmethod
    def of(cls, pool: Trials, objective: Objective) -> Law:
        """Fit the law; the noise is what it leaves of the runs that it was fitted to."""
        weights_ND, losses_NM = pool.weights(), pool.losses(UNIT)[:, objective.columns]
        regressor = make_regressor(LAW, 0).fit(weights_ND, losses_NM)
        left_NM = losses_NM - regressor.predict(weights_ND)
        noise_M = left_NM.std(axis=0) / np.sqrt(REPLICATES)
        return cls(pool.domains, regressor, objective.only_measured(), noise_M)

    @cached_property
    def best(self) -> float:
        """The least objective within the caps: the law is convex, so that descent finds it."""
        known_ND = self.first("dirichlet", MOST, 1_000)
        problem = Problem(self.regressor, self.objective, self._allowed, self._natural_D, known_ND)
        return search(problem, "gradient", samples=2_000, average=64, seed=0).value

    def first(self, method: First, count: int, seed: int) -> Array:
        """Return the mixtures of a design."""
        natural = NATURAL.over(self.domains)
        trials = make_design(_config(method, count), natural, None, seed)
        return np.array([trial.mixture.array for trial in trials])

    def train(self, weights_ND: Array, seed: int) -> Trials:
        """Return trials with noise, the same for the same place in the table and seed."""
        noise_NM = np.random.default_rng(seed).standard_normal((MOST, len(self.noise_M)))
        losses_NM = self.regressor.predict(weights_ND) + self.noise_M * noise_NM[: len(weights_ND)]
        trials, results = [], []
        for n, (weights_D, losses_M) in enumerate(zip(weights_ND, losses_NM, strict=True)):
            trials.append(Trial(f"t{n}", Mixture.from_array(self.domains, weights_D), n))
            names = self.objective.evaluation
            losses = Losses(0, dict(zip(names, losses_M.tolist(), strict=True)), {})
            results.append(TrialResult(f"t{n}", "finished", 0, 0, 0.0, losses))
        return Trials.from_results(trials, results, proxy="law")

    def truth(self, weights_ND: Array) -> Array:
        """Return the objective without noise."""
        return self.objective.value(self.regressor.predict(weights_ND))

    def candidates(self, surrogate: Surrogate, seed: int) -> Array:
        """Draw candidates as a round does."""
        return draw_candidates(surrogate, self._allowed, self._natural_D, minimum=2e-4, seed=seed)

    def fit(self, trials: Trials, regressor: str, seed: int) -> Surrogate:
        """Fit the trials."""
        return fit_surrogate(trials, self.objective, FitConfig(), regressor=regressor, seed=seed)

    def propose(self, surrogate: Surrogate, seed: int) -> Array:
        """Return what the product's own search proposes."""
        return _searched(surrogate, self._allowed, self._natural_D, seed)

    @property
    def _natural_D(self) -> Array:
        return NATURAL.over(self.domains).array

    @cached_property
    def _allowed(self) -> Allowed:
        return design_constraints(DesignConfig(), NATURAL.over(self.domains)).simplex
