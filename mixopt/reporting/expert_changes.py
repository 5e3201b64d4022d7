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
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from mixopt.errors import RoutingError
from mixopt.online import LoggedChange
from mixopt.routing import Window, key_column
from mixopt.system import Array, BoolArray, name_text

CONFIDENCE = 0.99  # of a difference
ROUNDING = 1e-12  # added to half widths
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
        tables = [_mean_over_layers(window.domains) for window in self._windows]
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
                compared = _difference(place_W, value_W, is_before_W)
                rows.append(key | {"measure": name} | compared)
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


def _mean_over_layers(domains: pl.DataFrame) -> pl.DataFrame:
    """Return the measures of each domain, mean over layers; its share is the same in all."""
    by_domain = domains.group_by("domain", maintain_order=True)
    return by_domain.agg(pl.col("share").first(), pl.col("max_load", "own", "distance").mean())


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
    if not before:
        raise RoutingError(f"step {step}: no window of counts before the change")
    if not after:
        raise RoutingError(f"step {step}: no window of counts after the change")
    alone_before = tuple(window for window in before if window.start >= previous - 1)
    alone_after = tuple(window for window in after if window.end < next_step)
    before = before[-NEAREST:]
    if len(alone_before) >= MIN_WINDOWS:
        before = alone_before
    after = alone_after or after[:NEAREST]
    first, _ = _steps(before)
    _, last = _steps(after)
    inside = [change for change in logged if first < change.step <= last]
    return ExpertChange(logged[place], before, after, len(inside) - 1)


def _sides(windows: Sequence[Window], step: int) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
    """Return the windows that end before a step, and those that begin at it or later."""
    before = tuple(window for window in windows if window.end < step)
    after = tuple(window for window in windows if window.start >= step - 1)
    return before, after


def _difference(place_W: Array, value_W: Array, is_before_W: BoolArray) -> dict[str, Any]:
    """Return the means of both sides, and whether they differ by more than drift and noise."""
    is_finite_W = np.isfinite(value_W)
    is_first_W = is_finite_W & is_before_W
    is_later_W = is_finite_W & ~is_before_W
    row: dict[str, Any] = dict.fromkeys(_COMPARED) | {"differs": False}
    if is_first_W.any():
        row["before"] = float(value_W[is_first_W].mean())
    if is_later_W.any():
        row["after"] = float(value_W[is_later_W].mean())
    if not is_first_W.any() or not is_later_W.any():
        return row
    difference = row["after"] - row["before"]
    row["difference"] = difference
    if is_first_W.sum() < MIN_WINDOWS:
        return row
    drift = Drift.of(place_W[is_first_W], value_W[is_first_W], place_W[is_later_W])
    low = min(-drift.half_still, drift.value - drift.half_moving)
    high = max(drift.half_still, drift.value + drift.half_moving)
    row["noise"] = drift.half_moving
    row["drift"] = drift.value
    row["differs"] = not low <= difference <= high
    return row


class Drift(NamedTuple):
    """A line through windows, extrapolated to later ones.

    Attributes:
        value: Change from the first windows to the later ones along the line.
        half_still: Half width of the interval of a difference, without drift.
        half_moving: Half width of the interval about the line, with the error of its slope.
    """

    value: float
    half_still: float
    half_moving: float

    @classmethod
    def of(cls, place_W: Array, value_W: Array, later_V: Array) -> Self:
        """Fit the line to windows, for windows at later places."""
        from scipy.special import stdtrit  # Student's t; imports faster than scipy.stats

        centred_W = place_W - place_W.mean()
        squares = float(centred_W @ centred_W)
        slope = float(centred_W @ value_W) / squares
        rest_W = value_W - value_W.mean() - slope * centred_W
        freedom = len(value_W) - 2
        quantile = stdtrit(freedom, (1 + CONFIDENCE) / 2)
        scatter = quantile * np.sqrt(float(rest_W @ rest_W) / freedom)
        further = float(later_V.mean() - place_W.mean())
        of_means = 1 / len(value_W) + 1 / len(later_V)
        of_slope = further**2 / squares
        half_still = float(scatter * np.sqrt(of_means)) + ROUNDING
        half_moving = float(scatter * np.sqrt(of_means + of_slope)) + ROUNDING
        return cls(slope * further, half_still, half_moving)


def _heading(change: ExpertChange) -> list[str]:
    was = change.logged.before
    now = change.logged.after
    moved = []
    for name in dict.fromkeys([*was, *now]):
        old = was.get(name, 0)
        new = now.get(name, 0)
        if old != new:
            moved.append(f"{name} {100 * old:.1f} -> {100 * new:.1f}%")
    before = _steps_text(change.windows_before)
    after = _steps_text(change.windows_after)
    lines = [
        f"change of weights at step {change.step:,} ({change.logged.why}): {'  '.join(moved)}",
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
    columns = [f"{name_text(name):>20}" for name in COMPARED_BY_DOMAIN]
    lines = [f"{'domains':16}{''.join(columns)}"]
    for (domain,), rows in change.by_domain.group_by("domain", maintain_order=True):
        line = f"{str(domain)[:15]:16}"
        for before, after, differs in rows.select("before", "after", "differs").iter_rows():
            mark = "*" if differs else " "
            line += f"{_value_text(before)} -> {_value_text(after)}{mark}".rjust(20)
        lines.append(line)
    return lines


def _value_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _steps_text(windows: Sequence[Window]) -> str:
    first, last = _steps(windows)
    return f"{first:,} to {last:,}"


def _steps(windows: Sequence[Window]) -> tuple[int, int]:
    return windows[0].start + 1, windows[-1].end
