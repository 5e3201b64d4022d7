"""Compare later rounds that a fit chooses with random trials, on RegMix's published runs.

    OMP_NUM_THREADS=1 python experiments/published/adaptive_rounds.py --data ../shared/data/regmix \
        > experiments/published/results_adaptive_rounds.md

Do 32 random trials and three rounds of 32 that are chosen find what 512 random ones find? All ways
start from the same 32 and are fitted by the same regressor; what differs is how the next batch is
chosen, and the control draws it at random, in the same rounds.

The oracle is, first, the published runs themselves: a trial is a row of train_1m or test_1m, and a
mixture that is not among these 768 cannot be tried. Then it is a law fitted to all of them, of
another family than the regressor that chooses, with noise added to each trial: so any mixture
within RegMix's caps can be tried.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from published_data import NATURAL, UNIT, objective_of, regmix

from mixopt.config import DesignConfig, FitConfig
from mixopt.designs import (
    Surrogate,
    choose_batch,
    design_constraints,
    draw_candidates,
    fit_surrogate,
    sample_mixtures,
)
from mixopt.fitting import make_regressor
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Problem, search
from mixopt.system import Array
from mixopt.trials import Losses, Trial, TrialResult, Trials

REGRESSOR, LAW = "gaussian_process", "skills"
FIRST, BATCH, ADAPTIVE, MANY = 32, 32, 128, 512
RANDOM = (32, 128, 256, 512)
KINDS = ("pile_cc", "mean")
Choice = Literal["random", "random candidates", "variance", "expected_improvement"]


@dataclass(frozen=True)
class Found:
    """Regrets after some trials: of the best that was tried, and of what the fit would propose."""

    choice: Choice
    trials: int
    seed: int
    tried: float
    proposed: float


class Oracle(Protocol):
    """What a mixture would give, and which mixtures can be tried."""

    objective: Objective
    choices: tuple[Choice, ...]
    best: float

    def random(self, count: int, seed: int) -> Array:
        """Return random mixtures, the same first ones for any count."""

    def train(self, weights_ND: Array, seed: int) -> Trials:
        """Return the trials of these mixtures."""

    def truth(self, weights_ND: Array) -> Array:
        """Return the objective, as well as it is known."""

    def candidates(self, surrogate: Surrogate, seed: int) -> Array:
        """Return mixtures that may be tried next."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    print("# Adaptive rounds\n")
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/adaptive_rounds.py --data"
        " ../shared/data/regmix`."
    )
    print(f"Regret in nats per token, mean over {asked.seeds} seeds (largest in brackets).")
    print(f"Fitted by {REGRESSOR}; rounds of {BATCH} after the first {FIRST}.\n")
    jobs = [
        (asked.data, kind, name, seed)
        for kind in KINDS
        for name in ORACLES
        for seed in range(asked.seeds)
    ]
    with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
        answers = list(zip(jobs, pool.map(_race, *zip(*jobs, strict=True)), strict=True))
    for kind in KINDS:
        for name, title in ORACLES.items():
            own = [answer for job, answer in answers if job[1:3] == (kind, name)]
            _print(f"{kind}: {title}", [one for found, _ in own for one in found])
    print(f"{sum(seconds for _, (_, seconds) in answers):.0f} CPU seconds.")


def _race(folder: Path, kind: str, name: str, seed: int) -> tuple[list[Found], float]:
    start, pool = time.process_time(), published(folder)
    objective = objective_of(kind, pool.targets)
    oracle: Oracle = Table(pool, objective) if name == "table" else Law.of(pool, objective)
    found = list(_random(oracle, seed))
    for choice in oracle.choices:
        found += _adaptive(oracle, choice, seed)
    return found, time.process_time() - start


def published(folder: Path) -> Trials:
    """Return train_1m and test_1m as one table."""
    parts = [regmix(folder, name) for name in ("train_1m", "test_1m")]
    tables = [part.table.with_columns(pl.col("trial") + f"-{n}") for n, part in enumerate(parts)]
    return Trials(pl.concat(tables), parts[0].domains, parts[0].targets)


def _random(oracle: Oracle, seed: int) -> Iterator[Found]:
    for count in RANDOM:
        weights_ND = oracle.random(count, seed)
        yield _found(oracle, "random", weights_ND, _fit(oracle, weights_ND, seed), seed)


def _adaptive(oracle: Oracle, choice: Choice, seed: int) -> Iterator[Found]:
    weights_ND = oracle.random(FIRST, seed)
    surrogate = _fit(oracle, weights_ND, seed)
    while len(weights_ND) < ADAPTIVE:
        candidates_KD = oracle.candidates(surrogate, seed)
        batch_BD = _batch(choice, surrogate, candidates_KD, seed)
        weights_ND = np.vstack([weights_ND, batch_BD])
        surrogate = _fit(oracle, weights_ND, seed)
    yield _found(oracle, choice, weights_ND, surrogate, seed)


def _batch(choice: Choice, surrogate: Surrogate, candidates_KD: Array, seed: int) -> Array:
    if choice == "random candidates":
        rows = np.random.default_rng(seed).permutation(len(candidates_KD))[:BATCH]
        return candidates_KD[rows]
    return choose_batch(surrogate, candidates_KD, BATCH, acquisition=choice, seed=seed).weights_BD


def _fit(oracle: Oracle, weights_ND: Array, seed: int) -> Surrogate:
    trials = oracle.train(weights_ND, seed)
    return fit_surrogate(trials, oracle.objective, FitConfig(), regressor=REGRESSOR, seed=seed)


