"""The rows of a table of trials: its columns, and joining trials with their results by name."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from mixopt.config import TASK, task_metric
from mixopt.corpus import DomainContent
from mixopt.errors import ConfigError, TrialsError, did_you_mean
from mixopt.system import Array, check_path, first_few
from mixopt.trials.proxy import Losses, Trial, TrialResult

Unit = Literal["nats_per_token", "bits_per_byte"]
WEIGHT, LOSS, BPB = "weight/", "loss/", "bpb/"
ITEMS = "items/"  # columns with the number of questions of a metric
PREFIX: dict[Unit, str] = {"nats_per_token": LOSS, "bits_per_byte": BPB}
MAX_LOSS = 1e100  # absolute value; its square must be finite
HAS_LOSSES = pl.col("status").is_in(["finished", "stopped"])
MAX_SIZE = 1 << 53  # tokens or parameters, exact in a float
RESULT = ("trial", "status", "reason", "tokens", "parameters", "seconds")  # of a result's fields
HEAD: dict[str, Any] = {
    "trial": pl.String,
    "role": pl.String,
    "seed": pl.Int64,
    "status": pl.String,
    "reason": pl.String,
    "mixture": pl.String,
}
TAIL: dict[str, Any] = {
    "tokens": pl.Int64,
    "parameters": pl.Int64,
    "proxy": pl.String,
    "seconds": pl.Float64,
    "round": pl.Int32,
}


@dataclass(frozen=True, eq=False)
class TrialRows:
    """Rows of trials with the names of their columns; `Trials` adds checks."""

    table: pl.DataFrame
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    items: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, DomainContent] = field(default_factory=dict)
    is_phased: bool = False

    def weights(self) -> Array:
        """Return the mixtures, shape (N, D); rows add up to 1."""
        columns = self.table.select([WEIGHT + name for name in self.domains])
        return columns.to_numpy().astype(float)

    def __len__(self) -> int:
        """Count the trials."""
        return self.table.height


def schema(domains: Sequence[str], targets: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a table of trials and their types, in order."""
    weights = [WEIGHT + name for name in domains]
    losses = [loss_column(name, unit) for unit in PREFIX for name in targets]
    return {**HEAD, **dict.fromkeys(weights + losses, pl.Float64), **TAIL}


def loss_column(name: str, unit: Unit) -> str:
    """Return the column of a loss; a task's metric is its own column."""
    if unit not in PREFIX:
        raise ConfigError(f"unit {unit}: unknown{did_you_mean(unit, PREFIX)}")
    return name if name.startswith(TASK) else PREFIX[unit] + name


def loss_names(table: pl.DataFrame) -> tuple[str, ...]:
    """Return the names of losses from the columns: evaluation domains, then tasks."""
    return (*named(table, LOSS), *(column for column in table.columns if column.startswith(TASK)))


def named(table: pl.DataFrame, prefix: str) -> tuple[str, ...]:
    """Return the names of columns with `prefix`, without it, in order."""
    return tuple(c.removeprefix(prefix) for c in table.columns if c.startswith(prefix))


def table_of(
    trials: Sequence[Trial],
    results: Sequence[TrialResult],
    proxy: str,
    targets: Sequence[str] | None,
) -> pl.DataFrame:
    """Return a table with a row for each trial, joined with its result by name."""
    if not trials:
        raise TrialsError("a table of trials needs at least one trial")
    names = [trial.name for trial in trials]
    check_once(names, "the design")
    check_once([result.trial for result in results], "the results")
    by_name = {result.trial: result for result in results}
    check_same(names, by_name, "the design", "the results")
    pairs = [(trial, by_name[trial.name]) for trial in trials]
    domains = trials[0].mixture.domains
    losses = {r.trial: r.losses for _, r in pairs if not r.has_failed and r.losses}
    tasks = tuple(
        dict.fromkeys(name for trial_losses in losses.values() for name in trial_losses.tasks)
    )
    if targets is None:
        targets = (*_common_targets(losses), *tasks)
    targets = [name for name in targets if name in tasks or not name.startswith(TASK)]
    rows = []
    for trial, result in pairs:
        if set(trial.mixture) != set(domains):
            odd = sorted(set(trial.mixture) ^ set(domains))
            raise TrialsError(f"trial {trial.name!r}: other domains than the rest: {listed(odd)}")
        row = {name: getattr(trial, name) for name in ("role", "seed", "round")}
        row |= {n: getattr(result, n) for n in RESULT}
        row |= {"mixture": trial.mixture.fingerprint, "proxy": proxy}
        row |= {WEIGHT + name: trial.mixture[name] for name in domains}
        trial_losses = losses.get(trial.name, Losses(0, {}, {}))
        for unit in PREFIX:
            unit_losses = getattr(trial_losses, unit) | trial_losses.tasks
            row |= {loss_column(name, unit): unit_losses.get(name) for name in targets}
        rows.append(row)
    return pl.DataFrame(rows, schema=schema(domains, targets))


