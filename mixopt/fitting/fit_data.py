"""Input of a fit: finished trials as arrays, their model sizes, and the objective.

A regressor that supports sizes is fitted on rows of weights, parameters and tokens, and its
`at(parameters, tokens)` predicts from mixtures alone. All other regressors need trials of one size,
because losses differ far more between sizes than between mixtures. Some proxies (n-grams) have a
parameter count for each trial, so trials count as of several sizes only if the counts form a few
distant groups.

Regressors that model epochs (weight x tokens / inventory) get the inventory and the trials' tokens.
With simulated epochs both are those of the full run, because a trial repeats its pools equally
often.

Shapes: N trials, D domains, M evaluation domains, S sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np
import polars as pl
from pydantic import Field

from mixopt.config import ObjectiveConfig, checked
from mixopt.errors import ConfigError, TrialsError
from mixopt.fitting.regressor import (
    Predictor,
    Regressor,
    Repetition,
    fit_regressor,
    grouped_folds,
    make_regressor,
    supports_sizes,
)
from mixopt.objective import Direction, Objective, Scale, Unit
from mixopt.system import Array, IntArray, chosen, first_few
from mixopt.trials import WEIGHT, Trials, check_trials, listed, loss_column, settled

COLUMNS = ("parameters", "tokens")
SAME_SIZE = 1.25  # sizes within this factor count as one
MIN_IDENTIFIED = 0.9  # part of a share's variation above which a domain counts as measured
MAX_NAMED = 6  # domains named in a line

ObjectiveLike = str | Sequence[str] | Mapping[str, float] | ObjectiveConfig | Objective


def requested_patterns(objective: ObjectiveLike | None) -> dict[str, float]:
    """Return the requested names and globs with their weights; empty for all losses."""
    if objective is None:
        return {}
    if isinstance(objective, Objective):
        return dict(objective.weights)
    if isinstance(objective, ObjectiveConfig):
        return dict.fromkeys(objective.patterns, 1.0)
    names = [objective] if isinstance(objective, str) else objective
    if not isinstance(names, (Mapping, Sequence)) or not all(isinstance(n, str) for n in names):
        raise ConfigError(
            "objective: expected the name of a loss, several names, weights by name, or an"
            f" Objective; got {objective!r}"
        )
    if not names:
        raise ConfigError("objective: names no loss; leave it out for the mean of all")
    if isinstance(names, Mapping):
        return dict(names)
    return dict.fromkeys(names, 1.0)


def objective_over(
    evaluation: Sequence[str],
    objective: ObjectiveLike | None,
    *,
    unit: Unit,
    direction: Mapping[str, Direction] | None = None,
    scale: Scale = "none",
    items: Mapping[str, int] | None = None,
) -> Objective:
    """Return an objective over the available losses."""
    if isinstance(objective, Objective):
        return objective.over(evaluation)
    if direction is not None and not isinstance(direction, Mapping):
        raise ConfigError(
            "direction: expected lower or higher by name, such as {'accuracy': 'higher'}; got"
            f" {direction!r}"
        )
    if isinstance(objective, ObjectiveConfig):
        if direction or scale != "none":
            raise ConfigError(
                "objective: a file or a section has its own direction and scale; leave those out"
            )
        all_items = dict(items or {}) | objective.items
        config = objective.model_copy(update={"unit": unit, "items": all_items})
        return Objective.from_config(config, evaluation)
    weights = requested_patterns(objective) or dict.fromkeys(evaluation, 1.0)
    section = _combination(weights, evaluation, scale)
    section["unit"] = unit
    section["direction"] = direction or {}
    section["scale"] = scale
    section["items"] = items or {}
    return Objective.from_config(checked(ObjectiveConfig, section, "objective"), evaluation)


def _combination(
    weights: Mapping[str, float], evaluation: Sequence[str], scale: Scale
) -> dict[str, Any]:
    """Return a target for a single loss, else a mean."""
    name, *others = weights
    if others or len(chosen(name, evaluation)) > 1:
        return {"mean": dict(weights)}
    if scale == "spread":
        raise ConfigError(f"scale: spread: is for a mean of targets, but {name!r} is alone")
    return {"target": name}


@dataclass(frozen=True)
class ModelSize:
    """Parameters and training tokens of a model."""

    parameters: Annotated[float, Field(ge=1, lt=1e18)]
    tokens: Annotated[float, Field(ge=1, lt=1e18)]


@dataclass(frozen=True, eq=False)
class TrialSizes:
    """Model sizes of trials: parameters and tokens if all trials have them, and groups by size."""

    sizes_N2: Array | None
    group_N: IntArray

    @classmethod
    def of(cls, trials: Trials) -> Self:
        """Read the sizes of finished trials."""
        columns = trials.table.select(COLUMNS)
        if any(columns.null_count().row(0)):
            return cls(None, np.zeros(len(trials), dtype=np.int64))
        sizes_N2 = columns.to_numpy().astype(float)
        runs = trials.table.select("mixture", *COLUMNS).n_unique()
        if len(np.unique(sizes_N2, axis=0)) > max(runs // 2, 1):
            # A count for nearly every run: not sizes.
            return cls(sizes_N2, np.zeros(len(trials), dtype=np.int64))
        return cls(sizes_N2, size_groups(sizes_N2))

    @property
    def count(self) -> int:
        """Number of sizes, S."""
        return len(set(self.group_N.tolist()))

    def rows(self, name: str, regressor: Predictor, weights_ND: Array) -> Array:
        """Return a regressor's input: weights, or weights, parameters and tokens."""
        if not supports_sizes(regressor):
            return weights_ND
        if self.sizes_N2 is None or (self.sizes_N2 < 1).any():
            raise TrialsError(
                f"regressor {name!r} needs the size of each trial: give the table columns"
                " 'parameters' (without embeddings) and 'tokens'"
            )
        return np.hstack([weights_ND, self.sizes_N2])

    def shared(self, parameters: float | None, tokens: float | None) -> ModelSize:
        """Return the size to predict at; missing values are those that all trials share."""
        return ModelSize(
            parameters=self._shared_count("parameters", parameters),
            tokens=self._shared_count("tokens", tokens),
        )

    def _shared_count(self, name: str, requested: float | None) -> float:
        """Return the requested parameters or tokens, by default those that all trials share."""
        if requested is None:
            values = set()
            if self.sizes_N2 is not None:
                values = set(self.sizes_N2[:, COLUMNS.index(name)].tolist())
            if len(values) != 1:
                raise ConfigError(
                    f"--at {name}: is missing; the trials have {len(values) or 'no'} numbers of "
                    f"{name}, so give the one to predict at, such as 25e9"
                )
            requested = values.pop()
        value = float(requested)
        if not 1 <= value < 1e18:
            raise ConfigError(f"--at {name}={value:g}: must be at least 1, and less than 1e18")
        return value

    def size_of_fit(
        self, regressors: Mapping[str, Predictor], size: ModelSize | None
    ) -> ModelSize | None:
        """Return the size at which regressors predict; None if none supports sizes."""
        blind = [name for name, regressor in regressors.items() if not supports_sizes(regressor)]
        if blind and self.count > 1:
            raise TrialsError(
                f"these trials are of {self.count} sizes, but regressor {blind[0]!r} treats them as"
                " one: fit them together with --regressor scaling --at parameters=P,tokens=T,"
                " or give those of one size"
            )
        if blind and size is not None:
            raise ConfigError(
                f"--at: regressor {blind[0]!r} predicts only at the trials' size; use "
                "--regressor scaling"
            )
        if len(blind) == len(regressors):
            return None
        at = size or self.shared(None, None)
        self._check_informs(at)
        return at

    def _check_informs(self, size: ModelSize) -> None:
        """Raise ConfigError if trials do not vary in what is requested at another value."""
        if self.sizes_N2 is None:
            return
        for name, counts_N in zip(COLUMNS, self.sizes_N2.T, strict=True):
            value = getattr(size, name)
            low = float(counts_N.min())
            high = float(counts_N.max())
            is_single = high <= SAME_SIZE * low
            if is_single and not low / SAME_SIZE <= value <= high * SAME_SIZE:
                raise ConfigError(
                    f"--at {name}={value:g}: all trials have {high:g} {name}, so another value"
                    f" cannot be predicted: ask for {high:g}, or add trials that differ in {name}"
                )


