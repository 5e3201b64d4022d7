"""The few numbers about experts that are followed while a model trains: names and values.

A name is `moe/<statistic>/<member>`: MLflow's pages put the members of a statistic together. A
server keeps half a kilobyte for each name of each run, so a run has at most `BUDGET`, those of its
losses and weights among them; all counts are in the record. Where a model has many layers, only
some of them have names, evenly spread, and means and extremes are over all of them. Losses and
weights are never left out: where those of many domains leave no room, there are means and extremes
alone, beyond the budget.

    of training, in a window        busiest, effective_experts, dead_experts, overflow, worst_rank,
                                    drop_rate, confidence, router_entropy, z_loss, lb_loss,
                                    busiest_domain, starved_experts, router_entropy_domain,
                                    diagnoses
    of a probe                      mi (less chance), mi_null, specialisation, js_mean, saturation

What they are is said where they are computed: `busiest`, `effective`, `overflow` and `worst_rank`
are columns of `mixopt.routing.tables.LAYER_SCHEMA`. `diagnoses/undiagnosed` is how many layers have
too few assignments; where all have, there is no number of diagnoses, as none could be made.

Shapes: D domains, L layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mixopt.routing.assignments import Assignments, split_key
from mixopt.routing.diagnoses import diagnose, enough
from mixopt.routing.expert_counts import ExpertCounts
from mixopt.routing.probe_result import ProbeResult
from mixopt.routing.tables import domain_table, key_column, layer_table
from mixopt.routing.thresholds import Thresholds

BUDGET = 400  # names of a run

# Statistics with a member for each layer or domain, and the other names there are.
BY_LAYER = ("busiest", "effective_experts", "dead_experts", "mi", "saturation")
# None of `_OVER_ALL` has a statistic by domain: a domain may be called "mean".
BY_DOMAIN = ("busiest_domain", "starved_experts", "router_entropy_domain", "js_mean")
KINDS = ("collapse", "degradation", "underfitting")
_OVER_ALL = (
    "busiest/mean",
    "busiest/max",
    "effective_experts/mean",
    "effective_experts/min",
    "dead_experts/sum",
    "overflow/mean",
    "overflow/max",
    "worst_rank/mean",
    "worst_rank/max",
    "drop_rate/mean",
    "confidence/mean",
    "router_entropy/mean",
    "z_loss/mean",
    "lb_loss/mean",
    *(f"diagnoses/{kind}" for kind in KINDS),
    "diagnoses/undiagnosed",
    "mi/mean",
    "mi_null/mean",
    "specialisation/mean",
    "saturation/mean",
)
_TOLD = {
    "key": pl.String,
    "corrected": pl.Float64,
    "chance": pl.Float64,
    "specialisation": pl.Float64,
}
PERMUTATIONS = 20  # of a probe's sequences, for what chance gives on the mean


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
        cls, layers: Sequence[int | str], domains: Sequence[str], others: int = 0
    ) -> ScalarNames:
        """Choose them so that a run has at most `BUDGET` names.

        Args:
            layers: Of all routers, as `LayerAssignments.key`.
            domains: Of the run; of many, the first have names.
            others: Names that the run has besides. Where they leave no room, there are only means
                and extremes.
        """
        left = max(0, BUDGET - others - len(_OVER_ALL))
        shown = tuple(domains[: left // 2 // len(BY_DOMAIN)])
        left -= len(BY_DOMAIN) * len(shown)
        most = min(left // len(BY_LAYER), len(layers))
        places = np.unique(np.linspace(0, len(layers) - 1, most).round().astype(int))
        return cls(tuple(str(layers[place]) for place in places), shown)

    def all_names(self) -> list[str]:
        """Return every name that a run can have."""
        by_layer = [f"{name}/{_layer(n)}" for name in BY_LAYER for n in self.layers]
        by_domain = [f"{name}/{domain}" for name in BY_DOMAIN for domain in self.domains]
        return [f"moe/{name}" for name in (*_OVER_ALL, *by_layer, *by_domain)]


def training_scalars(
    window: Assignments,
    named: ScalarNames,
    thresholds: Thresholds | None = None,
    wider: Assignments | None = None,
    ranks: int | None = None,
) -> dict[str, float]:
    """Return the numbers of a window of training; those that are not known are left out.

    Args:
        window: What was counted in it.
        named: Layers and domains that have names.
        thresholds: From where on something is diagnosed.
        wider: What was counted over more steps; it is diagnosed where the window has too few
            assignments in a layer.
        ranks: Of expert parallelism; up to 8 that divide the experts by default.

    Raises:
        RoutingError: So many ranks do not divide the experts of a layer.
    """
    layers, domains = layer_table(window, ranks), domain_table(window)
    values = {
        **_means(layers, named),
        **_by_layer("busiest", layers, "busiest", named),
        **_by_layer("effective_experts", layers, "effective", named),
        **_by_layer("dead_experts", layers, "dead", named),
        **_by_domain("busiest_domain", domains, pl.col("busiest").max(), named),
        **_by_domain("starved_experts", domains, pl.col("starved").sum(), named),
        **_by_domain("router_entropy_domain", domains, pl.col("router_entropy").mean(), named),
        **_diagnoses(window, wider, thresholds or Thresholds()),
    }
    return _known(values)


def _diagnoses(
    window: Assignments, wider: Assignments | None, limits: Thresholds
) -> dict[str, float]:
    """Count diagnoses by kind, and layers of which nothing can be said."""
    few = _undiagnosed(window, limits)
    if few and wider is not None and (of_wider := _undiagnosed(wider, limits)) < few:
        window, few = wider, of_wider
    if few == len(window.layers):
        return {"diagnoses/undiagnosed": few}
    kinds = Counter[str](found.kind for found in diagnose(window, limits))
    counts = {f"diagnoses/{kind}": float(kinds[kind]) for kind in KINDS}
    return {**counts, "diagnoses/undiagnosed": few}


def _undiagnosed(window: Assignments, limits: Thresholds) -> int:
    return sum(not enough(layer, limits) for layer in window.layers)


def probe_scalars(
    probe: ProbeResult, earlier: ProbeResult | None, named: ScalarNames
) -> dict[str, float]:
    """Return the numbers of a probe.

    Args:
        probe: On fixed, balanced batches. What compares domains is left out where it has too few
            sequences or tokens to tell.
        earlier: The probe before it; without one nothing is said of saturation.
        named: Layers and domains that have names.
    """
    values: dict[str, float | None] = {}
    if earlier is not None and np.array_equal(probe.domain_T, earlier.domain_T):
        kept = (
            probe.saturation(earlier)
            .with_columns(key_column())
            .group_by("key", maintain_order=True)
        )
        table = kept.agg(pl.col("saturation").mean())
        values |= {"saturation/mean": _number(table["saturation"].mean())}
        values |= _by_layer("saturation", table, "saturation", named)
    if probe.enough:
        table = probe.specialisation(permutations=PERMUTATIONS)
        told = table.with_columns(key_column()).select(list(_TOLD))
        return _known(values) | comparing_scalars(told.rows(), probe.assignments(), named)
    return _known(values)


def comparing_scalars(
    told: Iterable[tuple[str, float, float, float | None]],
    held_out: Assignments,
    named: ScalarNames,
) -> dict[str, float]:
    """Return the numbers that compare domains.

    Args:
        told: Of each router its key, information less chance, chance, and specialisation.
        held_out: What is assigned of as much text of each domain.
        named: Layers and domains that have names.
    """
    table = pl.DataFrame(list(told), schema=_TOLD, orient="row")
    return _known(
        {
            "mi/mean": _number(table["corrected"].mean()),
            "mi_null/mean": _number(table["chance"].mean()),
            "specialisation/mean": _number(table["specialisation"].mean()),
            **_by_layer("mi", table, "corrected", named),
            **_by_domain("js_mean", domain_table(held_out), pl.col("distance").mean(), named),
        }
    )


def trial_scalars(counts: ExpertCounts, others: int = 0) -> dict[str, float]:
    """Return the numbers of a trial at its end.

    Args:
        counts: Of its experts.
        others: Names that the trial has besides.
    """
    layers = [layer.key for layer in counts.train.layers]
    named = ScalarNames.within_budget(layers, counts.train.domains, others)
    told = [(one.key, one.corrected, one.chance, one.specialisation) for one in counts.information]
    return {
        **training_scalars(counts.train, named),
        **comparing_scalars(told, counts.held_out, named),
    }


def _means(layers: pl.DataFrame, named: ScalarNames) -> dict[str, float | None]:
    def mean(column: str) -> float | None:
        return _number(layers[column].mean())

    def most(column: str) -> float | None:
        return _number(layers[column].max())

    return {
        "busiest/mean": mean("busiest"),
        "busiest/max": most("busiest"),
        "effective_experts/mean": mean("effective"),
        "effective_experts/min": _number(layers["effective"].min()),
        "dead_experts/sum": _number(layers["dead"].sum()),
        "overflow/mean": mean("overflow"),
        "overflow/max": most("overflow"),
        "worst_rank/mean": mean("worst_rank"),
        "worst_rank/max": most("worst_rank"),
        "drop_rate/mean": mean("dropped"),
        "confidence/mean": mean("confidence"),
        "router_entropy/mean": mean("router_entropy"),
        "z_loss/mean": mean("z_loss"),
        "lb_loss/mean": mean("balance_loss"),
    }


def _by_layer(
    name: str, table: pl.DataFrame, column: str, named: ScalarNames
) -> dict[str, float | None]:
    keyed = table if "key" in table.columns else table.with_columns(key_column())
    values = dict(keyed.select("key", column).iter_rows())
    return {f"{name}/{_layer(key)}": values.get(key) for key in named.layers}


def _by_domain(
    name: str, table: pl.DataFrame, measure: pl.Expr, named: ScalarNames
) -> dict[str, float | None]:
    values = dict(table.group_by("domain").agg(measure.alias("value")).iter_rows())
    return {f"{name}/{domain}": values.get(domain) for domain in named.domains}


def _layer(key: str) -> str:
    number, router = split_key(key)
    return f"layer_{number:02d}" + (f"_{router}" if router else "")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    items: Iterable[tuple[str, float | None]] = values.items()
    return {f"moe/{n}": float(v) for n, v in items if v is not None and math.isfinite(v)}
