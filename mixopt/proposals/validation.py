"""Validation: proposals trained against baselines, with paired seeds.

Every mixture is trained with the same new seeds, and usually for longer than the trials. A seed
sets the initial weights and the order of the data, so differences are paired by seed
(mixopt.difference).

Adding seeds until an interval excludes 0 would find false effects far more often than in 5% of
cases. So the numbers of seeds at which results are looked at are fixed beforehand, and all looks
have the same nominal level, such that with 95% no interval misses the true difference (Pocock,
1977; Jennison and Turnbull, 1989). The level is found by simulating t-statistics of nested samples.

If a proposal does not win, its runs join the trials and another one follows: `proposal`,
`proposal_2`, ... These runs are longer, so their losses are lower; the shift is the mean over
baselines of validated - predicted loss, for each evaluation domain.

Shapes: S seeds, D domains, M evaluation domains, R simulated validations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mixopt.config import TASK
from mixopt.difference import LEVEL, VERDICT_TEXTS, Difference, shared_count
from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.proposal import PROPOSAL, is_proposal, listed, named
from mixopt.system import Array
from mixopt.trials import PREFIX, Noise, Trial, TrialResult, Trials, loss_column

if TYPE_CHECKING:
    from mixopt.config import ValidateConfig
    from mixopt.fitting import Fit


def mixture_of(trial: str) -> str:
    """Return the mixture in a validation run's name."""
    return trial.rpartition("-s")[0]


SIMULATED = 100_000
MIN_SEEDS = 2  # for an interval
MIN_OWN_SEEDS = 3  # of a mixture, for its own estimate of noise


def looks(seeds: int, max_seeds: int) -> tuple[int, ...]:
    """Return the numbers of seeds at which results are looked at, growing by half each time."""
    step = math.ceil(seeds / 2)
    return (*range(seeds, max_seeds, step), max_seeds)


@lru_cache(maxsize=64)
def nominal_level(at: tuple[int, ...]) -> float:
    """Return the nominal level of each look for a simultaneous level of 95%."""
    if len(at) == 1:
        return LEVEL
    from scipy.special import stdtr  # Student's t; imports faster than scipy.stats

    noise_RS = np.random.default_rng(0x10075).standard_normal((SIMULATED, at[-1]))
    min_p_R = np.ones(SIMULATED)
    for count in at:
        sample_RS = noise_RS[:, :count]
        t_R = sample_RS.mean(axis=1) / (sample_RS.std(axis=1, ddof=1) / math.sqrt(count))
        min_p_R = np.minimum(min_p_R, 2.0 * stdtr(count - 1, -np.abs(t_R)))
    return 1.0 - float(np.quantile(min_p_R, 1.0 - LEVEL))


