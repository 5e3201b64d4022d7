"""Figures of what the experts of a model do: from assignments to a matplotlib `Figure`.

Loads are coloured as multiples of the even one, on a scale of powers of two that reads in grey
print.

Shapes: D domains, E experts, L layers, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    INK,
    LETTER,
    WARNING,
    Axes,
    Figure,
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
_PLACES = (0.0, 0.25, 0.5, 0.68, 0.85, 1.0)
_COLOURS = ("#f3faff", "#a9d6f2", "#bcbab5", "#cf8f45", "#8f3d00", "#300c00")
LOADS = LinearSegmentedColormap.from_list("load", list(zip(_PLACES, _COLOURS, strict=True)))
SCREEN = 5.2  # inches; as high as a map may be
LAYERS_SHOWN = 3
LAYERS_NAMED, EXPERTS_NAMED = 16, 32  # ticks of an axis, at most


def plot_load(assignments: Assignments) -> Figure:
    """Show the load of every expert of every layer, and how many experts do the work."""
    names = [layer.key for layer in assignments.layers]
    load_LE = np.full((len(names), max(layer.experts for layer in assignments.layers)), np.nan)
    for row, layer in zip(load_LE, assignments.layers, strict=True):
        row[: layer.experts] = load_shares(layer.counts_DE.sum(0)) * layer.experts
    figure, axes_RC = new_figure(1.7 + min(SCREEN, 0.22 * len(names)), 2, 1, width_ratios=[3.2, 1])
    left, right = axes_RC[0]
    image = _draw_loads(left, load_LE)
    every = -(-len(names) // LAYERS_NAMED)
    left.set_yticks(range(0, len(names), every), names[::every])
    left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    label(left, x="expert", y="layer")
    _workers(right, assignments)
    right.set_ylim(left.get_ylim())
    right.set_yticks(left.get_yticks(), [""] * len(left.get_yticks()))
    _load_scale(figure, image, left, location="top")
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
        image = _draw_loads(axes, profile_DE[:, order_E] * layer.experts)
        axes.set_yticks(range(len(assignments.domains)), list(map(written, assignments.domains)))
        every = -(-len(order_E) // EXPERTS_NAMED)
        axes.set_xticks(range(0, len(order_E), every), [str(one) for one in order_E[::every]])
        label(axes, title=f"layer {layer.key}")
    label(axes_RC[-1, 0], x="expert, beside those that serve the same domain")
    _load_scale(figure, image, axes_RC)
    return figure


def plot_windows(
    windows: Sequence[tuple[float, pl.DataFrame]], changes: Sequence[float] = ()
) -> Figure:
    """Show how balance and specialisation change over time, and when the weights changed."""
    ends_W = [end for end, _ in windows]
    shown = (
        ("load_entropy", "load entropy; 1 is even"),
        ("max_violation", "MaxVio: largest load above an even one"),
        ("dead", "dead experts"),
        ("specialisation", "specialisation; 1 is one domain each"),
    )
    figure, axes_RC = new_figure(4.6, 2, 2)
    for place, (name, title) in enumerate(shown):
        axes = axes_RC.flat[place]
        value_WL = np.array([table[name].to_numpy() for _, table in windows], float)
        lines = axes.plot(ends_W, value_WL, color=FAINT, linewidth=0.8, alpha=0.7)
        lines[0].set_label("a layer")
        mean_W = [np.nanmean(v) if np.isfinite(v).any() else np.nan for v in value_WL]
        axes.plot(ends_W, mean_W, color=ACCENT, linewidth=2, label="mean")
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), 1.03 * high)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        for number, change in enumerate(changes):
            about = None if number else "weights change"
            axes.axvline(change, color=INK, linewidth=0.9, dashes=(4, 2), alpha=0.5, label=about)
        label(axes, x="step" if place > 1 else "", title=title)
    legend(axes_RC[0, 0], loc="lower right")
    return figure


def _draw_loads(axes: Axes, load: Array) -> Any:
    """Draw multiples of the even load; nothing is as far down as the scale goes."""
    with np.errstate(divide="ignore"):
        powers = np.clip(np.log2(load), -DEEP, DEEP)
    axes.grid(visible=False)
    return axes.imshow(
        powers, cmap=LOADS, vmin=-DEEP, vmax=DEEP, aspect="auto", interpolation="nearest"
    )


def _load_scale(figure: Figure, image: Any, axes: Any, location: str = "right") -> None:
    """Draw the scale of the loads beside or above its axes."""
    bar = figure.colorbar(image, ax=axes, location=location, shrink=0.8, aspect=24, pad=0.02)
    bar.set_label("times an even load", fontsize=LETTER, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=LETTER - 1, colors=INK, length=2)
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])


def _workers(axes: Axes, assignments: Assignments) -> None:
    """Draw for each layer which part of its experts does the work, and which none."""
    table = layer_table(assignments).with_columns(dead=pl.col("dead") / pl.col("experts"))
    for name, line, colour in (("effective", "o-", ACCENT), ("dead", "x--", WARNING)):
        style: dict[str, Any] = {"color": colour, "markersize": 3.5, "linewidth": 1.2}
        axes.plot(table[name].to_numpy(), np.arange(table.height), line, label=name, **style)
    axes.set_xlim(-0.05, 1.05)
    legend(axes, loc="lower center", bbox_to_anchor=(0.45, 1.0), handlelength=1.2)
    label(axes, x="share of experts")


def _by_domain(layer: LayerAssignments) -> IntArray:
    """Return an order of the experts: by the domain each gets most more of, and by how much."""
    lift_DE = np.nan_to_num(lift(layer.counts_DE))
    return np.lexsort((-lift_DE.max(0), lift_DE.argmax(0))).astype(np.int64)


def _spread(assignments: Assignments) -> list[str]:
    last = len(assignments.layers) - 1
    places = np.unique(np.linspace(0, last, min(LAYERS_SHOWN, last + 1)).round().astype(int))
    return [assignments.layers[place].key for place in places]
