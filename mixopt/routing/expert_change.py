"""The effect of a change of weights on experts: the windows before it against those after it.

Routers drift while they train, so a number after a change is not held against the number before it
alone. A line through the windows before says how far the number would have come had it continued as
it did; between that and no drift at all nothing is a difference, and beyond it only what exceeds
chance, as Student's t has it: the scatter of the windows about the line, and, beyond the line, how
far off its slope may be, which counts for more the further it is continued. With fewer than three
windows before, the scatter is not known, and nothing is called a difference.

A number is the mean over windows, not that of their sum: some, such as the busiest expert's load,
come out larger from fewer tokens, and windows are of as many steps before and after.

Shapes: W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np
import polars as pl

from mixopt.errors import RoutingError
from mixopt.routing.assignments import Assignments
from mixopt.routing.record import Window
from mixopt.system import Array, BoolArray

CONFIDENCE = 0.99  # that chance alone does not give what is called a difference
COMPARED_BY_LAYER = ("busiest", "effective", "dead", "overflow", "worst_rank", "specialisation")
COMPARED_BY_DOMAIN = ("share", "busiest", "own", "distance")
_COMPARED: dict[str, Any] = {
    "measure": pl.String,
    "before": pl.Float64,
    "after": pl.Float64,
    "difference": pl.Float64,
    "noise": pl.Float64,  # what chance gives beyond the drift; null where it is not known
    "drift": pl.Float64,  # what the windows before would come to, had they continued
    "differs": pl.Boolean,
}
BY_LAYER_SCHEMA = {"layer": pl.Int64, "router": pl.String, **_COMPARED}
BY_DOMAIN_SCHEMA = {"domain": pl.String, **_COMPARED}


@dataclass(frozen=True, eq=False)
class ExpertChange:
    """The experts of a run before and after one change of its weights.

    Attributes:
        step: The first optimiser step on the new weights, counted from 1.
        why: What changed them, as the mixture log says.
        weights_before: Share of each domain until then.
        weights_after: Share of each domain from then on.
        windows_before: Windows of steps before it, at least one.
        windows_after: Windows of steps after it, at least one.
        between: Other changes of weights that fall into these windows.
    """

    step: int
    why: str
    weights_before: Mapping[str, float]
    weights_after: Mapping[str, float]
    windows_before: tuple[Window, ...]
    windows_after: tuple[Window, ...]
    between: int = 0

    def __post_init__(self) -> None:
        """Check that there is something on both sides."""
        for side, windows in (("before", self.windows_before), ("after", self.windows_after)):
            if not windows:
                raise RoutingError(f"step {self.step}: no window of counts {side} the change")

    @cached_property
    def before(self) -> Assignments:
        """What was assigned before."""
        return reduce(add, (window.assignments for window in self.windows_before))

    @cached_property
    def after(self) -> Assignments:
        """What was assigned after."""
        return reduce(add, (window.assignments for window in self.windows_after))

    @cached_property
    def by_layer(self) -> pl.DataFrame:
        """Measures of balance of each layer; `BY_LAYER_SCHEMA` says what the columns are."""
        return self._compared(_of_layers, ("layer", "router"), COMPARED_BY_LAYER).cast(
            pl.Schema(BY_LAYER_SCHEMA)
        )

    @cached_property
    def by_domain(self) -> pl.DataFrame:
        """Share, busiest expert, own experts and distance of each domain, means over layers."""
        return self._compared(_domain_means, ("domain",), COMPARED_BY_DOMAIN).cast(
            pl.Schema(BY_DOMAIN_SCHEMA)
        )

    def _compared(self, table: _Table, keys: Sequence[str], names: Sequence[str]) -> pl.DataFrame:
        windows = [*self.windows_before, *self.windows_after]
        tables = [table(window) for window in windows]
        place_W = np.array([(window.start + window.end) / 2 for window in windows])
        is_before_W = np.arange(len(windows)) < len(self.windows_before)
        rows = []
        for number, key in enumerate(tables[0].select(keys).iter_rows(named=True)):
            for name in names:
                value_W = np.array([one[name][number] for one in tables], float)
                rows.append({**key, "measure": name, **_difference(place_W, value_W, is_before_W)})
        return pl.DataFrame(rows, infer_schema_length=None)


_Table = Callable[[Window], pl.DataFrame]


def _of_layers(window: Window) -> pl.DataFrame:
    return window.tables[0]


def _domain_means(window: Window) -> pl.DataFrame:
    return (
        window.tables[1]
        .group_by("domain", maintain_order=True)
        .agg(pl.col("share").first(), pl.col("busiest", "own", "distance").mean())
    )


def _difference(place_W: Array, value_W: Array, is_before_W: BoolArray) -> dict[str, Any]:
    """Return the means of both sides, and whether they differ by more than drift and chance."""
    known_W = np.isfinite(value_W)
    first_W, then_W = known_W & is_before_W, known_W & ~is_before_W
    if not first_W.any() or not then_W.any():
        sides = (("before", first_W), ("after", then_W))
        return {n: float(value_W[w].mean()) if w.any() else None for n, w in sides} | _UNKNOWN
    before, after = float(value_W[first_W].mean()), float(value_W[then_W].mean())
    found = {"before": before, "after": after, "difference": after - before}
    if first_W.sum() < 3:
        return found | {"noise": None, "drift": None, "differs": False}
    drift, still, moving = _continued(place_W[first_W], value_W[first_W], place_W[then_W])
    low, high = min(-still, drift - moving), max(still, drift + moving)
    differs = not low <= after - before <= high
    return found | {"noise": moving, "drift": drift, "differs": differs}


_UNKNOWN: dict[str, Any] = {"difference": None, "noise": None, "drift": None, "differs": False}


def _continued(place_W: Array, value_W: Array, later_V: Array) -> tuple[float, float, float]:
    """Return how far a line through windows comes at later ones, and what chance gives."""
    from scipy.special import stdtrit  # the quantile of Student's t; lighter than scipy.stats

    centred_W = place_W - place_W.mean()
    squares = float(centred_W @ centred_W)
    slope = float(centred_W @ value_W) / squares
    rest_W = value_W - value_W.mean() - slope * centred_W
    free = len(value_W) - 2
    wide = stdtrit(free, (1 + CONFIDENCE) / 2) * np.sqrt(float(rest_W @ rest_W) / free)
    further = float(later_V.mean() - place_W.mean())
    means = 1 / len(value_W) + 1 / len(later_V)
    still, moving = (wide * np.sqrt(means + part) for part in (0.0, further**2 / squares))
    return slope * further, float(still) + 1e-12, float(moving) + 1e-12
