"""Assignments as two frames that keep everything, for Parquet files: one a window adds up to all.

`counts` has a row for each domain, layer and expert; `layers` one for each domain and layer. They
hold sums, so frames of several windows one below the other are those of all of them. Columns that
are 0 for most models are left out where they are.

Shapes: D domains, E experts, H = 2 halves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mixopt.errors import RoutingError
from mixopt.routing.assignments import Assignments, LayerAssignments, router_key, split_key

_COUNTS = {
    "domain": pl.String,
    "layer": pl.Int16,
    "router": pl.String,  # "" where a layer has one; a file of before may lack the column
    "expert": pl.Int16,
    "even": pl.Int64,  # tokens of sequences at even places
    "odd": pl.Int64,
    "probability_sum": pl.Float64,
    "even_weight": pl.Float64,
    "odd_weight": pl.Float64,
}
_LAYERS = {
    "domain": pl.String,
    "layer": pl.Int16,
    "router": pl.String,
    "top_k": pl.Int16,
    "dropped": pl.Int64,
    "unused": pl.Int64,
    "entropy_sum": pl.Float64,
    "squared_logsumexp_sum": pl.Float64,
    "chosen_sum": pl.Float64,
}
_OPTIONAL = ("unused", "even_weight", "odd_weight")


def to_frames(assignments: Assignments) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the frames `counts` and `layers` of assignments."""
    names = assignments.domains
    counts = [
        pl.DataFrame(
            {
                "domain": np.repeat(names, layer.experts).tolist(),
                "layer": [layer.layer] * (len(names) * layer.experts),
                "router": [layer.router] * (len(names) * layer.experts),
                "expert": np.tile(np.arange(layer.experts), len(names)),
                "even": layer.counts_HDE[0].ravel(),
                "odd": layer.counts_HDE[1].ravel(),
                "probability_sum": layer.probability_DE.ravel(),
                "even_weight": layer.weight_HDE[0].ravel(),
                "odd_weight": layer.weight_HDE[1].ravel(),
            },
            schema_overrides=_COUNTS,
        )
        for layer in assignments.layers
    ]
    layers = [
        pl.DataFrame(
            {
                "domain": list(names),
                "layer": [layer.layer] * len(names),
                "router": [layer.router] * len(names),
                "top_k": [layer.top_k] * len(names),
                "dropped": layer.dropped_D,
                "unused": layer.unused_D,
                "entropy_sum": layer.entropy_D,
                "squared_logsumexp_sum": layer.squared_logsumexp_D,
                "chosen_sum": layer.chosen_D,
            },
            schema_overrides=_LAYERS,
        )
        for layer in assignments.layers
    ]
    return _without_zeros(pl.concat(counts)), _without_zeros(pl.concat(layers))


def from_frames(counts: pl.DataFrame, layers: pl.DataFrame) -> Assignments:
    """Return the assignments of frames, those of one window or of several together.

    Args:
        counts: As `to_frames` returns them; further columns are ignored.
        layers: Likewise.

    Raises:
        RoutingError: Columns are missing, or the frames are not of the same domains and layers.
    """
    counts, layers = _completed(counts, _COUNTS), _completed(layers, _LAYERS)
    for frame, schema in ((counts, _COUNTS), (layers, _LAYERS)):
        missing = [name for name in schema if name not in frame.columns]
        if missing:
            raise RoutingError(f"counts of experts: no column {missing[0]!r}")
    keys = {"domain", "layer", "router", "expert", "top_k"}
    counts, layers = (
        frame.select(list(schema))
        .group_by([n for n in schema if n in keys], maintain_order=True)
        .agg(pl.col([n for n in schema if n not in keys]).sum())
        for frame, schema in ((counts, _COUNTS), (layers, _LAYERS))
    )
    domains = tuple(layers["domain"].unique(maintain_order=True))
    places = layers.select("layer", "router").unique(maintain_order=True)
    routers = places.sort("layer", maintain_order=True).rows()
    found = [
        _layer(
            router_key(number, router),
            counts.filter(layer=number, router=router),
            layers.filter(layer=number, router=router),
            domains,
        )
        for number, router in routers
    ]
    return Assignments(domains, tuple(found))


def _layer(
    key: str, counts: pl.DataFrame, layers: pl.DataFrame, domains: tuple[str, ...]
) -> LayerAssignments:
    order = pl.Enum(domains)
    counts = counts.with_columns(pl.col("domain").cast(order)).sort("domain", "expert")
    layers = layers.with_columns(pl.col("domain").cast(order)).sort("domain")
    if layers.height != len(domains) or counts.height % len(domains):
        raise RoutingError(f"counts of experts: layer {key} is not the same in every window")
    shape = len(domains), -1
    number, router = split_key(key)
    return LayerAssignments(
        layer=number,
        router=router,
        top_k=int(layers["top_k"][0]),
        counts_HDE=np.stack([counts[half].to_numpy().reshape(shape) for half in ("even", "odd")]),
        dropped_D=layers["dropped"].to_numpy(),
        unused_D=layers["unused"].to_numpy(),
        weight_HDE=np.stack(
            [counts[f"{half}_weight"].to_numpy().reshape(shape) for half in ("even", "odd")]
        ),
        probability_DE=counts["probability_sum"].to_numpy().reshape(shape),
        entropy_D=layers["entropy_sum"].to_numpy(),
        squared_logsumexp_D=layers["squared_logsumexp_sum"].to_numpy(),
        chosen_D=layers["chosen_sum"].to_numpy(),
    )


def _without_zeros(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop(
        [name for name in _OPTIONAL if name in frame.columns and not (frame[name] != 0).any()]
    )


def _completed(frame: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return a frame with the columns that may be missing."""
    given: dict[str, Any] = dict.fromkeys(_OPTIONAL, 0) | {"router": ""}
    absent = [name for name in given if name in schema and name not in frame.columns]
    return frame.with_columns(pl.lit(given[name]).cast(schema[name]).alias(name) for name in absent)