def _found(
    oracle: Oracle, choice: Choice, weights_ND: Array, surrogate: Surrogate, seed: int
) -> Found:
    candidates_KD = oracle.candidates(surrogate, seed)
    pick = int(np.argmin(surrogate.values(candidates_KD)))
    proposed = float(oracle.truth(candidates_KD[pick : pick + 1])[0])
    tried = float(oracle.truth(weights_ND).min())
    return Found(choice, len(weights_ND), seed, tried - oracle.best, proposed - oracle.best)


@dataclass(frozen=True, eq=False)
class Table:
    """The published runs: what was not run cannot be tried. Random trials are of train_1m."""

    pool: Trials
    objective: Objective
    choices: tuple[Choice, ...] = ("variance", "expected_improvement")

    @cached_property
    def best(self) -> float:
        """The least objective of all runs."""
        return float(self._values_N.min())

    def random(self, count: int, seed: int) -> Array:
        """Return rows of train_1m."""
        return self.pool.weights()[np.random.RandomState(seed).permutation(MANY)[:count]]

    def train(self, weights_ND: Array, seed: int) -> Trials:
        """Return the rows of these mixtures; what they gave does not depend on the seed."""
        return Trials(self.pool.table[self._rows(weights_ND)], self.pool.domains, self.pool.targets)

    def truth(self, weights_ND: Array) -> Array:
        """Return what the runs gave."""
        return self._values_N[self._rows(weights_ND)]

    def candidates(self, surrogate: Surrogate, seed: int) -> Array:
        """Return all mixtures."""
        return self.pool.weights()

    @cached_property
    def _values_N(self) -> Array:
        return self.objective.value(self.pool.losses(UNIT))

    def _rows(self, weights_ND: Array) -> list[int]:
        places = {row.tobytes(): place for place, row in enumerate(self.pool.weights())}
        return [places[row.tobytes()] for row in weights_ND]


@dataclass(frozen=True, eq=False)
class Law:
    """A regressor fitted to all published runs, and the noise of a trial around it."""

    domains: tuple[str, ...]
    regressor: Any
    objective: Objective
    noise_M: Array
    choices: tuple[Choice, ...] = ("random candidates", "variance", "expected_improvement")

    @classmethod
    def of(cls, pool: Trials, objective: Objective) -> Law:
        """Fit the law; the noise is what it leaves of the runs that it was fitted to."""
        weights_ND, losses_NM = pool.weights(), pool.losses(UNIT)[:, objective.columns]
        regressor = make_regressor(LAW, 0).fit(weights_ND, losses_NM)
        left_NM = losses_NM - regressor.predict(weights_ND)
        return cls(pool.domains, regressor, objective.only_measured(), left_NM.std(axis=0))

    @cached_property
    def best(self) -> float:
        """The least objective within the caps: the law is convex, so that descent finds it."""
        known_ND = self.random(MANY, 1_000)
        problem = Problem(self.regressor, self.objective, self._allowed, self._natural_D, known_ND)
        return search(problem, "gradient", samples=2_000, average=64, seed=0).value

    def random(self, count: int, seed: int) -> Array:
        """Return RegMix's Dirichlet draws."""
        natural = NATURAL.over(self.domains)
        limits = design_constraints(DesignConfig(), natural)
        return sample_mixtures(DesignConfig(rounds=[MANY]), natural, limits, seed=seed)[:count]

    def train(self, weights_ND: Array, seed: int) -> Trials:
        """Return trials with noise, the same for the same place in the table and seed."""
        noise_NM = np.random.default_rng(seed).standard_normal((MANY, len(self.noise_M)))
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

    @property
    def _natural_D(self) -> Array:
        return NATURAL.over(self.domains).array

    @cached_property
    def _allowed(self) -> Any:
        return design_constraints(DesignConfig(), NATURAL.over(self.domains)).simplex


ORACLES = {
    "table": "the 768 published runs as the oracle",
    "law": f"{LAW} fitted to the 768 runs, and noise, as the oracle",
}


def _print(title: str, found: Sequence[Found]) -> None:
    print(f"## {title}\n")
    print(f"| chosen by | trials | best tried | proposed | proposed, less that of {MANY} random |")
    print("|---|---|---|---|---|")
    many = {one.seed: one for one in found if (one.choice, one.trials) == ("random", MANY)}
    for choice, count in dict.fromkeys((one.choice, one.trials) for one in found):
        own = [one for one in found if (one.choice, one.trials) == (choice, count)]
        tried, proposed = ([getattr(o, n) for o in own] for n in ("tried", "proposed"))
        less = [one.proposed - many[one.seed].proposed for one in own]
        paired = "" if (choice, count) == ("random", MANY) else _interval(less)
        print(f"| {choice} | {count} | {_cell(tried)} | {_cell(proposed)} | {paired} |")
    print(flush=True)


def _cell(regrets: list[float]) -> str:
    return f"{np.mean(regrets):.4f} ({max(regrets):.4f})"


def _interval(differences: list[float]) -> str:
    """Return the mean with its 90% interval by Student's t over seeds."""
    from scipy.special import stdtrit

    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return f"{mean:+.4f}"
    half = float(stdtrit(count - 1, 0.95) * np.std(differences, ddof=1) / np.sqrt(count))
    return f"{mean:+.4f} ({mean - half:+.4f}..{mean + half:+.4f})"


if __name__ == "__main__":
    main()
