"""Effects of single sources, from microanneals and their controls.

Runs are paired by seed. The effect of a source is the difference of anneal and control, above 0
where the anneal is better, with a 95% interval for each source alone (mixopt.difference). P-values
are corrected for the number of sources within a target by Holm's method (1979): the chance that any
useless source is called better or worse is at most 5%.

Shapes: S seeds.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from mixopt.config import AnnealsConfig
from mixopt.difference import LEVEL, paired_interval
from mixopt.objective import Objective
from mixopt.proposals.validation import MIN_SEEDS, Validation
from mixopt.system import Array, difference_text, interval_text
from mixopt.trials import ANNEAL, CONTROL, Trials

SCHEMA = {
    "target": pl.String,
    "source": pl.String,
    "rank": pl.Int64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p_holm": pl.Float64,
    "seeds": pl.Int64,
    "verdict": pl.String,
}


def anneal_effects(trials: Trials, objective: Objective, config: AnnealsConfig) -> pl.DataFrame:
    """Compare the anneals of each source with the controls."""
    table = trials.table.filter(pl.col("role").is_in([CONTROL, ANNEAL]))
    anneals = replace(trials, table=table)
    validation = Validation.of(anneals, objective, None)
    rows = [
        row for target in (None, *trials.targets) for row in _ranked(validation, target, config)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def anneal_lines(effects: pl.DataFrame) -> list[str]:
    """Return the effects on the objective as text, one line for each source."""
    lines = []
    for row in effects.filter(pl.col("target").is_null()).iter_rows(named=True):
        if row["difference"] is None:
            lines.append(f"{row['source']}: no anneal of it finished together with its control")
            continue
        interval = "" if row["low"] is None else f", {interval_text(row['low'], row['high'])}"
        pairs = f"{row['seeds']} seed{'s' * (row['seeds'] != 1)}"
        difference = difference_text(row["difference"])
        lines.append(f"{row['source']}: {difference}{interval}, {pairs}: {row['verdict']}")
    return lines


def holm(chances: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return Holm's p-values by name; None of a name without a p-value."""
    ordered = sorted((p, name) for name, p in chances.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(chances)
    highest = 0.0
    for place, (chance, name) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * chance))
        adjusted[name] = highest
    return adjusted


def _ranked(
    validation: Validation, target: str | None, config: AnnealsConfig
) -> list[tuple[Any, ...]]:
    ranked = {
        name: validation.paired(f"{ANNEAL}_{name}", CONTROL, target) for name in config.sources
    }
    chances = holm({name: _p_value(values_S) for name, values_S in ranked.items()})
    means = {name: float(values_S.mean()) for name, values_S in ranked.items() if len(values_S)}
    rows: list[tuple[Any, ...]] = []
    for rank, name in enumerate(sorted(means, key=lambda name: -means[name]), start=1):
        low, high, p, seeds = None, None, chances[name], len(ranked[name])
        if p is not None:
            mean, half = paired_interval(ranked[name])
            low, high = mean - half, mean + half
        verdict = _verdict(means[name], p)
        rows.append((target, name, rank, means[name], low, high, p, seeds, verdict))
    lost = [name for name in config.sources if name not in means]
    return rows + [(target, name, *[None] * 5, 0, "no pair") for name in lost]


def _p_value(differences_S: Array) -> float | None:
    """Return the two-sided p-value of paired differences by Student's t; None below two."""
    if len(differences_S) < MIN_SEEDS:
        return None
    from scipy.special import stdtr

    error = float(differences_S.std(ddof=1)) / math.sqrt(len(differences_S))
    mean = float(differences_S.mean())
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * stdtr(len(differences_S) - 1, -abs(mean) / error))


def _verdict(mean: float, p: float | None) -> str:
    if p is None:
        return "one seed"
    if p > 1.0 - LEVEL:
        return "not significant"
    return "better" if mean > 0 else "worse"