def check_finished(trials: Trials) -> None:
    """Raise TrialsError if a trial is an earlier checkpoint of another one."""
    tokens = pl.col("tokens").fill_null(0)
    longest = tokens.max().over("mixture", "seed", "parameters")
    early = trials.table.filter(tokens < longest)["trial"].to_list()
    if early:
        raise TrialsError(
            f"trials: {listed(early)} ({len(early)} of {len(trials)}) have the mixture, seed and"
            " parameters of a longer run: a loss in the middle of a schedule is not that of a"
            " finished run. Keep the last row of each run, or give the table a column 'schedule',"
            " the share of its own schedule that each row has run (1 is a finished run)"
        )


def size_groups(sizes_N2: Array) -> IntArray:
    """Number the sizes of trials; close sizes share a number."""
    groups = [_count_groups(counts_N) for counts_N in sizes_N2.T]
    _, group_N = np.unique(np.column_stack(groups), axis=0, return_inverse=True)
    return np.asarray(group_N.reshape(-1), dtype=np.int64)


def _count_groups(counts_N: Array) -> IntArray:
    """Number groups of counts that are separated by a factor above `SAME_SIZE`."""
    logs_N = np.log(np.maximum(counts_N, 1.0))
    order_N = np.argsort(logs_N, kind="stable")
    is_gap_N = np.diff(logs_N[order_N]) > np.log(SAME_SIZE)
    group_N = np.empty(len(logs_N), dtype=np.int64)
    group_N[order_N] = np.concatenate([[0], np.cumsum(is_gap_N)])
    return group_N


