"""Summary of assignments: counts, tables by layer and domain, diagnoses, and logged scalars.

Undefined values, such as those of a domain without tokens, are null.

Shapes: D domains, E experts.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl

from mixopt.routing import measures
from mixopt.routing.assignments import Assignments, ExpertCounts, LayerAssignments
from mixopt.routing.diagnoses import KINDS, Diagnosis, diagnose, is_diagnosable
from mixopt.system import Array, name_text, short_count

SHOWN = 3  # printed diagnoses of a kind
# Columns of the tables of counts, by layer, and by domain.
COUNTS_SCHEMA = {
    "domain": pl.String,
    "layer": pl.Int64,
    "router": pl.String,  # "" where each layer has one
    "top_k": pl.Int64,
    "expert": pl.Int64,  # null for dropped assignments
    "even": pl.Int64,  # tokens of sequences of the even half
    "odd": pl.Int64,
    "tokens": pl.Int64,
}
LAYER_SCHEMA = {
    "layer": pl.Int64,
    "router": pl.String,  # "" where each layer has one
    "experts": pl.Int64,
    "top_k": pl.Int64,
    "tokens": pl.Int64,
    "load_entropy": pl.Float64,  # 1 is even
    "effective": pl.Float64,  # effective experts, exp(entropy), relative to all; 1 is even
    "max_load": pl.Float64,  # of the experts, relative to even; 1 is even
    "max_violation": pl.Float64,  # max_load - 1; 0 is even
    "overflow": pl.Float64,  # share of the assignments beyond a capacity of 1.25 times even
    "dead": pl.Int64,  # experts below 1% of the even load
    "dropped": pl.Float64,  # share of the assignments
    # Information of expert and domain, corrected for sample size, relative to its maximum.
    "specialisation": pl.Float64,
}
SHOWN_BY_LAYER = (
    "max_load",
    "effective",
    "load_entropy",
    "overflow",
    "dead",
    "dropped",
    "specialisation",
)
DOMAIN_SCHEMA = {
    "domain": pl.String,
    "layer": pl.Int64,
    "router": pl.String,
    "tokens": pl.Int64,
    "share": pl.Float64,
    "max_load": pl.Float64,  # load of its busiest expert relative to even, of its tokens
    "max_violation": pl.Float64,
    "starved": pl.Int64,  # experts below 10% of the even load of this domain
    "dropped": pl.Float64,
    "own": pl.Float64,  # share of its assignments to experts with a lift of at least 1.5
    "distance": pl.Float64,  # mean Jensen-Shannon distance to the other domains
}
DOMAIN_MEASURES = ("share", "max_violation", "starved", "own", "distance")  # printed
OWN = 1.5  # minimum lift of a domain's own experts

# Scalars logged during training. A name is `moe/<statistic>/<member>`: MLflow groups the members of
# a statistic. At most `MEMBERS` evenly spread layers, and as many domains, have their own scalars;
# means and extremes are over all of them.
MEMBERS = 32
# Statistics of layers: the column, and the reductions over all layers.
_LAYER_COLUMNS = {
    "max_vio": "max_violation",
    "effective_experts": "effective",
    "dead_experts": "dead",
    "specialisation": "specialisation",
    "overflow": "overflow",
    "drop_rate": "dropped",
}
_LAYER_REDUCTIONS = {
    "max_vio": ("mean", "max"),
    "effective_experts": ("mean", "min"),
    "dead_experts": ("sum",),
    "specialisation": ("mean",),
    "overflow": ("mean", "max"),
    "drop_rate": ("mean",),
}
_WITHOUT_MEMBERS = {"overflow", "drop_rate"}
# Statistics of domains, with names of their own because a domain may be called "mean".
_DOMAIN_STATISTICS = {
    "max_vio_domain": pl.col("max_violation").max(),
    "starved_experts": pl.col("starved").sum(),
    "js_mean": pl.col("distance").mean(),
}
_HELD_OUT = ("moe/specialisation/", "moe/js_mean/")  # for trials from held-out text


@dataclass(frozen=True, eq=False)
class Summary:
    """A summary of assignments.

    Attributes:
        layers: Table by layer, with columns `LAYER_SCHEMA`.
        domains: Table by domain and layer, with columns `DOMAIN_SCHEMA`.
        diagnoses: Diagnoses, by layer.
        undiagnosed: Routers with too few assignments, as `LayerAssignments.key`.
    """

    layers: pl.DataFrame
    domains: pl.DataFrame
    diagnoses: tuple[Diagnosis, ...]
    undiagnosed: tuple[str, ...]

    @classmethod
    def of(cls, assignments: Assignments) -> Self:
        """Return the summary of training assignments, whose shares are those of the mixture."""
        return cls(
            layers=layer_table(assignments),
            domains=domain_table(assignments),
            diagnoses=tuple(diagnose(assignments)),
            undiagnosed=tuple(
                layer.key for layer in assignments.layers if not is_diagnosable(layer)
            ),
        )

    @property
    def collapsed(self) -> bool:
        """Whether any layer's experts have collapsed."""
        return any(diagnosis.kind == "collapse" for diagnosis in self.diagnoses)

    def by_domain(self) -> pl.DataFrame:
        """Return a row for each domain: means over layers, or the worst layer."""
        return self.domains.group_by("domain", maintain_order=True).agg(
            pl.col("tokens", "share").first(),
            pl.col("max_violation").max(),
            pl.col("starved").sum(),
            pl.col("own", "distance").mean(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            "layers": self.layers.to_dicts(),
            "domains": self.by_domain().to_dicts(),
            "diagnoses": [diagnosis.to_json() for diagnosis in self.diagnoses],
            "undiagnosed": list(self.undiagnosed),
        }

    def __str__(self) -> str:
        """Return the summary as text of about thirty lines at most."""
        blocks = (self._layer_lines(), self._domain_lines(), self._diagnosis_lines())
        return "\n\n".join("\n".join(lines) for lines in blocks)

    def _layer_lines(self) -> list[str]:
        layers = self.layers.with_columns(key_column())
        lines = [f"{layers.height} routers: {'  '.join(layers['key'])}", ""]
        lines.append(f"{'by layer':16}{'mean':>9}{'min':>9}{'at':>5}{'max':>9}{'at':>5}")
        for name in SHOWN_BY_LAYER:
            measured = layers.select("key", name).drop_nulls()
            if measured.is_empty():
                continue
            values = measured[name].to_numpy()
            keys = measured["key"]
            low = int(values.argmin())
            high = int(values.argmax())
            lines.append(
                f"{name_text(name):16}{values.mean():9.3f}{values[low]:9.3f}{keys[low]:>5}"
                f"{values[high]:9.3f}{keys[high]:>5}"
            )
        return lines

    def _domain_lines(self) -> list[str]:
        headings = "".join(f"{name_text(name):>15}" for name in DOMAIN_MEASURES)
        lines = [f"{'by domain':16}{'tokens':>9}{headings}"]
        for row in self.by_domain().to_dicts():
            cells = "".join(f"{_cell(row[name]):>15}" for name in DOMAIN_MEASURES)
            lines.append(f"{row['domain'][:15]:16}{short_count(row['tokens']):>9}{cells}")
        return lines

    def _diagnosis_lines(self) -> list[str]:
        lines = []
        if self.undiagnosed:
            lines.append(f"too few tokens to diagnose {len(self.undiagnosed)} of the layers")
        elif not self.diagnoses:
            lines.append("no collapse, degradation or underfitting")
        for kind in KINDS:
            reasons = [str(diagnosis) for diagnosis in self.diagnoses if diagnosis.kind == kind]
            lines += reasons[:SHOWN]
            if len(reasons) > SHOWN:
                lines.append(f"{kind} in {len(reasons) - SHOWN} more")
        return lines


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def counts_table(assignments: Assignments) -> pl.DataFrame:
    """Return the tokens of each domain, layer and expert, with columns `COUNTS_SCHEMA`."""
    names = np.asarray(assignments.domains, object)
    parts: list[pl.DataFrame] = []
    for layer in assignments.layers:
        experts: list[int | None] = [*range(layer.experts), None]
        counts_HDE = np.concatenate([layer.counts_HDE, layer.dropped_HD[..., None]], -1)
        columns = {
            "domain": np.repeat(names, layer.experts + 1),
            "layer": layer.layer,
            "router": layer.router,
            "top_k": layer.top_k,
            "expert": experts * len(names),
            "even": counts_HDE[0].ravel(),
            "odd": counts_HDE[1].ravel(),
            "tokens": counts_HDE.sum(0).ravel(),
        }
        parts.append(pl.DataFrame(columns, schema=COUNTS_SCHEMA))
    return pl.concat(parts)


def layer_table(assignments: Assignments) -> pl.DataFrame:
    """Return the table by layer, with columns `LAYER_SCHEMA`."""
    rows = [_layer_row(layer) for layer in assignments.layers]
    return pl.DataFrame(rows, schema=LAYER_SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def domain_table(assignments: Assignments) -> pl.DataFrame:
    """Return the table by domain and layer, with columns `DOMAIN_SCHEMA`."""
    tables = []
    for layer in assignments.layers:
        place = {"domain": assignments.domains, "layer": layer.layer, "router": layer.router}
        tables.append(pl.DataFrame(place | _domain_columns(layer)))
    table = pl.concat(tables).with_columns(pl.col(pl.Float64).fill_nan(None))
    return table.select(list(DOMAIN_SCHEMA)).cast(pl.Schema(DOMAIN_SCHEMA))


def key_column() -> pl.Expr:
    """Return the expression for `LayerAssignments.key` from the columns `layer` and `router`."""
    return pl.format("{}/{}", "layer", "router").str.strip_suffix("/").alias("key")


def _layer_row(layer: LayerAssignments) -> Mapping[str, Any]:
    row: dict[str, Any] = {
        "layer": layer.layer,
        "router": layer.router,
        "experts": layer.experts,
        "top_k": layer.top_k,
        "tokens": int(layer.tokens_D.sum()),
    }
    counts_E = layer.counts_DE.sum(0)
    if not counts_E.sum():
        return row
    load_E = measures.load_shares(counts_E)
    shares_D = measures.load_shares(layer.tokens_D)
    information, highest = measures.corrected_information(layer.counts_HDE, shares_D)
    return row | {
        "load_entropy": measures.entropy(load_E),
        "effective": measures.effective(load_E),
        "max_load": measures.max_load(load_E),
        "max_violation": measures.max_load(load_E) - 1,
        "overflow": measures.overflow(load_E),
        "dead": int(measures.dead(load_E).sum()),
        "dropped": layer.dropped_D.sum() / (counts_E.sum() + layer.dropped_D.sum()),
        "specialisation": information / highest,
    }


def _domain_columns(layer: LayerAssignments) -> dict[str, Array]:
    """Return the columns of each domain in a layer; NaN for a domain without tokens."""
    counts_DE = layer.counts_DE
    assigned_D = counts_DE.sum(1)
    profile_DE = measures.expert_profiles(counts_DE)
    lift_DE = np.nan_to_num(measures.lift(counts_DE))
    distance_DD = measures.profile_distances(profile_DE)
    np.fill_diagonal(distance_DD, np.nan)
    is_finite_DD = np.isfinite(distance_DD)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "share": measures.load_shares(layer.tokens_D),
            "max_load": profile_DE.max(1) * layer.experts,
            "max_violation": profile_DE.max(1) * layer.experts - 1,
            "starved": measures.dead(profile_DE, measures.STARVED).sum(1),
            "dropped": layer.dropped_D / (assigned_D + layer.dropped_D),
            "own": np.where(lift_DE >= OWN, profile_DE, 0).sum(1),
            "distance": np.where(is_finite_DD, distance_DD, 0).sum(1) / is_finite_DD.sum(1),
        }
    for name, value_D in columns.items():
        columns[name] = np.where(assigned_D > 0, value_D, np.nan)
    return {"tokens": layer.tokens_D.astype(float)} | columns


def training_scalars(window: Assignments) -> dict[str, float]:
    """Return the scalars of a window of training, without unknown ones.

    `diagnoses/undiagnosed` is the number of layers with too few assignments; if that is all of
    them, diagnoses are not logged.
    """
    values = _scalars(window)
    undiagnosed = sum(not is_diagnosable(layer) for layer in window.layers)
    values["moe/diagnoses/undiagnosed"] = float(undiagnosed)
    if undiagnosed < len(window.layers):
        kinds = Counter(diagnosis.kind for diagnosis in diagnose(window))
        for kind in KINDS:
            values[f"moe/diagnoses/{kind}"] = float(kinds[kind])
    return values


def trial_scalars(counts: ExpertCounts) -> dict[str, float]:
    """Return the final scalars of a trial; domains are compared on held-out text."""
    train = training_scalars(counts.train)
    held_out = _scalars(counts.held_out)
    values = {name: value for name, value in train.items() if not name.startswith(_HELD_OUT)}
    return values | {name: held_out[name] for name in held_out if name.startswith(_HELD_OUT)}


def _scalars(assignments: Assignments) -> dict[str, float]:
    values = _layer_scalars(layer_table(assignments)) | _domain_scalars(domain_table(assignments))
    scalars: dict[str, float] = {}
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            scalars[f"moe/{name}"] = float(value)
    return scalars


def _layer_scalars(table: pl.DataFrame) -> dict[str, float | None]:
    members = np.linspace(0, table.height - 1, min(MEMBERS, table.height)).round().astype(int)
    values: dict[str, float | None] = {}
    for name, column in _LAYER_COLUMNS.items():
        for reduction in _LAYER_REDUCTIONS[name]:
            values[f"{name}/{reduction}"] = getattr(table[column], reduction)()
        if name in _WITHOUT_MEMBERS:
            continue
        for number, router, value in table.select("layer", "router", column)[members].iter_rows():
            member = f"{name}/layer_{number:02d}"
            if router:
                member = f"{member}_{router}"
            values[member] = value
    return values


def _domain_scalars(table: pl.DataFrame) -> dict[str, float | None]:
    by_domain = table.group_by("domain", maintain_order=True).agg(**_DOMAIN_STATISTICS)
    values: dict[str, float | None] = {}
    for row in by_domain.head(MEMBERS).iter_rows(named=True):
        for name in _DOMAIN_STATISTICS:
            values[f"{name}/{row['domain']}"] = row[name]
    return values
