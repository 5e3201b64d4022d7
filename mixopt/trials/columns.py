"""The columns of a table of trials, checks of their values, and joining rows by name.

Shapes: N trials, D domains, M evaluation domains.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from mixopt.config import TASK, task_metric
from mixopt.errors import ConfigError, TrialsError, did_you_mean
from mixopt.system import check_path, first_few
from mixopt.trials.trial import Losses, Trial, TrialResult

Unit = Literal["nats_per_token", "bits_per_byte"]
WEIGHT = "weight/"
LOSS = "loss/"
BPB = "bpb/"
ITEMS = "items/"  # columns with the number of questions of a metric
PREFIX: dict[Unit, str] = {"nats_per_token": LOSS, "bits_per_byte": BPB}
MAX_LOSS = 1e100  # absolute value; its square must be finite
HAS_LOSSES = pl.col("status").is_in(["finished", "stopped"])
MAX_SIZE = 1 << 53  # tokens or parameters, exact in a float
WEIGHTS_SUM = 1e-6  # tolerance of the sum of a trial's weights
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


def schema(domains: Sequence[str], targets: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a table of trials and their types, in order."""
    columns = dict(HEAD)
    for name in domains:
        columns[WEIGHT + name] = pl.Float64
    for unit in PREFIX:
        for name in targets:
            columns[loss_column(name, unit)] = pl.Float64
    return columns | TAIL


def loss_column(name: str, unit: Unit) -> str:
    """Return the column of a loss; a task's metric is its own column."""
    if unit not in PREFIX:
        raise ConfigError(f"unit {unit}: unknown{did_you_mean(unit, PREFIX)}")
    return name if name.startswith(TASK) else PREFIX[unit] + name


def loss_names(table: pl.DataFrame) -> tuple[str, ...]:
    """Return the names of losses from the columns: evaluation domains, then tasks."""
    tasks = [column for column in table.columns if column.startswith(TASK)]
    return named(table, LOSS) + tuple(tasks)


def named(table: pl.DataFrame, prefix: str) -> tuple[str, ...]:
    """Return the names of columns with `prefix`, without it, in order."""
    columns = [column for column in table.columns if column.startswith(prefix)]
    return tuple(column.removeprefix(prefix) for column in columns)


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
    result_of = {result.trial: result for result in results}
    check_same(names, result_of, "the design", "the results")
    losses_of = {}
    for name in names:
        result = result_of[name]
        if result.losses and not result.has_failed:
            losses_of[name] = result.losses
    if targets is None:
        targets = _common_targets(losses_of)
    tasks = _tasks(losses_of)
    targets = [name for name in targets if not name.startswith(TASK) or name in tasks]
    domains = trials[0].mixture.domains
    no_losses = Losses(0, {}, {})
    rows = []
    for trial in trials:
        _check_domains(trial, domains)
        identity = _identity(trial, result_of[trial.name], proxy)
        weights = {WEIGHT + name: trial.mixture[name] for name in domains}
        losses = _loss_cells(losses_of.get(trial.name, no_losses), targets)
        rows.append(identity | weights | losses)
    return pl.DataFrame(rows, schema=schema(domains, targets))


def _check_domains(trial: Trial, domains: Iterable[str]) -> None:
    odd = sorted(set(trial.mixture) ^ set(domains))
    if odd:
        raise TrialsError(f"trial {trial.name!r}: other domains than the rest: {listed(odd)}")


def _identity(trial: Trial, result: TrialResult, proxy: str) -> dict[str, Any]:
    """Return the cells of a row that are neither weights nor losses."""
    return {
        "trial": trial.name,
        "role": trial.role,
        "seed": trial.seed,
        "status": result.status,
        "reason": result.reason,
        "mixture": trial.mixture.fingerprint,
        "tokens": result.tokens,
        "parameters": result.parameters,
        "proxy": proxy,
        "seconds": result.seconds,
        "round": trial.round,
    }


def _loss_cells(losses: Losses, targets: Sequence[str]) -> dict[str, float | None]:
    """Return the losses of a trial by column, in each unit; None where they are missing."""
    cells: dict[str, float | None] = {}
    for unit in PREFIX:
        values = getattr(losses, unit) | losses.tasks
        cells |= {loss_column(name, unit): values.get(name) for name in targets}
    return cells


