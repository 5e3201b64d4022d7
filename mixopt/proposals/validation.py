"""Train the proposal against its baselines and say, plainly, whether it won.

Every mixture is trained with the same seeds, which are none of the trials', on a longer
budget. A seed sets the initial weights and the order of the data, so differences are taken
seed by seed and their mean gets a paired interval of Student's t with S - 1 degrees.

Shapes: S seeds, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trial, Trials, best_trial

if TYPE_CHECKING:
    from mixopt.config import ValidateConfig

PROPOSAL = "proposal"
Verdict = Literal["wins", "no difference shown", "loses"]
# How a sentence says each verdict: what stands before and between the baselines, and after.
_PARTS: tuple[tuple[Verdict, str, str, str], ...] = (
    ("loses", "it loses to ", "and", ""),
    ("no difference shown", "no difference from ", "or", " is shown"),
    ("wins", "it wins against ", "and", ""),
)


@dataclass(frozen=True)
class Comparison:
    """The proposal less a baseline, in the objective's unit: below 0 is better."""

    baseline: str
    mean: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """What the 95% interval allows to say."""
        if self.high < 0:
            return "wins"
        return "loses" if self.low > 0 else "no difference shown"


@dataclass(frozen=True)
class Validation:
    """The losses of the proposal and of its baselines, several seeds each."""

    trials: Trials
    objective: Objective

    @classmethod
    def read(cls, path: Path, objective: Objective) -> Validation:
        """Read `validation.parquet`.

        Raises:
            TrialsError: It cannot be read, or has other losses than the objective is of.
        """
        trials = Trials.read(path)
        if trials.targets != objective.evaluation:
            theirs, ours = ", ".join(trials.targets), ", ".join(objective.evaluation)
            raise TrialsError(f"{path}: has losses on {theirs}, not {ours}; validate again")
        return cls(trials, objective)

    @cached_property
    def mixtures(self) -> tuple[str, ...]:
        """The proposal, then its baselines."""
        names = [mixture_of(trial) for trial in self.trials.table["trial"]]
        return tuple(dict.fromkeys(names))

    @property
    def baselines(self) -> tuple[str, ...]:
        """The mixtures that the proposal is compared with."""
        return tuple(name for name in self.mixtures if name != PROPOSAL)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The proposal less each baseline that enough seeds finished of."""
        return [found for name in self.baselines if (found := self.compare(name)) is not None]

    @property
    def problems(self) -> list[str]:
        """What could not be compared, and why, a line each."""
        compared = [found.baseline for found in self.comparisons]
        return [
            f"{named(name)}: too few seeds finished to compare the proposal with it"
            for name in self.baselines
            if name not in compared
        ]

    @property
    def verdict(self) -> str:
        """Whether the proposal won, in a sentence that says so plainly when it did not."""
        if not self.baselines:
            return "The proposal equals every baseline; there was nothing to compare."
        if not self.comparisons:
            return "Too few runs finished to say whether the proposal wins."
        seeds = min(found.seeds for found in self.comparisons)
        ending = f"({seeds} seeds, paired 95% intervals)"
        if all(found.verdict == "wins" for found in self.comparisons):
            return f"The proposal wins against {self._those('wins', 'and')} {ending}."
        parts = [
            before + self._those(verdict, joined) + after
            for verdict, before, joined, after in _PARTS
            if self._those(verdict, joined)
        ]
        return f"The proposal does not win against every baseline: {', and '.join(parts)} {ending}."

    def compare(self, baseline: str, target: str | None = None) -> Comparison | None:
        """Compare the proposal with a baseline, seed by seed.

        Args:
            baseline: One of `baselines`.
            target: An evaluation domain; the objective when None.

        Returns:
            The mean difference and its interval, with the sign turned where higher is better, so
            that below 0 is better; None where fewer than two seeds finished of both.
        """
        ours, theirs = self.values(PROPOSAL, target), self.values(baseline, target)
        shared = sorted(ours.keys() & theirs.keys())
        sign = -1.0 if target in self.objective.higher else 1.0
        differences_S = np.array([sign * (ours[seed] - theirs[seed]) for seed in shared])
        if len(shared) < 2:
            return None
        mean, half = _interval(differences_S)
        return Comparison(baseline, mean, mean - half, mean + half, len(shared))

    def mean(self, mixture: str, target: str | None = None) -> float:
        """Return the mean over seeds of a mixture's loss; NaN where none finished."""
        values = list(self.values(mixture, target).values())
        return float(np.mean(values)) if values else float("nan")

    def spread(self, mixture: str, target: str | None = None) -> float:
        """Return the standard deviation over seeds of a mixture's loss; NaN below two."""
        values = list(self.values(mixture, target).values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def values(self, mixture: str, target: str | None = None) -> dict[int, float]:
        """Return the loss of each finished seed."""
        finished = self.trials.finished
        losses_NM = finished.losses(self.objective.unit)
        values_N = self._column(losses_NM, target)
        return {
            seed: float(value)
            for trial, seed, value in zip(
                finished.table["trial"], finished.table["seed"], values_N, strict=True
            )
            if mixture_of(trial) == mixture
        }

    def to_json(self) -> dict[str, Any]:
        """Return means, differences and verdicts as plain values; what is missing is left out."""
        means = {name: self.mean(name) for name in self.mixtures}
        return {
            "unit": self.objective.unit,
            "means": {name: mean for name, mean in means.items() if np.isfinite(mean)},
            "proposal_less": {
                c.baseline: {"mean": c.mean, "low": c.low, "high": c.high, "verdict": c.verdict}
                for c in self.comparisons
            },
            "verdict": self.verdict,
        }

    def _those(self, verdict: Verdict, joined: str) -> str:
        """List the baselines of one verdict in words."""
        names = [named(found.baseline) for found in self.comparisons if found.verdict == verdict]
        *first, last = names or [""]
        return f"{', '.join(first)} {joined} {last}" if first else last

    def _column(self, losses_NM: Array, target: str | None) -> Array:
        if target is None:
            return self.objective.value(losses_NM)
        return losses_NM[:, self.trials.targets.index(target)]


def plan_validation(
    proposal: Mixture,
    natural: Mixture,
    trials: Trials,
    objective: Objective,
    config: ValidateConfig,
    seed: int,
) -> list[Trial]:
    """Return the runs of a validation: each mixture with each seed.

    A baseline that is the same mixture as one before it is not trained twice; the first name
    stands for both.
    """
    known = {
        "natural": lambda: natural,
        "uniform": lambda: Mixture.uniform(natural.domains),
        "best_trial": lambda: best_trial(trials, objective)[1],
    }
    mixtures = {PROPOSAL: proposal}
    for name in config.baselines:
        mixture = known[name]()
        if all(mixture.fingerprint != other.fingerprint for other in mixtures.values()):
            mixtures[name] = mixture
    seeds = _fresh_seeds(trials, config.seeds, seed)
    return [
        Trial(f"{name}-s{place}", mixture, one, role="validation")
        for place, one in enumerate(seeds)
        for name, mixture in mixtures.items()
    ]


def mixture_of(trial: str) -> str:
    """Return the mixture's name in a validation run's name."""
    return trial.rpartition("-s")[0]


def named(mixture: str) -> str:
    """Return a mixture's name as a sentence has it."""
    return f"the {mixture.replace('_', ' ')}" if mixture == "best_trial" else mixture


def validation_table(validation: Validation) -> pl.DataFrame:
    """Return a row for each mixture: objective, spread, and the proposal's paired difference."""
    compared = {found.baseline: found for found in validation.comparisons}
    rows = []
    for name in validation.mixtures:
        found = compared.get(name)
        row: dict[str, Any] = {
            "mixture": name,
            "objective": validation.mean(name),
            "sd": validation.spread(name),
            "difference": found.mean if found else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "verdict": found.verdict if found else None,
        }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _interval(differences_S: Array) -> tuple[float, float]:
    """Return the mean and half the width of its 95% interval."""
    from scipy.special import stdtrit  # quantiles of Student's t; lighter than scipy.stats

    count = len(differences_S)
    error = float(differences_S.std(ddof=1)) / np.sqrt(count)
    return float(differences_S.mean()), float(stdtrit(count - 1, 0.975)) * error


def _fresh_seeds(trials: Trials, count: int, seed: int) -> Sequence[int]:
    used = set(trials.table["seed"].to_list())
    stream = np.random.default_rng([seed, 0x7A11DA7E])
    seeds: list[int] = []
    while len(seeds) < count:
        drawn = int(stream.integers(2**31))
        if drawn not in used and drawn not in seeds:
            seeds.append(drawn)
    return seeds
