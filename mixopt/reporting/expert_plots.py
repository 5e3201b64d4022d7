"""Figures of what the experts of a model do: from assignments to a matplotlib `Figure`.

Loads are coloured as multiples of the even one, on a scale of powers of two that reads in grey
print. Maps are as high as a screen, of one
layer or of a hundred; with more experts than can be seen a cell stands for several.

Shapes: D domains, E experts, L layers, W windows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from mixopt.reporting.expert_changes import ExpertChange
from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    INK,
    LETTER,
    PAPER,
    WARNING,
    Axes,
    Figure,
    FuncFormatter,
    LinearSegmentedColormap,
    MaxNLocator,
    label,
    legend,
    new_figure,
    written,
)
from mixopt.routing import (
    Assignments,
    LayerAssignments,
    expert_profiles,
    layer_table,
    lift,
    load_shares,
)
from mixopt.system import Array, IntArray

DEEP = 3.0  # powers of two to either side of the scale
LOADS = LinearSegmentedColormap.from_list(
    "load",
    list(
        zip(
            (0.0, 0.25, 0.5, 0.68, 0.85, 1.0),
            ("#f3faff", "#a9d6f2", "#bcbab5", "#cf8f45", "#8f3d00", "#300c00"),
            strict=True,
        )
    ),
)
CELLS = 256  # of a row, at most; more cannot be seen beside each other
SCREEN = 5.2  # inches; as high as a map may be


def draw_loads(axes: Axes, load: Array) -> Any:
    """Draw multiples of the even load; nothing is as far down as the scale goes."""
    with np.errstate(divide="ignore"):
        powers = np.clip(np.log2(load), -DEEP, DEEP)
    axes.grid(visible=False)
    return axes.imshow(
        powers, cmap=LOADS, vmin=-DEEP, vmax=DEEP, aspect="auto", interpolation="nearest"
    )


def load_scale(figure: Figure, image: Any, axes: Any, location: str = "right") -> None:
    """Draw the scale of `draw_loads` beside or above its axes."""
    bar = figure.colorbar(image, ax=axes, location=location, shrink=0.8, aspect=24, pad=0.02)
    bar.set_label("times an even load", fontsize=LETTER, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=LETTER - 1, colors=INK, length=2)
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])


def fewer_cells(load_LE: Array) -> tuple[Array, int]:
    """Return a map of at most `CELLS` columns, and of how many experts each column is."""
    layers, experts = load_LE.shape
    each = -(-experts // CELLS)
    if each == 1:
        return load_LE, 1
    columns = -(-experts // each)
    padded = np.full((layers, columns * each), np.nan)
    padded[:, :experts] = load_LE
    parts = padded.reshape(layers, columns, each)
    with np.errstate(divide="ignore"):
        far = np.nan_to_num(np.abs(np.log2(parts)), nan=-1.0, posinf=np.inf)
    chosen = far.argmax(2)[:, :, None]
    return np.take_along_axis(parts, chosen, 2)[:, :, 0], each


def layer_ticks(axes: Axes, names: Sequence[str], most: int = 16) -> None:
    """Name the rows of a map of layers, some of them where they are many."""
    places = range(len(names))
    every = max(1, -(-len(names) // most))
    axes.set_yticks(places[::every], names[::every])


LAYERS_SHOWN = 3
LABELLED = 4  # changes of weights that are named above a figure over time; all have a line
MANY = 12  # changes of weights whose lines are faint


def plot_load(assignments: Assignments) -> Figure:
    """Show the load of every expert of every layer, and how many experts do the work."""
    layers = assignments.layers
    names = [layer.key for layer in layers]
    load_LE = np.full((len(layers), max(layer.experts for layer in layers)), np.nan)
    for row, layer in zip(load_LE, layers, strict=True):
        row[: layer.experts] = load_shares(layer.counts_DE.sum(0)) * layer.experts
    shown, each = fewer_cells(load_LE)
    height = 1.7 + min(SCREEN, 0.22 * len(names))
    figure, axes_RC = new_figure(height, 2, 1, width_ratios=[3.2, 1])
    left, right = axes_RC[0]
    image = draw_loads(left, shown)
    layer_ticks(left, names)
    left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if each > 1:
        left.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x) * each}"))
    cells = "expert" if each == 1 else f"expert; of {each} the one farthest from even"
    label(left, x=cells, y="layer")
    _workers(right, assignments)
    right.set_ylim(left.get_ylim())
    right.set_yticks(left.get_yticks(), [""] * len(left.get_yticks()))
    load_scale(figure, image, left, location="top")
    return figure


def plot_domain_experts(
    assignments: Assignments, layers: Sequence[int | str] | None = None
) -> Figure:
    """Show how each domain's tokens fall on the experts."""
    chosen = [assignments.layer(number) for number in layers or _spread(assignments)]
    height = 0.75 + 0.19 * len(assignments.domains)
    figure, axes_RC = new_figure(0.6 + height * len(chosen), 1, len(chosen))
    image: Any = None
    for axes, layer in zip(axes_RC[:, 0], chosen, strict=True):
        profile_DE = expert_profiles(layer.counts_DE)
        order_E = _by_domain(layer)
        image = draw_loads(axes, profile_DE[:, order_E] * layer.experts)
        axes.set_yticks(range(len(assignments.domains)), list(map(written, assignments.domains)))
        axes.set_xticks(*_expert_ticks(order_E, 32))
        label(axes, title=f"layer {layer.key}")
    label(axes_RC[-1, 0], x="expert, beside those that serve the same domain")
    load_scale(figure, image, axes_RC)
    return figure


