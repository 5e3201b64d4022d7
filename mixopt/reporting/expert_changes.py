"""The effect of a change of weights on experts: windows before the change against windows after.

Routers drift during training. A line through the windows before the change extrapolates this drift.
Values between the extrapolation and no drift are not called a difference; values beyond must exceed
a Student's t interval, from the scatter about the line and the error of its slope. With fewer than
three windows before, nothing is called a difference. Measures are means over windows, not computed
on their sum, because some measures grow with fewer tokens.

Changes are compared over the windows between neighbouring changes, or if these are too few, over
the nearest windows on both sides.

Shapes: W windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from mixopt.errors import RoutingError
from mixopt.online import LoggedChange
from mixopt.routing import Window, key_column
from mixopt.system import Array, BoolArray, name_text

CONFIDENCE = 0.99  # of a difference
MIN_WINDOWS = 3  # before a change, to estimate their scatter
NEAREST = 4  # windows on each side if changes are close together
MAX_CHANGES = 3  # listed, the largest
COMPARED_BY_LAYER = ("max_load", "effective", "dead", "overflow", "specialisation")
COMPARED_BY_DOMAIN = ("share", "max_load", "own", "distance")
_COMPARED = {
    "before": pl.Float64,
    "after": pl.Float64,
    "difference": pl.Float64,
    "noise": pl.Float64,  # half width of the interval beyond the drift; null if unknown
    "drift": pl.Float64,  # the extrapolation of the windows before
    "differs": pl.Boolean,
}


@dataclass(frozen=True, eq=False)
class ExpertChange:
    """The experts of a run before and after one change of its weights.

    Attributes:
        logged: The change; its step is the first on the new weights, counted from 1.
        windows_before: Windows before the change, at least one.
        windows_after: Windows after the change, at least one.
        between: Other changes of weights within these windows.
    """

    logged: LoggedChange
    windows_before: tuple[Window, ...]
    windows_after: tuple[Window, ...]
    between: int = 0

    @property
    def step(self) -> int:
        """The first optimiser step on the new weights."""
        return self.logged.step

    @cached_property
    def by_layer(self) -> pl.DataFrame:
        """Measures of balance of each layer, before and after."""
        tables = [window.layers for window in self._windows]
        return self._compared(tables, ("layer", "router"), COMPARED_BY_LAYER)

    @cached_property
    def by_domain(self) -> pl.DataFrame:
        """Share, largest load, own experts and distance of each domain, mean over layers."""
        means = pl.col("share").first(), pl.col("max_load", "own", "distance").mean()
        tables = [
            window.domains.group_by("domain", maintain_order=True).agg(*means)
            for window in self._windows
        ]
        return self._compared(tables, ("domain",), COMPARED_BY_DOMAIN)

    @property
    def _windows(self) -> tuple[Window, ...]:
        return self.windows_before + self.windows_after

    def _compared(
        self, tables: Sequence[pl.DataFrame], keys: Sequence[str], names: Sequence[str]
    ) -> pl.DataFrame:
        place_W = np.array([(window.start + window.end) / 2 for window in self._windows])
        is_before_W = np.arange(len(place_W)) < len(self.windows_before)
        rows = []
        for number, key in enumerate(tables[0].select(keys).iter_rows(named=True)):
            for name in names:
                value_W = np.array([table[name][number] for table in tables], float)
                rows.append({**key, "measure": name, **_difference(place_W, value_W, is_before_W)})
        return pl.DataFrame(rows, schema_overrides=_COMPARED, infer_schema_length=None)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "step": self.step,
            "why": self.logged.why,
            "weights_before": dict(self.logged.before),
            "weights_after": dict(self.logged.after),
            "steps_before": _steps(self.windows_before),
            "steps_after": _steps(self.windows_after),
            "other_changes_between": self.between,
            "layers": self.by_layer.to_dicts(),
            "domains": self.by_domain.to_dicts(),
        }

    def __str__(self) -> str:
        """Return a text: how many layers differ in which measure, and differences by domain."""
        return "\n".join([*_heading(self), "", *_by_layer(self), "", *_by_domain(self)])


def expert_changes(
    windows: Sequence[Window], logged: Sequence[LoggedChange], step: int | None = None
) -> tuple[ExpertChange, ...]:
    """Return the comparison before and after each change of weights, in their order."""
    largest = sorted(range(len(logged)), key=lambda n: -logged[n].distance)
    if step is None:
        compared = [n for n in largest if all(_sides(windows, logged[n].step))]
        return tuple(_change(windows, logged, n) for n in sorted(compared[:MAX_CHANGES]))
    for place, change in enumerate(logged):
        if change.step == step:
            return (_change(windows, logged, place),)
    steps = ", ".join(f"{logged[n].step:,}" for n in largest[:10]) or "none"
    raise RoutingError(f"--change {step}: weights did not change at this step; {steps} did")


def _change(windows: Sequence[Window], logged: Sequence[LoggedChange], place: int) -> ExpertChange:
    steps = [1, *(change.step for change in logged), np.inf]
    previous, step, next_step = steps[place : place + 3]
    before, after = _sides(windows, logged[place].step)
    for side, side_windows in (("before", before), ("after", after)):
        if not side_windows:
            raise RoutingError(f"step {step}: no window of counts {side} the change")
    alone_before = tuple(window for window in before if window.start >= previous - 1)
    alone_after = tuple(window for window in after if window.end < next_step)
    before = alone_before if len(alone_before) >= MIN_WINDOWS else before[-NEAREST:]
    after = alone_after or after[:NEAREST]
    first, last = before[0].start + 1, after[-1].end
    inside = [change for change in logged if first < change.step <= last]
    return ExpertChange(logged[place], before, after, len(inside) - 1)


def _sides(windows: Sequence[Window], step: int) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
    """Return the windows that end before a step, and those that begin at it or later."""
    before = tuple(window for window in windows if window.end < step)
    return before, tuple(window for window in windows if window.start >= step - 1)


def _difference(place_W: Array, value_W: Array, is_before_W: BoolArray) -> dict[str, Any]:
    """Return the means of both sides, and whether they differ by more than drift and noise."""
    is_finite_W = np.isfinite(value_W)
    first_W, then_W = is_finite_W & is_before_W, is_finite_W & ~is_before_W
    row: dict[str, Any] = dict.fromkeys(_COMPARED) | {"differs": False}
    for side, side_W in (("before", first_W), ("after", then_W)):
        row[side] = float(value_W[side_W].mean()) if side_W.any() else None
    if not first_W.any() or not then_W.any():
        return row
    difference = row["difference"] = row["after"] - row["before"]
    if first_W.sum() < MIN_WINDOWS:
        return row
    drift, still, moving = _continued(place_W[first_W], value_W[first_W], place_W[then_W])
    low, high = min(-still, drift - moving), max(still, drift + moving)
    return row | {"noise": moving, "drift": drift, "differs": not low <= difference <= high}


def _continued(place_W: Array, value_W: Array, later_V: Array) -> tuple[float, float, float]:
    """Extrapolate a line through windows to later ones; return values and interval half widths."""
    from scipy.special import stdtrit  # quantile of Student's t; imports faster than scipy.stats

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


def _heading(change: ExpertChange) -> list[str]:
    was, now = change.logged.before, change.logged.after
    moved = "  ".join(
        f"{name} {100 * was.get(name, 0):.1f} -> {100 * now.get(name, 0):.1f}%"
        for name in dict.fromkeys([*was, *now])
        if was.get(name, 0) != now.get(name, 0)
    )
    before, after = (
        "{:,} to {:,}".format(*_steps(side))
        for side in (change.windows_before, change.windows_after)
    )
    lines = [
        f"change of weights at step {change.step:,} ({change.logged.why}): {moved}",
        f"steps {before} before it, {after} after it; * is more than drift and chance give",
    ]
    if len(change.windows_before) < MIN_WINDOWS:
        lines.append(
            f"{len(change.windows_before)} windows of counts before it, {MIN_WINDOWS} are needed to"
            " tell what chance gives: experts.every sets the steps of a window"
        )
    if change.between:
        lines.append(f"{change.between} other changes of weights fall into these steps")
    return lines


def _by_layer(change: ExpertChange) -> list[str]:
    lines = [f"{'layers':16}{'before':>10}{'after':>10}{'difference':>12}  differs in"]
    table = change.by_layer.with_columns(key_column())
    for (name,), rows in table.group_by("measure", maintain_order=True):
        measured = rows.drop_nulls("difference")
        if measured.is_empty():
            continue
        before, after = measured.select(pl.mean("before", "after")).row(0)
        marked = measured.filter("differs").sort(pl.col("difference").abs(), descending=True)
        extreme = ""
        if len(marked):
            extreme = f", most in {marked['key'][0]} ({marked['difference'][0]:+.3f})"
        lines.append(
            f"{name_text(str(name)):16}{before:>10.3f}{after:>10.3f}{after - before:>+12.3f}"
            f"  {len(marked)} of {rows.height} layers{extreme}"
        )
    return lines


def _by_domain(change: ExpertChange) -> list[str]:
    lines = [f"{'domains':16}" + "".join(f"{name_text(name):>20}" for name in COMPARED_BY_DOMAIN)]
    for (domain,), rows in change.by_domain.group_by("domain", maintain_order=True):
        line = f"{str(domain)[:15]:16}"
        for *values, differs in rows.select("before", "after", "differs").iter_rows():
            texts = ["-" if value is None else f"{value:.3f}" for value in values]
            line += f"{' -> '.join(texts) + ('*' if differs else ' '):>20}"
        lines.append(line)
    return lines


def _steps(windows: Sequence[Window]) -> tuple[int, int]:
    return windows[0].start + 1, windows[-1].end