@dataclass(frozen=True, eq=False)
class FitData:
    """Finished trials, checked and as arrays, and the arguments of regressors.

    Attributes:
        trials: The trials, of which the finished ones are kept.
        objective: The objective; it gets the spreads of these trials if it needs them.
        folds: Number of held-out folds.
        seed: Seed of folds and regressors.
        repetition: Inventory and tokens, for regressors that model epochs.
        carried: Trials of an earlier corpus, for regressors that weigh them.
    """

    trials: Trials
    objective: Objective
    folds: int
    seed: int
    repetition: Repetition | None = None
    carried: Trials | None = None

    def __post_init__(self) -> None:
        finished = self.trials.finished
        check_trials(finished, self.objective, self.folds)
        object.__setattr__(self, "trials", finished)
        object.__setattr__(self, "objective", settled(self.objective, finished))

    @cached_property
    def weights_ND(self) -> Array:
        """Mixtures."""
        return self.trials.weights()

    @cached_property
    def losses_NM(self) -> Array:
        """Losses in the objective's unit, lower better for all."""
        return self.objective.losses(self.trials)

    @cached_property
    def mixtures(self) -> tuple[str, ...]:
        """Fingerprint of each trial's mixture; equal ones are replicates."""
        return tuple(self.trials.mixtures)

    @cached_property
    def sizes(self) -> TrialSizes:
        """Parameters and tokens of the trials."""
        return TrialSizes.of(self.trials)

    @cached_property
    def fold_N(self) -> IntArray:
        """Fold of each trial; replicates of a mixture share one."""
        return grouped_folds(self.mixtures, self.folds, self.seed)

    @cached_property
    def observed_N(self) -> Array:
        """The observed objective."""
        return self.objective.value(self.losses_NM)

    @cached_property
    def observed_NQ(self) -> Array:
        """Observed objective, then the losses."""
        return np.column_stack([self.observed_N, self.losses_NM])

    def make(self, name: str) -> Regressor:
        """Build an unfitted regressor by name, with the same seed each time."""
        return make_regressor(name, self.seed, self.repetition, self._carried_rows)

    @cached_property
    def _carried_rows(self) -> list[list[float | None]] | None:
        """Rows of weights and losses of carried trials; None for a missing loss."""
        if self.carried is None:
            return None
        if set(self.carried.domains) != set(self.trials.domains):
            raise TrialsError("carried: trials of other domains; reindex them (Trials.reindex)")
        unit = self.objective.unit
        table = self.carried.finished.table
        names = [loss_column(name, unit) for name in self.trials.targets]
        if not any(name in table.columns and table[name].count() for name in names):
            raise TrialsError(f"carried: trials without any loss of these trials in {unit}")
        columns = [pl.col(WEIGHT + name) for name in self.trials.domains]
        for name, sign in zip(names, self.objective.signs.tolist(), strict=True):
            if name in table.columns:
                columns.append(pl.col(name) * sign)
            else:
                columns.append(pl.lit(None, pl.Float64).alias(name))
        return [list(row) for row in table.select(columns).iter_rows()]

    def rows(self, name: str, regressor: Predictor) -> Array:
        """Return the inputs of a regressor: weights, and sizes if it supports them."""
        return self.sizes.rows(name, regressor, self.weights_ND)

    def fitted(self, name: str) -> Predictor:
        """Fit a regressor by name to all trials, with the same seed each time."""
        regressor = self.make(name)
        return fit_regressor(name, regressor, self.rows(name, regressor), self.losses_NM)


def thin_evidence(weights_ND: Array, domains: Sequence[str]) -> str | None:
    """Return a line on what trials of fewer mixtures than domains can tell; None for enough.

    A domain is measured if the trials identify the effect of its share apart from all others.
    """
    different_KD = np.unique(weights_ND.round(4), axis=0)
    count = len(domains)
    if len(different_KD) >= count:
        return None
    centred_KD = different_KD - different_KD.mean(axis=0)
    contrasts_DD = (count * np.eye(count) - 1.0) / np.sqrt(count * (count - 1.0))
    identified_D = ((contrasts_DD @ np.linalg.pinv(centred_KD) @ centred_KD) ** 2).sum(axis=1)
    separable = [domains[d] for d in np.flatnonzero(identified_D >= MIN_IDENTIFIED).tolist()]
    measured = f"{first_few(separable, MAX_NAMED)} alone" if separable else "no domain alone"
    return (
        f"{len(different_KD)} mixtures cannot tell {count} domains apart: they measure"
        f" {measured}, and the rest is what domains usually do for their own losses"
    )
