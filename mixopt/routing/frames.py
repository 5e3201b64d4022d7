"""Assignments as two frames that keep everything, for Parquet files: one a window adds up to all.

`counts` has a row for each domain, layer and expert; `layers` one for each domain and layer. They
hold sums, so frames of several windows one below the other are those of all of them. Columns that
are 0 for most models are left out where they are.

Shapes: D domains, E experts, H = 2 halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

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
_NAMES = ("domain", "router", "layer")
_Columns = dict[str, NDArray[Any]]
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
    domains = tuple(layers["domain"].unique(maintain_order=True))
    places = layers.select("layer", "router").unique(maintain_order=True)
    routers = places.sort("layer", maintain_order=True).rows()
    counted, summed = (_by_router(frame, routers, domains) for frame in (counts, layers))
    found = [
        _layer(router_key(*router), cells, rows, domains)
        for router, cells, rows in zip(routers, counted, summed, strict=True)
    ]
    return Assignments(domains, tuple(found))


def _by_router(
    frame: pl.DataFrame, routers: Sequence[tuple[int, str]], domains: tuple[str, ...]
) -> list[_Columns]:
    """Return the columns of each router, by domain and expert, domains as numbers."""
    names = list(dict.fromkeys(router for _, router in routers))
    name_R = frame["router"].cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)
    codes = np.array([number * len(names) + names.index(router) for number, router in routers])
    order = np.argsort(codes)
    code_R = frame["layer"].to_numpy().astype(np.int64) * len(names) + name_R
    if not np.isin(code_R, codes).all():
        raise RoutingError("counts of experts: layers are not the same in every window")
    place_R = order[np.searchsorted(codes[order], code_R)]
    domain = frame["domain"].cast(pl.Enum(domains)).to_physical()
    columns = {name: frame[name].to_numpy() for name in frame.columns if name not in _NAMES}
    columns["domain"] = domain.to_numpy().astype(np.int64)
    keys = [place_R, columns["domain"], *(columns[n] for n in ("expert",) if n in columns)]
    position_R = np.zeros(frame.height, np.int64)
    for key_R in keys:
        position_R = position_R * (int(key_R.max(initial=0)) + 1) + key_R
    if (np.diff(position_R) < 0).any():
        sorted_R = np.argsort(position_R, kind="stable")
        columns = {name: column[sorted_R] for name, column in columns.items()}
    ends = np.bincount(place_R, minlength=len(routers)).cumsum()
    parts = [
        slice(end - size, end) for end, size in zip(ends, np.diff(ends, prepend=0), strict=True)
    ]
    return [{name: column[part] for name, column in columns.items()} for part in parts]


def _layer(
    key: str, counts: _Columns, layers: _Columns, domains: tuple[str, ...]
) -> LayerAssignments:
    """Return a router of which each cell has a row for each window, one after the other."""
    windows = len(layers["domain"]) // len(domains)
    experts = len(counts["domain"]) // max(windows * len(domains), 1)
    shape_DEW = len(domains), experts, windows
    domain_DEW, expert_DEW = np.indices(shape_DEW)[:2]
    if (
        not experts
        or not np.array_equal(layers["domain"], domain_DEW[:, 0].ravel())
        or not np.array_equal(counts["domain"], domain_DEW.ravel())
        or not np.array_equal(counts["expert"], expert_DEW.ravel())
    ):
        raise RoutingError(f"counts of experts: layer {key} is not the same in every window")

    def of_experts(name: str) -> Any:
        return counts[name].reshape(shape_DEW).sum(2)

    def of_domains(name: str) -> Any:
        return layers[name].reshape(-1, windows).sum(1)

    number, router = split_key(key)
    return LayerAssignments(
        layer=number,
        router=router,
        top_k=int(layers["top_k"][0]),
        counts_HDE=np.stack([of_experts(half) for half in ("even", "odd")]),
        dropped_D=of_domains("dropped"),
        unused_D=of_domains("unused"),
        weight_HDE=np.stack([of_experts(f"{half}_weight") for half in ("even", "odd")]),
        probability_DE=of_experts("probability_sum"),
        entropy_D=of_domains("entropy_sum"),
        squared_logsumexp_D=of_domains("squared_logsumexp_sum"),
        chosen_D=of_domains("chosen_sum"),
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