@dataclass(frozen=True)
class Validation:
    """Losses of proposals and baselines, with several seeds each.

    Attributes:
        trials: Table with a row for each mixture and seed.
        objective: The objective that is compared.
        level: Nominal level of each interval; 95% over all looks.

    Examples:
        >>> run.validation
        Validation(... mixtures, ... runs: ...)
    """

    trials: Trials
    objective: Objective
    level: float = LEVEL

    @classmethod
    def read(
        cls, path: Path, objective: Objective, config: ValidateConfig | None = None
    ) -> Validation:
        """Read `validation.parquet`.

        Args:
            path: The file.
            objective: The objective that is compared.
            config: Defines the looks; None for a single look.

        Raises:
            TrialsError: It cannot be read, or lacks losses of the objective.
        """
        trials = Trials.read(path)
        if _of_losses(trials, objective).targets != objective.evaluation:
            theirs, ours = ", ".join(trials.targets), ", ".join(objective.evaluation)
            raise TrialsError(f"{path}: has losses on {theirs}, not {ours}; validate again")
        return cls.of(trials, objective, config)

    @classmethod
    def of(cls, trials: Trials, objective: Objective, config: ValidateConfig | None) -> Validation:
        """Return a validation with intervals for all looks that a configuration plans."""
        at = (MIN_SEEDS,) if config is None else looks(config.seeds, config.most_seeds)
        return cls(_of_losses(trials, objective), objective, nominal_level(at))

    @property
    def mixtures(self) -> tuple[str, ...]:
        """Names of all mixtures, in the order of the table."""
        return tuple(self._rows)

    @property
    def proposals(self) -> tuple[str, ...]:
        """The proposals in their order."""
        return tuple(name for name in self.mixtures if is_proposal(name))

    @property
    def baselines(self) -> tuple[str, ...]:
        """The baselines."""
        return tuple(name for name in self.mixtures if not is_proposal(name))

    @cached_property
    def leading(self) -> str:
        """The proposal with the best mean objective; the first one if none finished."""
        means = {name: self.mean_to_minimise(name) for name in self.proposals}
        finished = [name for name, mean in means.items() if np.isfinite(mean)]
        return min(finished, key=lambda name: means[name]) if finished else PROPOSAL

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """How much better the leading proposal is than each baseline with enough finished seeds."""
        return self.differences_of(self.leading)

    def differences_of(self, mixture: str) -> dict[str, Difference]:
        """Return how much better a mixture is than each other baseline with enough seeds."""
        differences = {}
        for baseline in self.baselines:
            if baseline == mixture:
                continue
            difference = self.compare(baseline, of=mixture)
            if difference is not None:
                differences[baseline] = difference
        return differences

    @property
    def problems(self) -> list[str]:
        """Comparisons that failed, with the reason, one line each."""
        return [
            f"{named(name)}: too few seeds finished to compare the proposal with it"
            for name in self.baselines
            if name not in self.differences
        ]

    @cached_property
    def _rows(self) -> dict[str, int]:
        """One row for each mixture."""
        trials = self.trials.table["trial"]
        return {mixture_of(trial): row for row, trial in enumerate(trials)}

    def mixture(self, name: str) -> Mixture:
        """Return the weights of a mixture."""
        weights_D = self.trials.weights()[self._rows[name]]
        return Mixture.from_array(self.trials.domains, weights_D)

    def same_as(self, name: str) -> str | None:
        """Return the first of several names of a mixture; None if it is `name`."""
        prints = {label: self.trials.mixtures[row] for label, row in self._rows.items()}
        first = next(other for other in prints if prints[other] == prints[name])
        return None if first == name else first

    def compare(
        self, baseline: str, target: str | None = None, *, of: str | None = None
    ) -> Difference | None:
        """Compare two mixtures, seed by seed.

        Args:
            baseline: The second mixture.
            target: An evaluation domain; None: the objective.
            of: The first mixture; None: the leading proposal.

        Returns:
            How much better the first is, above 0 for losses and metrics alike; None with fewer than
            two common seeds.
        """
        first = of or self.leading
        differences_S = self.paired(first, baseline, target)
        if len(differences_S) < MIN_SEEDS:
            return None
        is_same = self._first_name(first) == self._first_name(baseline)
        return self._difference(differences_S, target, is_same=is_same)

    def compare_with(self, loss: float, target: str, *, of: str) -> Difference | None:
        """Return how much better a mixture is than a target's loss that was measured once."""
        values_S = np.array(list(self.values(of, target).values()))
        if len(values_S) < MIN_SEEDS:
            return None
        return self._difference(self._sign(target) * (values_S - loss), target)

    def paired(self, first: str, second: str, target: str | None = None) -> Array:
        """Return how much better a mixture is than another one, of each common finished seed."""
        ours = self.values(first, target)
        theirs = self.values(second, target)
        shared = sorted(ours.keys() & theirs.keys())
        sign = self._sign(target)
        return np.array([sign * (ours[seed] - theirs[seed]) for seed in shared])

    def _difference(
        self, differences_S: Array, target: str | None, *, is_same: bool = False
    ) -> Difference:
        runs = self.trials.finished.table
        return Difference.from_pairs(
            differences_S,
            self.objective.unit_of(target),
            nominal=self.level,
            tokens=shared_count(runs["tokens"]),
            parameters=shared_count(runs["parameters"]),
            is_same=is_same,
        )

    def _first_name(self, name: str) -> str:
        return self.same_as(name) or name

    def _sign(self, target: str | None) -> float:
        """Return 1 if a higher value is better, else -1."""
        is_higher = self.objective.is_higher if target is None else target in self.objective.higher
        return 1.0 if is_higher else -1.0

    def mean(self, mixture: str, target: str | None = None) -> float:
        """Return the mean over seeds of a mixture's loss or metric; NaN if none finished."""
        values = list(self.values(mixture, target).values())
        return float(np.mean(values)) if values else float("nan")

    def mean_to_minimise(self, mixture: str) -> float:
        """Return the mean of the objective, negated if higher is better."""
        return -self._sign(None) * self.mean(mixture)

    @property
    def means_note(self) -> str:
        """Return why differences are not those of the means, if mixtures have different seeds."""
        by_count: dict[int, list[str]] = {}
        for name in self.mixtures:
            by_count.setdefault(len(self.values(name)), []).append(name)
        if len(by_count) == 1:
            return ""
        counts = [
            f"{count} of {listed(by_count[count], among=self.mixtures)}"
            for count in sorted(by_count)[::-1]
        ]
        return (
            f"Seeds: {', '.join(counts)}. A mean is over all seeds of a mixture, a difference over"
            " those that both have."
        )

    def noise_note(self, mixture: str) -> str | None:
        """Return a line on a mixture's spread over seeds beside the others'; None with too few."""
        from scipy.stats import f as f_distribution

        losses = list(self.values(mixture).values())
        others = self._other_seeds(mixture)
        if len(losses) < MIN_OWN_SEEDS or not others.freedom:
            return None
        (pooled,) = others.stds_M.tolist()
        if pooled == 0:
            return None
        noise = float(np.std(losses, ddof=1))
        text = (
            f"seeds of {named(mixture)} differ by {noise:.3g}, those of the others by {pooled:.3g}"
            " (standard deviations)"
        )
        if (noise / pooled) ** 2 > f_distribution.ppf(0.95, len(losses) - 1, others.freedom):
            return f"{text}, significantly more: raise validate.seeds"
        return text

    def _other_seeds(self, mixture: str) -> Noise:
        """Return the noise of the objective over seeds of all other mixtures."""
        own = self.same_as(mixture) or mixture
        names: list[str] = []
        values: list[float] = []
        for name in self.mixtures:
            if self.same_as(name) is None and name != own:
                losses = self.values(name).values()
                names += [name] * len(losses)
                values += losses
        return Noise.within(names, np.array(values)[:, None], ["objective"])

    def values(self, mixture: str, target: str | None = None) -> dict[int, float]:
        """Return the loss of each finished seed."""
        values: dict[int, float] = self._values[target].get(mixture, {})
        return values

    @cached_property
    def _values(self) -> dict[str | None, dict[str, dict[int, float]]]:
        """Losses and metrics by target (None: the objective), mixture and seed."""
        finished = self.trials.finished
        objective = self.objective
        losses_NM = objective.losses(finished)
        by_target: dict[str | None, Array] = {
            None: objective.turned_value(objective.value(losses_NM))
        }
        by_target |= dict(zip(self.trials.targets, objective.turned(losses_NM).T, strict=True))
        values: dict[str | None, dict[str, dict[int, float]]] = {target: {} for target in by_target}
        for row, (trial, seed) in enumerate(zip(*finished.table[["trial", "seed"]], strict=True)):
            for target, values_N in by_target.items():
                by_seed = values[target].setdefault(mixture_of(trial), {})
                by_seed[seed] = float(values_N[row])
        return values

    def frame(self) -> pl.DataFrame:
        """Return a table with a row for each mixture, best first.

        Returns:
            `mixture`, `seeds`, the mean `objective` and its `deviation` over seeds, the `gain` of
            the leading proposal over it with its 95% interval `low` to `high` (above 0 the proposal
            is better), and the mean of each loss.
        """
        unit = self.objective.unit
        rows = []
        for name in self.mixtures:
            values = list(self.values(name).values())
            gain = self.differences.get(name)
            rows.append(
                {
                    "mixture": name,
                    "seeds": len(values),
                    "objective": self.mean(name),
                    "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                    "gain": gain and gain.mean,
                    "low": gain and gain.low,
                    "high": gain and gain.high,
                    **{loss_column(t, unit): self.mean(name, t) for t in self.trials.targets},
                }
            )
        table = pl.DataFrame(rows, infer_schema_length=None)
        is_higher = self.objective.is_higher
        return table.sort("objective", descending=is_higher, nulls_last=True)

    def __repr__(self) -> str:
        """Return a summary: the mixtures, and the leading proposal's verdicts."""
        finished = (self.trials.table["status"] == "finished").any()
        verdicts = []
        if finished:
            for baseline, difference in self.differences.items():
                verdicts.append(f"{VERDICT_TEXTS[difference.verdict]} {named(baseline)}")
        text = "; ".join(verdicts) or "nothing can be compared yet"
        return f"Validation({len(self.mixtures)} mixtures, {len(self.trials)} runs: {text})"

    def to_json(self) -> dict[str, Any]:
        """Return means and differences as JSON values, without missing ones."""
        means = {name: self.mean(name) for name in self.mixtures}
        return {
            "unit": self.objective.unit,
            "leading": self.leading,
            "means": {name: mean for name, mean in means.items() if np.isfinite(mean)},
            "differences": {name: item.to_json() for name, item in self.differences.items()},
        }


