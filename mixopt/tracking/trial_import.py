"""Trials from runs that are in MLflow: those that mixopt tracked, or others' by their prefixes.

mixopt's own are the children of a sweep's parent run: `weight/<domain>` among the parameters,
`loss/<evaluation domain>` and `bpb/<evaluation domain>` among the metrics (mixopt.tracking). For
runs of another tool, say which prefixes of parameters or metrics are weights and losses. A run
that did not finish, or lacks a loss, is a failed trial with its reason; a run without weights is
no trial, and is named in the notes. One name for two finished runs is an error.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mixopt.config import TASK
from mixopt.errors import ConfigError, MixtureError, RunError, TrialsError
from mixopt.mixture import Mixture
from mixopt.system import Say, silent, without_secrets
from mixopt.tracking.keys import names_of
from mixopt.tracking.reading import LoggedRun, read_runs
from mixopt.trials import (
    LOSS,
    LOSS_SUFFIXES,
    PREFIX,
    WEIGHT,
    Trials,
    Unit,
    listed,
    loss_column,
    schema,
    without_affixes,
)

COMMON = 0.5  # a loss that fewer of the finished runs have is none of the sweep's
Names = Mapping[str, str]


@dataclass(frozen=True)
class RunLayout:
    """Where an experiment keeps weights and losses.

    Attributes:
        weights: Prefix of parameters or metrics that are weights.
        losses: Prefix of metrics that are losses.
        unit: Unit of these losses; nats per token when None. mixopt's own say theirs.
        tolerance: How far from 1 weights may add up; they are rescaled.
        by_id: Whether trials are called by MLflow's ids.
    """

    weights: str = WEIGHT
    losses: str = LOSS
    unit: Unit | None = None
    tolerance: float = 0.01
    by_id: bool = False

    def __post_init__(self) -> None:
        for option, prefix in (("--weight-prefix", self.weights), ("--loss-prefix", self.losses)):
            if not prefix:
                raise ConfigError(f"{option}: must not be empty; every name would match")

    def prefixes(self, *, ours: bool) -> dict[Unit, str]:
        """Return the prefix of the losses of each unit.

        Raises:
            ConfigError: Another unit is stated for losses that say theirs.
        """
        if not ours or self.losses != LOSS:
            return {self.unit or "nats_per_token": self.losses}
        if self.unit is not None:
            raise ConfigError("--unit: leave it out, mixopt's runs have losses in both units")
        return dict(PREFIX)


def import_trials(
    uri: str,
    experiment: str,
    out: str | Path,
    *,
    layout: RunLayout = RunLayout(),
    run: str | None = None,
    say: Say = silent,
) -> tuple[Trials, Path]:
    """Read an experiment's runs and keep them as a table of trials.

    Args:
        uri: Tracking server or database; a database file, or a folder with `mlflow.db`.
        experiment: Its name.
        out: A `.parquet` file, or a folder for `trials.parquet`; it must not hold a run.
        layout: Where weights and losses are.
        run: Name or id of the parent run; needed where there are several sweeps.
        say: Called with a line about what happens.

    Returns:
        The trials, and the file.

    Raises:
        ConfigError: There is no such store or experiment, or the parent run is not clear.
        TrialsError: No run has weights, or a run cannot be a trial.
        RunError: The folder is a run directory.
    """
    out = Path(out)
    path = out if out.suffix == ".parquet" else out / "trials.parquet"
    if (path.parent / "config.yaml").exists():
        raise RunError(f"{path.parent}: is the directory of a run; use another --out")
    say(f"import: reading experiment {experiment!r} of {without_secrets(uri)}")
    trials = trials_of(read_runs(uri, experiment), layout, run)
    trials.write(path)
    return trials, path


def trials_of(
    runs: Sequence[LoggedRun],
    layout: RunLayout = RunLayout(),
    run: str | None = None,
) -> Trials:
    """Return the runs that are trials as a table, in the order of their names.

    Args:
        runs: All runs of an experiment.
        layout: Where weights and losses are.
        run: Name or id of the parent run; needed where there are several sweeps.

    Raises:
        ConfigError: The parent run is not clear.
        TrialsError: No run has weights, or a run cannot be a trial.
    """
    ours = any("mixopt.trial" in one.tags for one in runs)
    parent = _parent(runs, run, ours=ours)
    inside = [one for one in runs if parent is None or one.parent == parent.id]
    entries = [_NamedRun.of(one, layout, ours=ours) for one in inside]
    notes = _without_weights(entries, layout)
    chosen, more = _one_for_each_name([one for one in entries if one.weights])
    domains = tuple(sorted({name for one in chosen for name in one.weights}))
    targets, left_out = _targets(chosen)
    proxy = parent.params.get("proxy") if parent and ours else None
    rows = [one.row(domains, targets, proxy, layout.tolerance) for one in chosen]
    table = pl.DataFrame(rows, schema=schema(domains, targets))
    return Trials(table, domains, targets, (*notes, *more, *left_out))


@dataclass(frozen=True)
class _NamedRun:
    """A run, with its weights and losses under their own names."""

    run: LoggedRun
    name: str
    weights: dict[str, float]
    losses: dict[Unit, dict[str, float]]

    @classmethod
    def of(cls, run: LoggedRun, layout: RunLayout, *, ours: bool) -> _NamedRun:
        names = names_of(run.tags) if ours else {}
        values = {**run.metrics, **run.params}
        weights = {
            name: _number(run, layout.weights, name, value)
            for name, value in _under(layout.weights, values, names).items()
        }
        tasks = {names.get(m, m): v for m, v in run.metrics.items() if m.startswith(TASK)}
        losses = {
            unit: _plain(_under(prefix, run.metrics, names), ours=ours) | tasks
            for unit, prefix in layout.prefixes(ours=ours).items()
        }
        return cls(run, run.id if layout.by_id else run.name, weights, losses)

    @property
    def finished(self) -> bool:
        """Whether the run says that it finished."""
        return self.run.tags.get("mixopt.status", self.run.status.lower()) == "finished"

    def measured(self) -> set[str]:
        """Names of its losses, in any unit."""
        return {name for losses in self.losses.values() for name in losses}

    def row(
        self, domains: Sequence[str], targets: Sequence[str], proxy: str | None, tolerance: float
    ) -> dict[str, Any]:
        """Return the row of the table of trials."""
        mixture = self._mixture(domains, tolerance)
        status, reason = self._status(targets)
        numbers = self.losses if status == "finished" else {}
        losses = {
            loss_column(name, unit): found[name]
            for unit, found in numbers.items()
            for name in targets
            if name in found
        }
        run = self.run
        return {
            "trial": self.name,
            "role": run.params.get("role", "sampled"),
            "seed": _integer(run.params.get("seed")),
            "status": status,
            "reason": reason,
            "mixture": mixture.fingerprint,
            **{WEIGHT + name: mixture[name] for name in domains},
            **{loss_column(name, unit): None for unit in PREFIX for name in targets},
            **losses,
            "tokens": _integer(self._total("tokens")),
            "parameters": _integer(self._total("parameters")),
            "proxy": proxy,
            "seconds": self._total("seconds"),
            "round": _integer(run.params.get("round")),
        }

    def _total(self, name: str) -> float | None:
        """Return what a trial took; older records have no group of these."""
        return self.run.metrics.get(f"trial/{name}", self.run.metrics.get(name))

    def _mixture(self, domains: Sequence[str], tolerance: float) -> Mixture:
        weights = {name: self.weights.get(name, 0.0) for name in domains}
        try:
            return Mixture(weights, tolerance=tolerance)
        except MixtureError as error:
            said = str(error).replace("pass tolerance=", "allow it: --tolerance ")
            raise TrialsError(f"run {self.run.name!r} ({self.run.id}): {said}") from error

    def _status(self, targets: Sequence[str]) -> tuple[str, str | None]:
        if not self.finished:
            status = self.run.tags.get("mixopt.status", "failed")
            reason = self.run.tags.get("mixopt.reason", f"is {self.run.status} in MLflow")
            return status, reason
        for name in targets:
            found = [losses[name] for losses in self.losses.values() if name in losses]
            if not found:
                return "failed", f"has no loss on {name!r}"
            bad = [value for value in found if not math.isfinite(value)]
            if bad:
                return "failed", f"its loss on {name!r} is {bad[0]}"
        return "finished", None


def _parent(runs: Sequence[LoggedRun], asked: str | None, *, ours: bool) -> LoggedRun | None:
    """Return the run whose children are trials; None where all runs may be."""
    if asked is None and not ours:
        return None
    wanted = "sweep" if asked is None else asked
    found = [run for run in runs if wanted in (run.id, run.name)]
    if asked is None:
        found = [run for run in runs if run.tags.get("mixopt.step") == wanted]
    if len(found) == 1:
        return found[0]
    known = found or [run for run in runs if run.parent is None]
    options = ", ".join(f"{run.id} ({run.name})" for run in known[:8])
    what = "several runs are" if found else "no run is"
    raise ConfigError(f"--run: {what} called {wanted!r}; give the id of one: {options}")


def _without_weights(entries: Sequence[_NamedRun], layout: RunLayout) -> list[str]:
    bare = [one.run.name for one in entries if not one.weights]
    if len(bare) == len(entries):
        raise TrialsError(
            f"no run has a parameter or metric that starts with {layout.weights!r}; say what the"
            " weights start with: --weight-prefix"
        )
    return [f"{len(bare)} runs have no weights and are no trials: {listed(bare)}"] if bare else []


def _one_for_each_name(entries: Sequence[_NamedRun]) -> tuple[list[_NamedRun], list[str]]:
    """Return one run a name, and a line about those that were trained again."""
    groups: dict[str, list[_NamedRun]] = {}
    for one in entries:
        groups.setdefault(one.name, []).append(one)
    chosen, notes = [], []
    for name, group in sorted(groups.items()):
        finished = [one for one in group if one.finished]
        if len(finished) > 1:
            ids = ", ".join(one.run.id for one in finished)
            raise TrialsError(
                f"{len(finished)} finished runs are called {name!r} ({ids}): delete all but one in"
                " MLflow, or call trials by their ids: --by-id"
            )
        chosen.append((finished or group)[-1])
        if len(group) > 1:
            which = "the finished one" if finished else "the last one"
            notes.append(f"{len(group)} runs are called {name!r}; {which} is taken")
    return chosen, notes


def _targets(entries: Sequence[_NamedRun]) -> tuple[tuple[str, ...], list[str]]:
    """Return the losses that most finished runs have, and a line about the others."""
    finished = [one.measured() for one in entries if one.finished]
    counts = Counter(name for measured in finished for name in sorted(measured))
    common = [name for name, count in counts.items() if count >= COMMON * len(finished)]
    targets = tuple(sorted(common, key=lambda name: (name.startswith(TASK), name)))
    rare = [name for name in counts if name not in targets]
    if not targets:
        raise TrialsError(
            "no finished run has a loss; say what metrics of losses start with: --loss-prefix"
        )
    return targets, [f"left out {listed(rare)}, which few runs have"] if rare else []


def _under(prefix: str, values: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return what starts with a prefix, by its name."""
    found = {key.removeprefix(prefix): v for key, v in values.items() if key.startswith(prefix)}
    return {names.get(name, name): value for name, value in found.items() if name}


def _plain(losses: dict[str, float], *, ours: bool) -> dict[str, float]:
    if ours or not losses:
        return losses
    return dict(zip(without_affixes(list(losses), (), LOSS_SUFFIXES), losses.values(), strict=True))


def _number(run: LoggedRun, prefix: str, name: str, value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise TrialsError(
            f"run {run.name!r} ({run.id}): {prefix}{name} is {value!r}, not a number; narrow"
            " --weight-prefix to weights"
        ) from None


def _integer(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        return None