def _tasks(losses_of: Mapping[str, Losses]) -> tuple[str, ...]:
    """Return the metrics of tasks that any trial has, in the order of their first appearance."""
    tasks: dict[str, None] = {}
    for losses in losses_of.values():
        tasks |= dict.fromkeys(losses.tasks)
    return tuple(tasks)


def _common_targets(losses_of: Mapping[str, Losses]) -> tuple[str, ...]:
    """Return evaluation domains and tasks; raise TrialsError if trials' evaluation differs."""
    targets: tuple[str, ...] | None = None
    for trial, losses in losses_of.items():
        if targets is None:
            targets = tuple(losses.nats_per_token)
        odd = sorted(set(losses.nats_per_token) ^ set(targets))
        if odd:
            raise TrialsError(
                f"trial {trial!r}: other evaluation domains than the rest: {listed(odd)}"
            )
    return (targets or ()) + _tasks(losses_of)


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


def check_values(table: pl.DataFrame, domains: Sequence[str], targets: Sequence[str]) -> None:
    """Check the values of a table: mixtures, losses and sizes."""
    for trial, mixture in table.select("trial", "mixture").iter_rows():
        if mixture is None:
            raise TrialsError(f"trial {trial!r}: has no fingerprint of its mixture")
    _check_weights(table, domains)
    _check_finished(table.filter(HAS_LOSSES), targets)
    for column in ("tokens", "parameters"):
        bad = table.filter(~pl.col(column).is_between(0, MAX_SIZE))
        if len(bad):
            raise TrialsError(
                f"trial {bad['trial'][0]!r}: {column} is {bad[column][0]}; need a number from 0"
                f" to {MAX_SIZE}"
            )


def _check_weights(table: pl.DataFrame, domains: Sequence[str]) -> None:
    """Check that the weights of each trial are a mixture."""
    trials = table["trial"]
    columns = [WEIGHT + name for name in domains]
    weights_ND = table.select(columns).to_numpy().astype(float)
    is_odd_ND = ~(np.isfinite(weights_ND) & (weights_ND >= 0))
    for row, column in np.argwhere(is_odd_ND)[:1].tolist():
        raise TrialsError(
            f"trial {trials[row]!r}: weight of {domains[column]!r} is"
            f" {weights_ND[row, column]}; need >= 0"
        )
    sums_N = weights_ND.sum(axis=1)
    for row in np.flatnonzero(np.abs(sums_N - 1) > WEIGHTS_SUM)[:1].tolist():
        raise TrialsError(f"trial {trials[row]!r}: weights add up to {sums_N[row]:.6g}, not 1")


def _check_finished(finished: pl.DataFrame, targets: Sequence[str]) -> None:
    """Check that finished trials have every loss in at least one unit, with valid values."""
    if finished.is_empty() or not targets:
        return
    tables = [_losses(finished, targets, unit) for unit in PREFIX]
    missing = [table.select(pl.all().is_null()).to_numpy() for table in tables]
    is_absent_NM = np.logical_and(*missing)
    for table, is_missing_NM in zip(tables, missing, strict=True):
        is_valid_NM = np.abs(table.to_numpy().astype(float)) <= MAX_LOSS
        is_odd_NM = np.where(is_missing_NM, is_absent_NM, ~is_valid_NM)
        for row, target in np.argwhere(is_odd_NM)[:1].tolist():
            raise TrialsError(
                f"trial {finished['trial'][row]!r}: is finished but its loss on {targets[target]!r}"
                f" is {table[row, target]}; a trial without losses is 'failed' or 'diverged'"
            )


def _losses(table: pl.DataFrame, targets: Sequence[str], unit: Unit) -> pl.DataFrame:
    return table.select([loss_column(name, unit) for name in targets])


def check_same(
    left: Iterable[str], right: Iterable[str], left_place: str, right_place: str
) -> None:
    """Raise TrialsError unless two tables have rows of the same names."""
    left_names = dict.fromkeys(left)
    right_names = dict.fromkeys(right)
    missing = [name for name in left_names if name not in right_names]
    extra = [name for name in right_names if name not in left_names]
    problems = []
    if missing:
        problems.append(f"{listed(missing)} only in {left_place}")
    if extra:
        problems.append(f"{listed(extra)} only in {right_place}")
    if problems:
        raise TrialsError(f"rows cannot be joined: {'; '.join(problems)}")


def listed(names: Sequence[str], max_names: int = 5) -> str:
    """Return a text with the first names, and the number of further ones."""
    return first_few([repr(name) for name in names], max_names)