@dataclass(frozen=True)
class ValidationPlan:
    """The mixtures of a validation, and their seeds.

    A mixture with two names is trained once, and its results count for both.

    Attributes:
        mixtures: The mixtures, by name.
        seeds: Seeds in their order; each mixture uses the first ones.
        runs: The runs: name of a mixture, and index of a seed.
    """

    mixtures: Mapping[str, Mixture]
    seeds: Sequence[int]
    runs: tuple[tuple[str, int], ...] = ()

    def add(self, names: Mapping[str, Mixture], count: int) -> ValidationPlan:
        """Return a plan that adds mixtures with the first `count` seeds."""
        mixtures = {**self.mixtures, **names}
        missing = [
            (name, place)
            for place in range(count)
            for name in names
            if (name, place) not in self.runs
        ]
        return replace(self, mixtures=mixtures, runs=(*self.runs, *missing))

    @property
    def trials(self) -> list[Trial]:
        """The runs to train, each once."""
        return [trial for trial in self.named_trials if self._first(trial) == trial.name]

    @property
    def named_trials(self) -> list[Trial]:
        """A run for each name of a mixture and seed; names of one mixture share runs."""
        return [
            Trial(f"{name}-s{place}", self.mixtures[name], self.seeds[place], role="validation")
            for name, place in self.runs
        ]

    def named_results(self, results: Sequence[TrialResult]) -> list[TrialResult]:
        """Return a result for each of `named_trials`."""
        by_trial = {result.trial: result for result in results}
        return [
            replace(by_trial[self._first(trial)], trial=trial.name) for trial in self.named_trials
        ]

    def _first(self, trial: Trial) -> str:
        """Return the name under which a run is trained."""
        name, _, place = trial.name.rpartition("-s")
        same = [
            other
            for other, at in self.runs
            if at == int(place) and self.mixtures[other].fingerprint == trial.mixture.fingerprint
        ]
        return f"{same[0] if same else name}-s{place}"