def _common_targets(losses: Mapping[str, Losses]) -> tuple[str, ...]:
    """Return the evaluation domains common to all finished trials; raise TrialsError for others."""
    targets = next((tuple(trial_losses.nats_per_token) for trial_losses in losses.values()), ())
    for trial, trial_losses in losses.items():
        if odd := sorted(set(trial_losses.nats_per_token) ^ set(targets)):
            raise TrialsError(
                f"trial {trial!r}: other evaluation domains than the rest: {listed(odd)}"
            )
    return targets


def check_once(names: Iterable[str], where: str) -> None:
    """Raise TrialsError if a name appears twice."""
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise TrialsError(f"{where}: more than one row for {listed(doubled)}")


def check_losses(names: Iterable[str]) -> None:
    """Check the names of losses; for a task's metric, the names of task and metric."""
    for name in names:
        for part in task_metric(name) or (name,):
            check_path(part, "evaluation domain", TrialsError)


def check_values(rows: TrialRows) -> None:
    """Check the values of a table: mixtures, losses and sizes."""
    table, weights_ND = rows.table, rows.weights()
    names = table["trial"].to_list()
    for name, mixture in zip(names, table["mixture"], strict=True):
        if mixture is None:
            raise TrialsError(f"trial {name!r}: has no fingerprint of its mixture")
    odd_ND = ~(np.isfinite(weights_ND) & (weights_ND >= 0))
    for row, column in np.argwhere(odd_ND)[:1]:
        raise TrialsError(
            f"trial {names[row]!r}: weight of {rows.domains[column]!r} is"
            f" {weights_ND[row, column]}; need >= 0"
        )
    sums_N = weights_ND.sum(axis=1)
    for row in np.flatnonzero(np.abs(sums_N - 1) > 1e-6)[:1]:
        raise TrialsError(f"trial {names[row]!r}: weights add up to {sums_N[row]:.6g}, not 1")
    _check_finished(table.filter(HAS_LOSSES), rows.targets)
    for column in ("tokens", "parameters"):
        bad = table.filter(~pl.col(column).is_between(0, MAX_SIZE))
        if len(bad):
            raise TrialsError(
                f"trial {bad['trial'][0]!r}: {column} is {bad[column][0]}; need a number from 0"
                f" to {MAX_SIZE}"
            )


def _check_finished(finished: pl.DataFrame, targets: Sequence[str]) -> None:
    """Check that finished trials have every loss in at least one unit, with valid values."""
    if finished.is_empty() or not targets:
        return
    by_unit = [finished.select([loss_column(name, unit) for name in targets]) for unit in PREFIX]
    none = [columns.select(pl.all().is_null()).to_numpy() for columns in by_unit]
    for columns, none_NM in zip(by_unit, none, strict=True):
        values_NM = columns.to_numpy().astype(float)
        is_odd_NM = np.where(none_NM, none[0] & none[1], ~(np.abs(values_NM) <= MAX_LOSS))
        for row, target in np.argwhere(is_odd_NM)[:1].tolist():
            raise TrialsError(
                f"trial {finished['trial'][row]!r}: is finished but its loss on {targets[target]!r}"
                f" is {columns[row, target]}; a trial without losses is 'failed' or 'diverged'"
            )


def check_same(
    left: Iterable[str], right: Iterable[str], left_place: str, right_place: str
) -> None:
    """Raise TrialsError unless two tables have rows of the same names."""
    left_names, right_names = dict.fromkeys(left), dict.fromkeys(right)
    missing = [name for name in left_names if name not in right_names]
    extra = [name for name in right_names if name not in left_names]
    problems = [f"{listed(missing)} only in {left_place}"] if missing else []
    problems += [f"{listed(extra)} only in {right_place}"] if extra else []
    if problems:
        raise TrialsError(f"rows cannot be joined: {'; '.join(problems)}")


def listed(names: Sequence[str], max_names: int = 5) -> str:
    """Return a text with the first names, and the number of further ones."""
    return first_few([repr(name) for name in names], max_names)
