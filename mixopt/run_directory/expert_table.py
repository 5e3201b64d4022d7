"""Expert counts of a sweep's trials in one table: `experts.parquet`.

A trial has a row for each layer, where `domain` is null, and one for each domain in each layer.
Load is that of training, in the trial's mixture; what compares domains is of held-out text, as much
of each. Experts have other numbers in every trial, so that only what no renumbering changes is
compared between trials.

    of a layer            load_entropy, max_violation, dead, specialisation, has_collapsed,
                          diagnoses (in words)
    of a domain in it     share, max_violation, starved, own, distance
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mixopt.errors import RunError
from mixopt.routing import ExpertCounts, Summary
from mixopt.system import read_table, write_table
from mixopt.trials.proxy import TrialResult

SCHEMA: dict[str, Any] = {
    "trial": pl.String,
    "layer": pl.Int64,
    "router": pl.String,  # "" where each layer has one
    "domain": pl.String,
    "share": pl.Float64,
    "load_entropy": pl.Float64,
    "max_violation": pl.Float64,
    "dead": pl.Int64,
    "starved": pl.Int64,
    "specialisation": pl.Float64,
    "own": pl.Float64,
    "distance": pl.Float64,
    "has_collapsed": pl.Boolean,
    "diagnoses": pl.List(pl.String),
}
_OF_LAYER = ("layer", "router", "load_entropy", "max_violation", "dead")
_OF_TRAINING = ("domain", "layer", "router", "share", "max_violation", "starved")
_OF_TEXT = ("domain", "layer", "router", "own", "distance")


@dataclass(frozen=True, eq=False)
class TrialExperts:
    """The table of a sweep's, or a validation's, experts.

    Attributes:
        table: The rows, in the columns of `SCHEMA`.
    """

    table: pl.DataFrame

    @classmethod
    def of(cls, results: Iterable[TrialResult]) -> TrialExperts | None:
        """Return the table of trials that have experts; None where none has."""
        rows = [
            row
            for result in results
            if result.experts is not None
            for row in _rows(result.trial, result.experts)
        ]
        return cls(pl.DataFrame(rows, schema=SCHEMA)) if rows else None

    @classmethod
    def read(cls, path: Path) -> TrialExperts | None:
        """Read a table; None where there is none."""
        if not path.exists():
            return None
        try:
            return cls(read_table(path).select(list(SCHEMA)).cast(pl.Schema(SCHEMA)))
        except pl.exceptions.PolarsError as error:
            raise RunError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error

    def write(self, path: Path) -> None:
        """Write the table, at once."""
        write_table(path, self.table)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The trials in which the experts of any layer have collapsed, in their order."""
        marked = self.table.filter(pl.col("has_collapsed"))
        return tuple(marked["trial"].unique(maintain_order=True))

    def by_trial(self) -> pl.DataFrame:
        """Return one row a trial: means over layers, the worst for load, the first collapse."""
        layers = self.table.filter(pl.col("domain").is_null())
        return layers.group_by("trial", maintain_order=True).agg(
            pl.col("load_entropy").min(),
            pl.col("max_violation").max(),
            pl.col("dead").sum(),
            pl.col("specialisation").mean(),
            pl.col("has_collapsed").any(),
            pl.col("diagnoses").explode().drop_nulls().len().alias("diagnoses"),
            pl.col("diagnoses").filter(pl.col("has_collapsed")).explode().first().alias("collapse"),
        )


def write_experts(results: Iterable[TrialResult], path: Path) -> TrialExperts | None:
    """Write the table of trials that have experts, and return it; nothing where none has."""
    found = TrialExperts.of(results)
    if found is not None:
        found.write(path)
    return found


def _rows(trial: str, counts: ExpertCounts) -> Iterable[Mapping[str, Any]]:
    summary = Summary.of(counts.train)
    held_out = Summary.of(counts.held_out)
    compared = ("layer", "router", "specialisation")
    specialisation = {tuple(row[:2]): row[2] for row in held_out.layers.select(compared).rows()}
    for row in summary.layers.select(_OF_LAYER).to_dicts():
        place = row["layer"], row["router"]
        found = [one for one in summary.diagnoses if (one.layer, one.router) == place]
        yield {
            "trial": trial,
            **row,
            "specialisation": specialisation.get(place),
            "has_collapsed": any(one.kind == "collapse" for one in found),
            "diagnoses": [str(one) for one in found],
        }
    of_text = {
        (row["domain"], row["layer"], row["router"]): row
        for row in held_out.domains.select(
            "domain", "layer", "router", "own", "distance"
        ).to_dicts()
    }
    for row in summary.domains.select(_OF_TRAINING).to_dicts():
        of_domain = row["domain"], row["layer"], row["router"]
        yield {"trial": trial, **row, **of_text.get(of_domain, {})}
