"""Scalars about experts logged during training: names and values.

A name is `moe/<statistic>/<member>`: MLflow groups the members of a statistic. At most `MEMBERS`
evenly spread layers, and as many domains, have their own scalars; means and extremes are over all
of them, and all counts are in the record.

Scalars are columns of `LAYER_SCHEMA` and `DOMAIN_SCHEMA` (mixopt.routing.summary).
`diagnoses/undiagnosed` is the number of layers with too few assignments; if that is all of them,
diagnoses are not logged.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from mixopt.routing.assignments import Assignments, ExpertCounts
from mixopt.routing.diagnoses import KINDS, diagnose, enough
from mixopt.routing.summary import domain_table, key_column, layer_table

MEMBERS = 32  # layers, and domains, with their own scalars

# Statistics with a member for each layer, and reductions over all layers.
_BY_LAYER = {
    "max_vio": ("max_violation", ("mean", "max")),
    "effective_experts": ("effective", ("mean", "min")),
    "dead_experts": ("dead", ("sum",)),
    "specialisation": ("specialisation", ("mean",)),
}
_OVER_LAYERS = {"overflow": ("overflow", ("mean", "max")), "drop_rate": ("dropped", ("mean",))}
# Statistics with a member for each domain, with names of their own because a domain may be
# called "mean".
_BY_DOMAIN = {
    "max_vio_domain": pl.col("max_violation").max(),
    "starved_experts": pl.col("starved").sum(),
    "js_mean": pl.col("distance").mean(),
}


def training_scalars(window: Assignments) -> dict[str, float]:
    """Return the scalars of a window of training, without unknown ones."""
    values = _of_layers(window, {**_BY_LAYER, **_OVER_LAYERS})
    return _known(values | _of_domains(window, _BY_DOMAIN) | _diagnoses(window))


def trial_scalars(counts: ExpertCounts) -> dict[str, float]:
    """Return the final scalars of a trial; domains are compared on held-out text."""
    held_out = _of_layers(counts.held_out, {"specialisation": _BY_LAYER["specialisation"]})
    held_out |= _of_domains(counts.held_out, ["js_mean"])
    trained = training_scalars(counts.train)
    return {n: value for n, value in trained.items() if n[4:] not in held_out} | _known(held_out)


def _of_layers(
    assignments: Assignments, statistics: Mapping[str, tuple[str, Sequence[str]]]
) -> dict[str, float | None]:
    table = layer_table(assignments).with_columns(key_column())
    places = np.linspace(0, table.height - 1, min(MEMBERS, table.height)).round().astype(int)
    values: dict[str, float | None] = {}
    for name, (column, hows) in statistics.items():
        values |= {f"{name}/{how}": getattr(table[column], how)() for how in hows}
        if name in _BY_LAYER:
            members = table.select("key", column)[places].iter_rows()
            values |= {f"{name}/{_layer(key)}": value for key, value in members}
    return values


def _of_domains(assignments: Assignments, statistics: Iterable[str]) -> dict[str, float | None]:
    measures = [_BY_DOMAIN[name].alias(name) for name in statistics]
    table = domain_table(assignments).group_by("domain", maintain_order=True).agg(measures)
    rows = table.head(MEMBERS).iter_rows(named=True)
    return {
        f"{name}/{row['domain']}": value
        for row in rows
        for name, value in row.items()
        if name != "domain"
    }


def _diagnoses(window: Assignments) -> dict[str, float | None]:
    """Count diagnoses by kind, and undiagnosed layers."""
    undiagnosed = sum(not enough(layer) for layer in window.layers)
    if undiagnosed == len(window.layers):
        return {"diagnoses/undiagnosed": undiagnosed}
    kinds = Counter(diagnosis.kind for diagnosis in diagnose(window))
    counts = {f"diagnoses/{kind}": float(kinds[kind]) for kind in KINDS}
    return {**counts, "diagnoses/undiagnosed": undiagnosed}


def _layer(key: str) -> str:
    number, _, router = key.partition("/")
    return f"layer_{int(number):02d}" + (f"_{router}" if router else "")


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {
        f"moe/{name}": float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
