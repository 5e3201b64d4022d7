"""Assignments as tables: counts, and measures by layer, domain and pair of domains.

A number that cannot be known is null: a domain without tokens, a router that gave no logits.

Shapes: D domains, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mixopt.errors import RoutingError
from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.system import Array

# What each column of a table by layer is.
LAYER_SCHEMA = {
    "layer": pl.Int64,
    "router": pl.String,  # "" where each layer has one
    "experts": pl.Int64,
    "top_k": pl.Int64,
    "tokens": pl.Int64,
    "load_entropy": pl.Float64,  # 1 is even
    "load_variation": pl.Float64,  # coefficient of variation; 0 is even
    "effective": pl.Float64,  # effective number of experts, exp(entropy), of all; 1 is even
    "busiest": pl.Float64,  # busiest expert's load over the even one; 1 is even
    "max_violation": pl.Float64,  # that less 1; 0 is even
    "overflow": pl.Float64,  # share of the assignments beyond a capacity of 1.25 times even
    "ranks": pl.Int64,  # of expert parallelism, experts in order
    "worst_rank": pl.Float64,  # load of the busiest of these over the even one
    "dead": pl.Int64,  # experts below 1% of the even load
    "collapsed": pl.Int64,  # experts that most tokens choose, beyond the middle of even and all
    "dropped": pl.Float64,  # share of the assignments
    "router_entropy": pl.Float64,  # 1 is undecided
    "confidence": pl.Float64,  # probability of the chosen experts
    "z_loss": pl.Float64,
    "balance_loss": pl.Float64,  # 1 is even
    "information": pl.Float64,  # of expert and domain, nats, corrected for sample size
    "specialisation": pl.Float64,  # of the most that it can be, the entropy of the domains
}
SHOWN_BY_LAYER = (
    "busiest",
    "effective",
    "load_entropy",
    "overflow",
    "worst_rank",
    "dead",
    "collapsed",
    "dropped",
    "router_entropy",
    "confidence",
    "specialisation",
)
DOMAIN_SCHEMA = {
    "domain": pl.String,
    "layer": pl.Int64,
    "router": pl.String,
    "tokens": pl.Int64,
    "share": pl.Float64,
    "busiest": pl.Float64,  # load of its busiest expert over the even one, of its tokens
    "max_violation": pl.Float64,
    "starved": pl.Int64,  # experts below 10% of the even load of this domain
    "dropped": pl.Float64,
    "router_entropy": pl.Float64,
    "confidence": pl.Float64,
    "leading_expert": pl.Int64,  # of the largest lift
    "lift": pl.Float64,  # how much more of this domain it gets than of all
    "own": pl.Float64,  # of its assignments: to experts of a lift of at least 1.5
    "distance": pl.Float64,  # mean Jensen-Shannon distance to the other domains
}
DISTANCE_SCHEMA = {
    "layer": pl.Int64,
    "router": pl.String,
    "domain": pl.String,
    "other": pl.String,
    "distance": pl.Float64,
}
RANKS = 8  # of expert parallelism, at most, where it is not said
OWN = 1.5  # lift from which on an expert counts as one of a domain's own


def assignment_table(assignments: Assignments) -> pl.DataFrame:
    """Return `domain`, `layer`, `router`, `expert`, `tokens` and `probability`, dense."""
    parts = []
    for layer in assignments.layers:
        with np.errstate(invalid="ignore"):
            mean_DE = layer.probability_DE / layer.scored_D[:, None]
        count = layer.experts
        parts.append(
            pl.DataFrame(
                {
                    "domain": np.repeat(np.asarray(assignments.domains, object), count),
                    "layer": np.full(mean_DE.size, layer.layer),
                    "router": [layer.router] * mean_DE.size,
                    "expert": np.tile(np.arange(count), len(assignments.domains)),
                    "tokens": layer.counts_DE.ravel(),
                    "probability": mean_DE.ravel(),
                },
                schema_overrides={"domain": pl.String},
            )
        )
    return pl.concat(parts).with_columns(pl.col("probability").fill_nan(None))


def layer_table(assignments: Assignments, ranks: int | None = None) -> pl.DataFrame:
    """Return what the assignments say of each layer; `LAYER_SCHEMA` says what the columns are.

    Args:
        assignments: What was counted.
        ranks: Over which experts are laid out in order; up to 8 that divide them by default.

    Raises:
        RoutingError: So many ranks do not divide the experts of a layer.
    """
    return _frame([_layer_row(layer, ranks) for layer in assignments.layers], LAYER_SCHEMA)


def domain_table(assignments: Assignments) -> pl.DataFrame:
    """Return what they say of each domain in each layer; `DOMAIN_SCHEMA` says what it is."""
    found = [_domain_columns(layer) for layer in assignments.layers]
    columns: dict[str, Any] = {"domain": list(assignments.domains) * len(found)}
    for name in _place(assignments.layers[0]):
        values = (getattr(layer, name) for layer in assignments.layers)
        columns[name] = [value for value in values for _ in assignments.domains]
    for name in found[0]:
        value_R = np.concatenate([one[name] for one in found]).astype(float)
        value_R[~np.isfinite(value_R)] = np.nan
        columns[name] = pl.Series(value_R, nan_to_null=True)
    return pl.DataFrame(columns).select(list(DOMAIN_SCHEMA)).cast(pl.Schema(DOMAIN_SCHEMA))


def distance_table(assignments: Assignments) -> pl.DataFrame:
    """Return the Jensen-Shannon distance of each pair of domains in each layer."""
    names = assignments.domains
    rows = []
    for layer in assignments.layers:
        distance_DD = measures.profile_distances(measures.expert_profiles(layer.counts_DE))
        rows += [
            {**_place(layer), "domain": a, "other": b, "distance": distance_DD[i, j]}
            for i, a in enumerate(names)
            for j, b in enumerate(names)
            if i < j
        ]
    return _frame(rows, DISTANCE_SCHEMA)


def key_column() -> pl.Expr:
    """Return what makes `key` of a table's `layer` and `router`, as `LayerAssignments.key` is."""
    named = pl.format("{}/{}", "layer", "router")
    return (
        pl.when(pl.col("router") == "")
        .then(pl.col("layer").cast(pl.String))
        .otherwise(named)
        .alias("key")
    )