def fresh_seeds(trials: Trials, count: int, seed: int) -> list[int]:
    """Return seeds that no trial used; more seeds extend fewer."""
    used = set(trials.table["seed"].to_list())
    stream = np.random.default_rng([seed, 0x7A11DA7E])
    seeds: list[int] = []
    while len(seeds) < count:
        drawn = int(stream.integers(2**31))
        if drawn not in used and drawn not in seeds:
            seeds.append(drawn)
    return seeds


def _of_losses(trials: Trials, objective: Objective) -> Trials:
    """Return the trials without tasks that the objective left out as noise."""
    measured = objective.evaluation
    more = [name for name in trials.targets if name not in measured]
    if not more or not all(name.startswith(TASK) for name in more):
        return trials
    return trials.with_targets([name for name in trials.targets if name in measured])


def with_validated(trials: Trials, validation: Validation, fit: Fit) -> Trials:
    """Return the finished trials with the validated runs of proposals."""
    finished, unit = trials.finished, validation.objective.unit
    columns = [loss_column(name, unit) for name in finished.targets]
    all_columns = [loss_column(name, each) for each in PREFIX for name in finished.targets]
    nothing = {name: pl.lit(None, pl.Float64) for name in all_columns if name not in columns}
    table = finished.table.with_columns(**nothing)
    shift_M = _shift(validation, fit)
    if shift_M is None:
        return replace(finished, table=table)
    runs = validation.trials.finished.table
    validated = runs.filter([is_proposal(mixture_of(trial)) for trial in runs["trial"]])
    pairs = zip(columns, shift_M.tolist(), strict=True)
    shifted = {column: pl.col(column) - shift for column, shift in pairs}
    length = pl.lit(table["tokens"].max(), table["tokens"].dtype)
    validated = validated.with_columns(**nothing, **shifted, tokens=length).select(table.columns)
    return replace(finished, table=pl.concat([table, validated.cast(table.schema)]))


def _shift(validation: Validation, fit: Fit) -> Array | None:
    """Return validated - predicted losses, mean over baselines, shape (M,); None without any."""
    names = [name for name in validation.baselines if np.isfinite(validation.mean(name))]
    if not names:
        return None
    mixtures = [validation.mixture(name) for name in names]
    # At the trials' own size, without pilots.
    predicted_BM = replace(fit, pilots=None).predict(mixtures, validation.objective).losses_NM
    targets = validation.trials.targets
    validated_BM = np.array([[validation.mean(n, target) for target in targets] for n in names])
    shift_M: Array = (validated_BM - predicted_BM).mean(axis=0)
    return shift_M
