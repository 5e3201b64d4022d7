"""The few numbers about experts that are followed while a model trains: names and values.

A name is `moe/<statistic>/<member>`: MLflow's pages put the members of a statistic together. A run
has at most `BUDGET` names, those of its losses and weights among them; all counts are in the
record. Where a model has many layers, only some of them have names, evenly spread, and means and
extremes are over all of them. Where losses and weights of many domains leave no room, there are
means and extremes alone, beyond the budget.

What the numbers are is said where they are computed: they are columns of
`mixopt.routing.summary.LAYER_SCHEMA` and `DOMAIN_SCHEMA`. `diagnoses/undiagnosed` is how many
layers have too few assignments; where all have, there is no number of diagnoses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mixopt.routing.assignments import Assignments, ExpertCounts
from mixopt.routing.diagnoses import KINDS, diagnose, enough
from mixopt.routing.summary import domain_table, key_column, layer_table

BUDGET = 400  # names of a run

# Statistics with a member for each layer: their columns; and of all layers: how they are reduced.
_BY_LAYER = {
    "max_vio": ("max_violation", ("mean", "max")),
    "effective_experts": ("effective", ("mean", "min")),
    "dead_experts": ("dead", ("sum",)),
    "specialisation": ("specialisation", ("mean",)),
}
_OVER_LAYERS = {
    "overflow": ("overflow", ("mean", "max")),
    "worst_rank": ("worst_rank", ("mean", "max")),
    "drop_rate": ("dropped", ("mean",)),
}
# Statistics with a member for each domain; no other statistic has their names, as a domain may be
# called "mean".
_BY_DOMAIN = {
    "max_vio_domain": pl.col("max_violation").max(),
    "starved_experts": pl.col("starved").sum(),
    "js_mean": pl.col("distance").mean(),
}
_OVER_ALL = (
    *(f"{n}/{how}" for n, (_, hows) in (_BY_LAYER | _OVER_LAYERS).items() for how in hows),
    *(f"diagnoses/{kind}" for kind in KINDS),
    "diagnoses/undiagnosed",
)


@dataclass(frozen=True)
class ScalarNames:
    """The layers and domains that have names of their own; of all others there are only means.

    Attributes:
        layers: As `LayerAssignments.key`.
        domains: Names.
    """

    layers: tuple[str, ...]
    domains: tuple[str, ...]

    @classmethod
    def within_budget(
        cls, layers: Sequence[str], domains: Sequence[str], others: int = 0
    ) -> ScalarNames:
        """Choose them so that a run has at most `BUDGET` names."""
        left = max(0, BUDGET - others - len(_OVER_ALL))
        shown = tuple(domains[: left // 2 // len(_BY_DOMAIN)])
        left -= len(_BY_DOMAIN) * len(shown)
        count = min(left // len(_BY_LAYER), len(layers))
        places = np.unique(np.linspace(0, len(layers) - 1, count).round().astype(int))
        return cls(tuple(layers[place] for place in places), shown)


def training_scalars(window: Assignments, named: ScalarNames) -> dict[str, float]:
    """Return the numbers of a window of training; those that are not known are left out."""
    layers = layer_table(window)
    values = _of_layers(layers, {**_BY_LAYER, **_OVER_LAYERS}, named)
    values |= _of_domains(window, tuple(_BY_DOMAIN), named)
    return _known(values | _diagnoses(window))


def trial_scalars(counts: ExpertCounts, others: int = 0) -> dict[str, float]:
    """Return the numbers of a trial at its end; domains are compared on held-out text."""
    layers = [layer.key for layer in counts.train.layers]
    named = ScalarNames.within_budget(layers, counts.train.domains, others)
    compared = {"specialisation": _BY_LAYER["specialisation"]}
    held_out = _of_layers(layer_table(counts.held_out), compared, named)
    held_out |= _of_domains(counts.held_out, ("js_mean",), named)
    trained = training_scalars(counts.train, named)
    return {name: value for name, value in trained.items() if name[4:] not in held_out} | _known(
        held_out
    )


def _of_layers(
    table: pl.DataFrame,
    statistics: Mapping[str, tuple[str, Sequence[str]]],
    named: ScalarNames,
) -> dict[str, float | None]:
    keyed = table.with_columns(key_column())
    values: dict[str, float | None] = {}
    for name, (column, hows) in statistics.items():
        for how in hows:
            values[f"{name}/{how}"] = table.select(getattr(pl.col(column), how)()).item()
        if name in _BY_LAYER:
            of_layer = dict(keyed.select("key", column).iter_rows())
            values |= {f"{name}/{_layer(key)}": of_layer.get(key) for key in named.layers}
    return values


def _of_domains(
    assignments: Assignments, statistics: Sequence[str], named: ScalarNames
) -> dict[str, float | None]:
    measures = [_BY_DOMAIN[name].alias(name) for name in statistics]
    table = domain_table(assignments).group_by("domain").agg(measures)
    rows = {row["domain"]: row for row in table.iter_rows(named=True)}
    return {
        f"{name}/{domain}": rows[domain][name] if domain in rows else None
        for name in statistics
        for domain in named.domains
    }


def _diagnoses(window: Assignments) -> dict[str, float | None]:
    """Count diagnoses by kind, and layers of which nothing can be said."""
    few = sum(not enough(layer) for layer in window.layers)
    if few == len(window.layers):
        return {"diagnoses/undiagnosed": few}
    kinds = Counter(one.kind for one in diagnose(window))
    counts = {f"diagnoses/{kind}": float(kinds[kind]) for kind in KINDS}
    return {**counts, "diagnoses/undiagnosed": few}


def _layer(key: str) -> str:
    number, _, router = key.partition("/")
    return f"layer_{int(number):02d}" + (f"_{router}" if router else "")


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {
        f"moe/{name}": float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
