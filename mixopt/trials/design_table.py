"""A design as a table: `design.parquet`, one row a trial.

Columns: trial, role, seed, round, mixture (its fingerprint), weight/<domain> for each domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mixopt.errors import DesignError, MixtureError
from mixopt.mixture import Mixture
from mixopt.system import check_name, check_names, read_table, shown_name, write_table
from mixopt.trials.proxy import Trial

WEIGHT = "weight/"
COLUMNS = {
    "trial": pl.String,
    "role": pl.String,
    "seed": pl.Int64,
    "round": pl.Int32,
    "mixture": pl.String,
}


def design_table(trials: Sequence[Trial]) -> pl.DataFrame:
    """Return the trials of a design as a table, in their order.

    Raises:
        DesignError: No trial, two trials of one name, or trials over different domains.
    """
    if not trials:
        raise DesignError("a design needs at least one trial")
    domains = trials[0].mixture.domains
    names: set[str] = set()
    for trial in trials:
        check_name(trial.name, "trial", DesignError)
        if trial.name in names:
            raise DesignError(f"trial {trial.name!r} is in the design twice")
        if trial.mixture.domains != domains:
            raise DesignError(f"trial {trial.name!r} has other domains than {trials[0].name!r}")
        names.add(trial.name)
    rows = [(t.name, t.role, t.seed, t.round, t.mixture.fingerprint) for t in trials]
    weights = {WEIGHT + name: [t.mixture[name] for t in trials] for name in domains}
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    return table.with_columns(pl.Series(name, column) for name, column in weights.items())


def write_design(trials: Sequence[Trial], path: Path) -> None:
    """Write `design.parquet` at once."""
    write_table(path, design_table(trials))


def read_design(path: Path) -> list[Trial]:
    """Read what `write_design` wrote, in the same order.

    Raises:
        DesignError: The file is not there or not a design, or a row is not what it was.
    """
    table = read_table(path, mend="make it again with mixopt design", error=DesignError)
    missing = [name for name in COLUMNS if name not in table.columns]
    domains = [name.removeprefix(WEIGHT) for name in table.columns if name.startswith(WEIGHT)]
    if missing or not domains:
        raise DesignError(f"{path}: not a design: no column {(missing or ['weight/...'])[0]!r}")
    check_names(domains, f"{path}: domain", DesignError)
    for name, kind in COLUMNS.items():
        if table[name].dtype != kind or table[name].null_count():
            raise DesignError(f"{path}: {name}: expected {kind} in every row")
    return [_trial(path, row, domains) for row in table.iter_rows(named=True)]


def _trial(path: Path, row: dict[str, Any], domains: Sequence[str]) -> Trial:
    name = check_name(row["trial"], f"{path}: trial", DesignError)
    try:
        mixture = Mixture({d: row[WEIGHT + d] for d in domains})
    except MixtureError as error:
        raise DesignError(f"{path}: trial {name!r}: {error}") from error
    if mixture.fingerprint != row["mixture"]:
        raise DesignError(
            f"{path}: trial {name!r}: its weights are not those of {shown_name(row['mixture'])}"
        )
    return Trial(name, mixture, row["seed"], row["role"], row["round"])
