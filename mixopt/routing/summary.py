"""A summary of assignments in one screen, as tables and as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from mixopt.routing import tables
from mixopt.routing.assignments import Assignments
from mixopt.routing.diagnoses import diagnose, enough
from mixopt.routing.diagnosis import Diagnosis
from mixopt.routing.probe_result import ProbeResult
from mixopt.routing.thresholds import Thresholds
from mixopt.system import name_text, short_count

SHOWN = 3  # diagnoses of a kind that are printed


@dataclass(frozen=True, eq=False)
class Summary:
    """What assignments say.

    Attributes:
        layers: By layer; `mixopt.routing.tables.LAYER_SCHEMA` says what the columns are.
        domains: By domain and layer; `DOMAIN_SCHEMA`.
        distances: Jensen-Shannon distance by layer and pair of domains; `DISTANCE_SCHEMA`.
        diagnoses: What is wrong, by layer.
        undiagnosed: Routers with too few assignments to tell, as `LayerAssignments.key`.
    """

    layers: pl.DataFrame
    domains: pl.DataFrame
    distances: pl.DataFrame
    diagnoses: tuple[Diagnosis, ...]
    undiagnosed: tuple[str, ...]

    @classmethod
    def of(
        cls,
        assignments: Assignments,
        thresholds: Thresholds | None = None,
        probe: ProbeResult | None = None,
        ranks: int | None = None,
    ) -> Summary:
        """Return what assignments say.

        Args:
            assignments: Of training; their shares are taken as the mixture.
            thresholds: From where on something is diagnosed.
            probe: Says what shared experts do.
            ranks: Of expert parallelism; up to 8 that divide the experts by default.

        Raises:
            RoutingError: So many ranks do not divide the experts of a layer.
        """
        return cls(
            layers=tables.layer_table(assignments, ranks),
            domains=tables.domain_table(assignments),
            distances=tables.distance_table(assignments),
            diagnoses=tuple(diagnose(assignments, thresholds, probe)),
            undiagnosed=tuple(
                layer.key
                for layer in assignments.layers
                if not enough(layer, thresholds or Thresholds())
            ),
        )

    @property
    def collapsed(self) -> bool:
        """Whether any layer's experts have collapsed."""
        return any(diagnosis.kind == "collapse" for diagnosis in self.diagnoses)

    def by_domain(self) -> pl.DataFrame:
        """Return one row a domain: means over layers, and the worst for violation and starving."""
        return self.domains.group_by("domain", maintain_order=True).agg(
            pl.col("tokens", "share").first(),
            pl.col("max_violation").max(),
            pl.col("starved").sum(),
            pl.col("router_entropy", "confidence", "own", "distance").mean(),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "layers": self.layers.to_dicts(),
            "domains": self.by_domain().to_dicts(),
            "distances": self.distances.to_dicts(),
            "diagnoses": [diagnosis.as_dict() for diagnosis in self.diagnoses],
            "undiagnosed": list(self.undiagnosed),
        }

    def __str__(self) -> str:
        """Return it as text of at most some thirty lines."""
        return "\n".join([*self._layer_lines(), "", *self._domain_lines(), "", *self._wrong()])

    def _layer_lines(self) -> list[str]:
        layers = self.layers.with_columns(tables.key_column())
        lines = [f"{layers.height} routers: {'  '.join(layers['key'])}", ""]
        ranks = layers["ranks"].unique(maintain_order=True)
        lines[0] += f"; worst rank: of {' or '.join(map(str, ranks))} of expert parallelism"
        lines.append(f"{'by layer':16}{'mean':>9}{'least':>9}{'at':>5}{'most':>9}{'at':>5}")
        for name in tables.SHOWN_BY_LAYER:
            known = layers.select("key", name).drop_nulls()
            if known.is_empty():
                continue
            values, keys = known[name].to_numpy(), known["key"]
            low, high = int(values.argmin()), int(values.argmax())
            lines.append(
                f"{name_text(name):16}{values.mean():9.3f}{values[low]:9.3f}{keys[low]:>5}"
                f"{values[high]:9.3f}{keys[high]:>5}"
            )
        return lines

    def _domain_lines(self) -> list[str]:
        shown = ("share", "max_violation", "starved", "router_entropy", "own", "distance")
        lines = [f"{'by domain':16}{'tokens':>9}" + "".join(f"{name_text(n):>15}" for n in shown)]
        for row in self.by_domain().to_dicts():
            cells = "".join(f"{_cell(row[name]):>15}" for name in shown)
            lines.append(f"{row['domain'][:15]:16}{short_count(row['tokens']):>9}{cells}")
        return lines

    def _wrong(self) -> list[str]:
        lines = []
        if self.undiagnosed:
            lines.append(f"too few tokens to diagnose {len(self.undiagnosed)} of the layers")
        elif not self.diagnoses:
            lines.append("no collapse, degradation or underfitting")
        for kind in ("collapse", "degradation", "underfitting"):
            found = [str(one) for one in self.diagnoses if one.kind == kind]
            lines += found[:SHOWN]
            if len(found) > SHOWN:
                lines.append(f"{kind} in {len(found) - SHOWN} more")
        return lines


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