def plot_windows(
    windows: Sequence[tuple[float, pl.DataFrame]],
    unit: str = "step",
    changes: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Show how balance and specialisation change over time."""
    ends_W = [end for end, _ in windows]
    shown = (
        ("load_entropy", "load entropy; 1 is even"),
        ("max_violation", "busiest expert above an even load"),
        ("dead", "dead experts"),
        ("specialisation", "specialisation; 1 is one domain each"),
    )
    figure, axes_RC = new_figure(4.6, 2, 2)
    for axes, (name, title) in zip(axes_RC.flat, shown, strict=True):
        value_LW = np.array([table[name].to_numpy() for _, table in windows], float).T
        for layer_W in value_LW:
            axes.plot(ends_W, layer_W, color=FAINT, linewidth=0.8, alpha=0.7)
        axes.plot([], [], color=FAINT, linewidth=0.8, label="a layer")
        mean_W = [np.nanmean(v) if np.isfinite(v).any() else np.nan for v in value_LW.T]
        axes.plot(ends_W, mean_W, color=ACCENT, linewidth=2, label="mean")
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), 1.03 * high)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _mark_changes(axes, (place for place, _ in changes))
        label(axes, title=title)
    legend(axes_RC[0, 0], loc="lower right")
    for axes in axes_RC[1]:
        label(axes, x=unit, title=axes.get_title(loc="left"))
    _name_changes(figure, changes, unit)
    return figure


def plot_expert_change(change: ExpertChange) -> Figure:
    """Show the experts before and after a change of weights, and the weights beside them."""
    before, after = change.before, change.after
    after.check_sizes(before.domains, before.sizes, f"step {change.step}: before the change")
    names = [layer.key for layer in after.layers]
    was, now = change.logged.before, change.logged.after
    domains = list(dict.fromkeys([*was, *now]))
    height = 1.4 + max(min(SCREEN, 0.2 * len(names)), 0.19 * len(domains))
    figure, axes_RC = new_figure(height, 3, 1, width_ratios=[1.25, 1, 1])
    title = f"Weights changed from step {change.step:,} on: {written(change.logged.why, 80)}"
    figure.suptitle(title, fontsize=LETTER + 1, color=INK, x=0.01, ha="left")
    left, middle, right = axes_RC[0]
    _weights(left, domains, was, now)
    tables = layer_table(before), layer_table(after)
    for axes, column, title in (
        (middle, "busiest", "busiest over even"),
        (right, "effective", "effective share of experts"),
    ):
        _pairs(axes, *(table[column].to_numpy() for table in tables))
        axes.set_ylim(len(names) - 0.4, -0.6)
        layer_ticks(axes, names)
        label(axes, x=title, y="layer" if axes is middle else "")
    _by_powers(middle, max(float(table["busiest"].max() or 1) for table in tables))  # type: ignore[arg-type]
    right.set_xlim(0, 1.03)
    return figure


def _mark_changes(axes: Axes, places: Iterable[float]) -> None:
    """Draw a line where the weights changed."""
    low, high = sorted(axes.get_xlim())
    inside = [place for place in places if low <= place <= high]
    strength = 1.0 if len(inside) <= MANY else 0.25  # many must not hide what they mark
    for place in inside:
        axes.axvline(
            place, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=3, alpha=strength
        )


def _name_changes(figure: Figure, changes: Sequence[tuple[float, str]], unit: str) -> None:
    """Write above a figure what changed at its lines; of the first few."""
    if not changes:
        return
    lines = [f"{unit} {place:,g}: {text}" for place, text in changes[:LABELLED]]
    if len(changes) > LABELLED:
        lines.append(f"{len(changes) - LABELLED} more")
    title = "Weights changed (dashed) after " + ";  ".join(lines)
    figure.suptitle(textwrap.fill(title, 105), fontsize=LETTER - 0.5, color=INK, x=0.01, ha="left")


def _workers(axes: Axes, assignments: Assignments) -> None:
    """Draw for each layer which part of its experts does the work, and which none."""
    table = layer_table(assignments).with_columns(dead=pl.col("dead") / pl.col("experts"))
    for name, line, colour in (
        ("effective", "o-", ACCENT),
        ("dead", "x--", WARNING),
    ):
        axes.plot(
            table[name].to_numpy(),
            np.arange(table.height),
            line,
            color=colour,
            label=name,
            markersize=3.5,
            linewidth=1.2,
        )
    axes.set_xlim(-0.05, 1.05)
    legend(axes, loc="lower center", bbox_to_anchor=(0.45, 1.0), handlelength=1.2)
    label(axes, x="share of experts")


def _multiple_text(value: float, _: object = None) -> str:
    """Return a multiple as text, a small one as a fraction."""
    return f"{value:g}" if value >= 1 or value <= 0 else f"1/{1 / value:g}"


def _weights(
    axes: Axes,
    domains: Sequence[str],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> None:
    """Draw each domain's weight before and after, in per cent."""
    rows = np.arange(len(domains))
    was = np.array([100 * before.get(name, 0.0) for name in domains])
    now = np.array([100 * after.get(name, 0.0) for name in domains])
    _pairs(axes, was, now, named=True)
    axes.set_yticks(
        rows, list(map(written, domains)), fontsize=LETTER if len(domains) <= 12 else LETTER - 2.5
    )
    axes.set_ylim(len(domains) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max(was.max(), now.max()))
    legend(axes, loc="lower left", bbox_to_anchor=(-0.05, 1.0), ncols=2, columnspacing=0.8)
    label(axes, x="weight, %")


def _by_powers(axes: Axes, most: float) -> None:
    """Let an axis go from 1 by powers of two to one that is beyond the most."""
    top = max(1, int(np.ceil(np.log2(max(most, 1.0)) + 0.1)))
    axes.set_xscale("log", base=2)
    axes.set_xlim(2**-0.1, 2**top)
    axes.set_xticks([2.0**n for n in range(0, top + 1, -(-top // 6))])
    axes.xaxis.set_major_formatter(FuncFormatter(_multiple_text))


def _pairs(axes: Axes, before: Array, after: Array, *, named: bool = False) -> None:
    """Draw a pair in each row: a ring is before, a dot after."""
    rows = np.arange(len(before))
    size = 5.0 if len(rows) <= 30 else 3.0
    axes.hlines(rows, before, after, color=FAINT, linewidth=1.2, zorder=1)
    ring: dict[str, Any] = {"markerfacecolor": PAPER, "markeredgecolor": WARNING}
    labels = ("before", "after") if named else (None, None)
    axes.plot(before, rows, "o", label=labels[0], markersize=size, zorder=2, **ring)
    dot: dict[str, Any] = {"color": ACCENT, "markersize": size - 0.5}
    axes.plot(after, rows, "o", label=labels[1], zorder=3, **dot)
    axes.grid(visible=False, axis="y")


def _by_domain(layer: LayerAssignments) -> IntArray:
    """Return an order of the experts: by the domain each gets most more of, and by how much."""
    lift_DE = np.nan_to_num(lift(layer.counts_DE))
    return np.lexsort((-lift_DE.max(0), lift_DE.argmax(0))).astype(np.int64)


def _expert_ticks(order_E: IntArray, most: int) -> tuple[list[int], list[str]]:
    every = -(-len(order_E) // most)
    places = list(range(0, len(order_E), every))
    return places, [str(order_E[place]) for place in places]


def _spread(assignments: Assignments) -> list[str]:
    last = len(assignments.layers) - 1
    places = np.unique(np.linspace(0, last, min(LAYERS_SHOWN, last + 1)).round().astype(int))
    return [assignments.layers[place].key for place in places]
