"""The table of trials: mixtures and their losses.

One row for each trial. Columns: trial, role, seed, status, reason, mixture (fingerprint),
weight/<domain> ..., loss/<evaluation domain> ... (nats per token), bpb/<evaluation domain> ...
(bits per byte), task/<task>/<metric> ..., tokens, parameters, proxy, seconds, round. A finished
trial has losses in at least one unit; metrics of tasks have their own units. A trial that failed or
diverged keeps its row with the reason, and has null losses, never 0.

Mixtures and losses are joined by the trial's name, never by row order: a missing, repeated or extra
name is an error that names it. Rows are in the order of the mixtures.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from mixopt.errors import TrialsError, did_you_mean
from mixopt.mixture import DomainContent, Phases
from mixopt.system import (
    Array,
    check_names,
    check_path,
    checked_as,
    parse_json,
    read_table,
    steady_progress,
    write_table,
)
from mixopt.trials.columns import (
    HAS_LOSSES,
    PREFIX,
    WEIGHT,
    Unit,
    check_losses,
    check_once,
    check_values,
    listed,
    loss_column,
    loss_names,
    named,
    schema,
    table_of,
)
from mixopt.trials.trial import Trial, TrialResult

if TYPE_CHECKING:
    from mixopt.fitting import Backtest, Fit, ModelSize, ObjectiveLike
    from mixopt.objective import Direction, Scale
    from mixopt.reporting import TrialPlots
    from mixopt.trials.reindexing import Parts

# Keys in the metadata of Parquet:
CONTENTS = "mixopt:domains"
PHASED = "mixopt:phases"
QUESTIONS = "mixopt:items"


@dataclass(frozen=True, eq=False)
class Trials:
    """A checked table of trials.

    Attributes:
        table: The rows, in the columns of this module's docstring.
        domains: Names of the domains, in order.
        targets: Names of the evaluation domains, in order.
        notes: Notes on how the table was made, one line each.
        items: Number of questions of each metric that is a share of right answers, from columns
            `items/<metric>`.
        contents: Hash and tokens of each training domain, if known.
        is_phased: Whether the first parts of the domains' names are phases of the training.

    Raises:
        TrialsError: A column is missing or of another type, a name is invalid, a trial appears
            twice, weights are not a mixture, or a finished trial lacks a finite loss.

    Examples:
        >>> run.trials
        Trials(12 finished; 2 domains, 3 losses)
        >>> run.trials.finished.weights().shape
        (12, 2)
    """

    table: pl.DataFrame
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...] = ()
    items: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, DomainContent] = field(default_factory=dict)
    is_phased: bool = False

    def __post_init__(self) -> None:
        expected = schema(self.domains, self.targets)
        for name in expected:
            if name not in self.table.columns:
                raise TrialsError(f"no column {name!r} in the table of trials")
            if self.table[name].dtype.is_nested():
                raise TrialsError(f"column {name!r} of the table of trials holds no plain values")
        try:
            table = self.table.select(list(expected)).cast(pl.Schema(expected)).rechunk()
        except pl.exceptions.PolarsError as error:
            raise TrialsError(" ".join(str(error).split())[:300]) from error
        object.__setattr__(self, "table", table)
        for name in self.domains:
            check_path(name, "domain", TrialsError)
        check_losses(self.targets)
        check_names(self.table["trial"], "trial", TrialsError)
        check_once(self.table["trial"].to_list(), "the table of trials")
        check_values(table, self.domains, self.targets)

    @classmethod
    def from_results(
        cls,
        trials: Sequence[Trial],
        results: Iterable[TrialResult],
        *,
        proxy: str,
        targets: Sequence[str] | None = None,
    ) -> Trials:
        """Join trials with their results by name.

        Args:
            trials: The trials, in the order of the rows.
            results: One for each trial, in any order.
            proxy: Name of the proxy.
            targets: Names of the evaluation domains; None: those of the results.

        Raises:
            TrialsError: A result is missing, repeated or of no trial; or finished trials have
                different evaluation domains.
        """
        table = table_of(trials, list(results), proxy, targets)
        return cls(table, named(table, WEIGHT), loss_names(table))

    @classmethod
    def from_csv(
        cls,
        mixtures: str | Path,
        losses: str | Path | None = None,
        *,
        tolerance: float = 0.01,
        key: str | None = None,
        unit: Unit = "nats_per_token",
        ignore: Sequence[str] = (),
        drop_incomplete: bool = False,
    ) -> Trials:
        """Read published or exported tables of mixtures and losses, CSV or Parquet.

        Args:
            mixtures: The mixtures; or, without `losses`, one table of both as exported by MLflow
                or W&B (mixopt.trials.published_tables).
            losses: The losses.
            tolerance: How far the sum of weights may be from 1.
            key: Column to join by; None: found by its name and values.
            unit: Unit of the losses.
            ignore: Columns that are neither weights nor losses.
            drop_incomplete: Drop rows with missing numbers.

        Raises:
            TrialsError: A table cannot be read; the message names file, row and column.
        """
        from mixopt.trials.published_tables import read_trials

        return read_trials(
            Path(mixtures),
            None if losses is None else Path(losses),
            tolerance=tolerance,
            key=key,
            unit=unit,
            ignore=ignore,
            drop_incomplete=drop_incomplete,
        )

    @classmethod
    def read(cls, path: str | Path) -> Trials:
        """Read a table that `write` wrote.

        Raises:
            TrialsError: The file cannot be read or is not a table of trials.
        """
        table = read_table(Path(path), error=TrialsError)
        with Path(path).open("rb") as stream:  # polars refuses some names of files
            metadata = pl.read_parquet_metadata(stream)
        contents = checked_as(
            dict[str, DomainContent],
            parse_json(metadata.get(CONTENTS, "{}"), f"{path}: {CONTENTS}", error=TrialsError),
            f"{path}: {CONTENTS}",
            TrialsError,
        )
        items = checked_as(
            dict[str, int],
            parse_json(metadata.get(QUESTIONS, "{}"), f"{path}: {QUESTIONS}", error=TrialsError),
            f"{path}: {QUESTIONS}",
            TrialsError,
        )
        try:
            return cls(
                table,
                named(table, WEIGHT),
                loss_names(table),
                items=items,
                contents=contents,
                is_phased=PHASED in metadata,
            )
        except TrialsError as error:
            raise TrialsError(f"{path}: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write the table as Parquet, atomically; equal tables give equal bytes."""
        metadata = {}
        if self.contents:
            metadata[CONTENTS] = json.dumps(self.contents)
        if self.items:
            metadata[QUESTIONS] = json.dumps(dict(self.items))
        if self.is_phased:
            metadata[PHASED] = "true"
        write_table(Path(path), self.table, metadata)

    def fit(
        self,
        *,
        regressors: str | Sequence[str] = (),
        objective: ObjectiveLike | None = None,
        direction: Mapping[str, Direction] | None = None,
        scale: Scale = "none",
        unit: Unit | None = None,
        size: ModelSize | Mapping[str, float] | None = None,
        inventory: Mapping[str, float] | str | Path | None = None,
        pilots: Trials | None = None,
        carried: Trials | None = None,
        seed: int = 0,
    ) -> Fit:
        """Fit regressors to these trials, and choose one by cross-validation, as `mixopt fit` does.

        A constant loss is left out with a note, unless it is requested.

        Args:
            regressors: Names of competing regressors, or one name; empty: the default ones.
            objective: A loss by name, several losses (their mean), weights by name, or an
                `Objective`; None: the mean of all losses.
            direction: `higher` for each metric of which higher is better.
            scale: `spread` to divide each loss of a mean by its standard deviation over the trials.
            unit: Unit of the fit; None: nats per token if available.
            size: `parameters` and `tokens` to predict at, from trials of several sizes; uses the
                regressor `scaling` unless another is named.
            inventory: Distinct tokens of each domain, or a YAML file with them, for regressors that
                model epochs.
            pilots: A few runs at the target size, which correct the fit to it.
            carried: Trials of an earlier corpus on these domains (`Trials.reindex`): `auto` weighs
                them by the held-out errors of these trials, loss by loss.
            seed: Seed of folds and regressors.

        Raises:
            TrialsError: The trials or the pilots cannot be fitted.
            ConfigError: An invalid argument, such as an unknown loss.
            PluginError: An unknown or failing regressor.
        """
        from mixopt import fitting

        trials, resolved = fitting.prepared(self, objective, direction, scale, unit)
        return fitting.fit_table(
            trials,
            resolved,
            regressors=regressors,
            size=size,
            inventory=inventory,
            pilots=pilots,
            carried=carried,
            seed=seed,
        )

    def backtest(
        self,
        *,
        regressors: str | Sequence[str] = (),
        objective: ObjectiveLike | None = None,
        direction: Mapping[str, Direction] | None = None,
        scale: Scale = "none",
        unit: Unit | None = None,
        seed: int = 0,
    ) -> Backtest:
        """Backtest on these trials: what would fewer have picked, and how good was the pick?

        Args:
            regressors: Names of regressors to test; empty: `auto`.
            objective: The objective (as in `fit`).
            direction: `higher` for each metric of which higher is better.
            scale: `spread` to divide each loss of a mean by its standard deviation over the trials.
            unit: Unit of the losses; None: nats per token if available.
            seed: Seed of splits and regressors.

        Returns:
            Rank correlations, coverage, and rank and regret of the pick on held-out trials, by
            number of trials, beside ridge, RegMix's LightGBM, Olmix's law and controls.

        Raises:
            TrialsError: Too few trials, or a constant objective.
            ConfigError: An invalid argument, such as an unknown loss.
            PluginError: An unknown or failing regressor.
        """
        from mixopt import fitting

        names = (regressors,) if isinstance(regressors, str) else tuple(regressors)
        trials, resolved = fitting.prepared(self, objective, direction, scale, unit)
        with steady_progress("backtest", 1.0) as update:
            return fitting.backtest_trials(
                trials, resolved, regressors=names, seed=seed, update=update
            )

    def __len__(self) -> int:
        """Count the trials."""
        return self.table.height

    def __repr__(self) -> str:
        """Return counts of trials by status, of domains and of losses."""
        counts = f"{len(self.domains)} domains, {len(self.targets)} losses"
        return f"Trials({_status_counts(self)}; {counts})"

    def frame(self, objective: ObjectiveLike | None = None) -> pl.DataFrame:
        """Return the trials with losses as a table, best first, in the unit of the objective.

        Args:
            objective: The objective (as in `fit`), such as `run.objective`; None: the mean of all
                losses.

        Returns:
            `trial`, `role`, `status`, `objective`, the share of each domain, and each loss; those
            of stopped trials are estimates.

        Examples:
            >>> run.trials.frame(run.objective).columns[:4]
            ['trial', 'role', 'status', 'objective']
        """
        from mixopt import fitting
        from mixopt.trials import settled

        unit, finished = fitting.fit_unit(self, objective, None, "none", None), self.finished
        resolved = settled(fitting.objective_over(finished.targets, objective, unit=unit), finished)
        names = [WEIGHT + name for name in self.domains]
        names += [loss_column(name, unit) for name in self.targets]
        values_N = resolved.turned_value(resolved.value(resolved.losses(finished)))
        values = pl.Series("objective", values_N)
        table = finished.table.select("trial", "role", "status", values, *names)
        return table.sort("objective", descending=resolved.is_higher)

    @property
    def plot(self) -> TrialPlots:
        """Their figures: `trials.plot.design()` (mixopt.reporting.plots)."""
        from mixopt.reporting import TrialPlots

        return TrialPlots(self)

    @cached_property
    def finished(self) -> Trials:
        """The trials with losses: finished, or stopped early with estimates of their end.

        Raises:
            TrialsError: No trial has finished.
        """
        finished = self.table.filter(HAS_LOSSES)
        if finished.is_empty():
            first = self.table.row(0, named=True) if len(self) else {}
            reason = f"; trial {first['trial']!r}: {first['reason']}" if first else ""
            raise TrialsError(f"none of {len(self)} trials finished{reason}")
        return replace(self, table=finished)

    @property
    def full_length(self) -> Trials:
        """The trials that trained to the end."""
        finished = self.finished.table
        return replace(self, table=finished.filter(finished["status"] == "finished"))

    @property
    def unit(self) -> Unit:
        """Nats per token if losses have that unit, else bits per byte."""
        return "nats_per_token" if self.has("nats_per_token") else "bits_per_byte"

    def has(self, unit: Unit) -> bool:
        """Return whether every finished trial has its losses in this unit."""
        finished = self.table.filter(HAS_LOSSES)
        return not any(finished[loss_column(name, unit)].null_count() for name in self.targets)

    def with_targets(self, targets: Sequence[str]) -> Trials:
        """Return the trials with some of their evaluation domains.

        Raises:
            TrialsError: An unknown evaluation domain.
        """
        for name in targets:
            if name not in self.targets:
                near = did_you_mean(name, self.targets)
                raise TrialsError(f"the trials have no evaluation domain {name!r}{near}")
        items = {name: self.items[name] for name in targets if name in self.items}
        return replace(self, targets=tuple(targets), items=items)

    def joined(self, other: Trials) -> Trials:
        """Return these trials and others on the same domains, with the common targets.

        Raises:
            TrialsError: Other domains, no common target, or a trial's name in both.
        """
        for name in (*self.domains, *other.domains):
            if name not in self.domains or name not in other.domains:
                raise TrialsError(f"domain {name!r} is in one table alone; reindex the other first")
        targets = [name for name in self.targets if name in other.targets]
        if not targets:
            raise TrialsError("the tables have no evaluation domain in common")
        notes = [*self.notes, *other.notes]
        unshared = [name for name in (*self.targets, *other.targets) if name not in targets]
        if unshared:
            notes.append(f"left out {listed(unshared)}: losses of only one table")
        columns = list(schema(self.domains, targets))
        table = pl.concat([self.table.select(columns), other.table.select(columns)])
        items = {name: self.items[name] for name in targets if name in self.items}
        return replace(
            self,
            table=table,
            targets=tuple(targets),
            notes=tuple(notes),
            items=items,
            contents={},
        )

    def reindex(
        self,
        *,
        split: Mapping[str, Parts] | None = None,
        merge: Mapping[str, Sequence[str]] | None = None,
        freeze: Mapping[str, Parts] | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        inventory: Mapping[str, float] | None = None,
        tolerance: float = 0.02,
    ) -> Trials:
        """Return the trials on other domains, with assumptions in the notes.

        Args:
            split: Split domains: the drawn share of each part, or the parts' names, for the shares
                of `inventory`.
            merge: New domains with the old ones that they merge; a single old one is renamed.
            freeze: New domains with fixed inner shares, or those of `inventory`. Trials with other
                shares are left out.
            add: New domains.
            remove: Removed domains. Trials that used them are left out, the others rescaled.
            inventory: Tokens of domains and parts by name.
            tolerance: Maximum total variation of a trial from an assumption, 0 to 1.

        Raises:
            TrialsError: A domain is unknown or changed twice, or no trial is left.
        """
        from mixopt.trials.reindexing import reindexed

        return reindexed(
            self,
            split=split,
            merge=merge,
            freeze=freeze,
            add=add,
            remove=remove,
            inventory=inventory,
            tolerance=tolerance,
        )

    def with_notes(self, *notes: str) -> Trials:
        """Return the trials with additional notes."""
        return replace(self, notes=(*self.notes, *notes))

    @property
    def phases(self) -> Phases | None:
        """The phases of mixtures of cells `<phase>/<domain>`; None without phases."""
        phases = Phases.detect(self.domains, self.weights())
        return phases if phases and (self.is_phased or phases.are_numbered) else None

    @property
    def mixtures(self) -> list[str]:
        """Fingerprint of each trial's mixture; equal ones belong to one fold."""
        return self.table["mixture"].to_list()

    def weights(self) -> Array:
        """Return the mixtures, shape (N, D); rows add up to 1."""
        columns = self.table.select([WEIGHT + name for name in self.domains])
        return columns.to_numpy().astype(float)

    def losses(self, unit: Unit = "nats_per_token") -> Array:
        """Return the held-out losses, shape (N, M).

        Raises:
            TrialsError: A trial has no losses (see `finished`) or none in this unit.
        """
        columns = self.table.select([loss_column(name, unit) for name in self.targets])
        if sum(columns.null_count().row(0)):
            raise TrialsError(self._why_empty(columns, unit))
        return columns.to_numpy().astype(float)

    def __eq__(self, other: object) -> bool:
        """Compare by content, without notes."""
        return isinstance(other, Trials) and self.table.equals(other.table)

    __hash__ = None  # type: ignore[assignment]

    def _why_empty(self, columns: pl.DataFrame, unit: Unit) -> str:
        if self.table.select(HAS_LOSSES.all()).item():
            (other_unit,) = PREFIX.keys() - {unit}
            return f"these trials have no losses in {unit}; set objective.unit: {other_unit}"
        is_missing = columns.select(pl.any_horizontal(pl.all().is_null())).to_series()
        trial = self.table.filter(is_missing).row(0, named=True)
        return (
            f"trial {trial['trial']!r} is {trial['status']} and has no losses; use only the"
            " finished ones"
        )


def _status_counts(trials: Trials) -> str:
    """Return counts by status: `28 finished, 2 failed`."""
    counts = Counter(trials.table["status"])
    others = sorted(status for status in counts if status != "finished")
    order = [status for status in ("finished", *others) if counts[status]]
    return ", ".join(f"{counts[status]} {status}" for status in order) or "no trials"