def expert_ranks(layer: LayerAssignments, ranks: int | None) -> int:
    """Return over how many ranks a layer's experts are laid out.

    Args:
        layer: Whose experts they are.
        ranks: Of expert parallelism; None for the most up to 8 that divide the experts.

    Raises:
        RoutingError: So many do not divide them.
    """
    if ranks is None:
        return max(n for n in range(1, RANKS + 1) if layer.experts % n == 0)
    if ranks < 1 or layer.experts % ranks:
        fits = ", ".join(str(n) for n in range(1, layer.experts + 1) if layer.experts % n == 0)
        raise RoutingError(
            f"{ranks} ranks do not divide the {layer.experts} experts of layer {layer.key}; these"
            f" do: {fits}"
        )
    return ranks


def _place(layer: LayerAssignments) -> dict[str, Any]:
    return {"layer": layer.layer, "router": layer.router}


def _layer_row(layer: LayerAssignments, ranks: int | None) -> Mapping[str, Any]:
    ranks = expert_ranks(layer, ranks)
    about = {**_place(layer), "experts": layer.experts, "top_k": layer.top_k, "ranks": ranks}
    counts_E, tokens = layer.counts_DE.sum(0), int(layer.tokens_D.sum())
    if not counts_E.sum():
        return about | {"tokens": tokens}
    load_E = measures.load_shares(counts_E)
    shares_D = measures.load_shares(layer.tokens_D)
    information, most = measures.corrected_information(layer.counts_HDE, shares_D)
    return {
        **about,
        "tokens": tokens,
        "load_entropy": measures.entropy(load_E),
        "load_variation": measures.variation(load_E),
        "effective": measures.effective(load_E),
        "busiest": measures.busiest(load_E),
        "max_violation": measures.max_violation(load_E),
        "overflow": measures.overflow(load_E),
        "worst_rank": measures.worst_rank(load_E, ranks),
        "dead": int(measures.dead(load_E).sum()),
        "collapsed": int(measures.collapsed(counts_E / tokens, layer.experts_of_a_token).sum()),
        "dropped": layer.dropped_D.sum() / (counts_E.sum() + layer.dropped_D.sum()),
        **_router_means(layer),
        "balance_loss": measures.balance_loss(load_E, _mean(layer.probability_DE, layer.scored_D)),
        "information": information,
        "specialisation": information / most,
    }


def _domain_columns(layer: LayerAssignments) -> dict[str, Array]:
    """Return what is said of each domain in a layer; NaN where it has no tokens there."""
    counts_DE = layer.counts_DE
    given_D = counts_DE.sum(1)
    profile_DE = measures.expert_profiles(counts_DE)
    lift_DE = np.nan_to_num(measures.lift(counts_DE))
    distance_DD = measures.profile_distances(profile_DE)
    np.fill_diagonal(distance_DD, np.nan)
    known_DD = np.isfinite(distance_DD)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "share": measures.load_shares(layer.tokens_D),
            "busiest": profile_DE.max(1) * layer.experts,
            "max_violation": profile_DE.max(1) * layer.experts - 1,
            "starved": measures.dead(profile_DE, measures.STARVED).sum(1),
            "dropped": layer.dropped_D / (given_D + layer.dropped_D),
            **_router_means(layer, by_domain=True),
            "leading_expert": lift_DE.argmax(1),
            "lift": lift_DE.max(1),
            "own": np.where(lift_DE >= OWN, profile_DE, 0).sum(1),
            "distance": np.where(known_DD, distance_DD, 0).sum(1) / known_DD.sum(1),
        }
    found = {name: np.where(given_D > 0, value_D, np.nan) for name, value_D in columns.items()}
    return {"tokens": np.asarray(layer.tokens_D), **found}


def _router_means(layer: LayerAssignments, *, by_domain: bool = False) -> dict[str, Any]:
    """Return the means over tokens that the router scored; NaN without any."""

    def total(sum_D: Array) -> Array:
        return sum_D if by_domain else np.asarray(sum_D.sum())

    scored = total(layer.scored_D)
    scored = np.where(scored > 0, scored, np.nan)
    most = math.log(layer.experts) or math.nan
    return {
        "router_entropy": total(layer.entropy_D) / scored / most,
        "confidence": total(layer.chosen_D) / scored,
        "z_loss": total(layer.squared_logsumexp_D) / scored,
    }


def _mean(sums_DE: Array, count_D: Array) -> Array:
    return np.asarray(sums_DE.sum(0) / (count_D.sum() or math.nan))


def _frame(rows: list[Any], schema: dict[str, Any]) -> pl.DataFrame:
    columns = {
        name: pl.Series(name, [_known(row.get(name)) for row in rows], dtype=kind)
        for name, kind in schema.items()
    }
    return pl.DataFrame(columns)


def _known(value: Any) -> Any:
    """Return a value, and None for a number that is none."""
    if isinstance(value, str) or value is None:
        return value
    return (
        value.item()
        if isinstance(value, np.generic) and math.isfinite(value)
        else (value if math.isfinite(value) else None)
    )
