"""Figures of what the experts of a model do: from assignments to a matplotlib `Figure`.

A load is shown as a multiple of the even one on a scale of powers of two, white where it is even:
blue is less, orange more, and an expert that is given nothing is as dark as the scale goes.

Shapes: D domains, E experts, L layers, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixopt.reporting.drawing import Axes, Figure, LinearSegmentedColormap, MaxNLocator
from mixopt.reporting.figure_style import COLOURS, FAINT, INK, LETTER, label, legend, new_figure
from mixopt.routing import (
    Assignments,
    LayerAssignments,
    expert_profiles,
    layer_table,
    lift,
    load_shares,
    profile_distances,
)
from mixopt.system import Array, IntArray

DEEP = 3.0  # powers of two to either side of the scale
LAYERS_SHOWN = 3
_LOADS = LinearSegmentedColormap.from_list(
    "load", ["#08306b", COLOURS["proposal"], "#f4f4f2", "#e69f00", "#7f2704"]
)
_NEAR = LinearSegmentedColormap.from_list("distance", ["#f4f4f2", COLOURS["proposal"], "#08306b"])


def plot_domain_experts(
    assignments: Assignments, layers: Sequence[int | str] | None = None
) -> Figure:
    """Show how each domain's tokens fall on the experts.

    Args:
        assignments: What was counted.
        layers: The layers to show, by the model's numbers; the first, the middle and the last by
            default.

    Raises:
        RoutingError: A layer that has no router.
    """
    chosen = [assignments.layer(number) for number in layers or _spread(assignments)]
    height = 0.75 + 0.19 * len(assignments.domains)
    figure, axes_RC = new_figure(0.6 + height * len(chosen), 1, len(chosen))
    image: Any = None
    for axes, layer in zip(axes_RC[:, 0], chosen, strict=True):
        profile_DE = expert_profiles(layer.counts_DE)
        order_E = _by_domain(layer)
        image = _loads(axes, profile_DE[:, order_E] * layer.experts)
        axes.set_yticks(range(len(assignments.domains)), assignments.domains)
        axes.set_xticks(*_expert_ticks(order_E, 32))
        label(axes, title=f"layer {layer.key}")
    label(axes_RC[-1, 0], x="expert, beside those that serve the same domain")
    _scale(figure, image, axes_RC)
    return figure


def plot_load(assignments: Assignments) -> Figure:
    """Show the load of each layer's experts, busiest first, and how even it is.

    Args:
        assignments: What was counted.
    """
    layers = assignments.layers
    figure, axes_RC = new_figure(1.6 + 0.2 * len(layers), 2, 1, width_ratios=[3, 1])
    left, right = axes_RC[0]
    most = max(layer.experts for layer in layers)
    load_LE = np.full((len(layers), most), np.nan)
    for place, layer in enumerate(layers):
        load_E = load_shares(layer.counts_DE.sum(0)) * layer.experts
        load_LE[place, : layer.experts] = np.sort(load_E)[::-1]
    image = _loads(left, load_LE)
    places, numbers = range(len(layers)), [layer.key for layer in layers]
    every = max(1, len(layers) // 16)
    left.set_yticks(places[::every], numbers[::every])
    left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    label(left, x="expert, by load", y="layer")
    table = layer_table(assignments)
    right.plot(table["load_entropy"], places, color=INK, marker="o", markersize=3.5, linewidth=1.2)
    right.set_xlim(0, 1.03)
    right.set_ylim(left.get_ylim())
    right.set_yticks(places[::every], numbers[::every])
    label(right, x="load entropy; 1 is even")
    _scale(figure, image, left)
    return figure


def plot_windows(windows: Sequence[tuple[float, Assignments]], unit: str = "step") -> Figure:
    """Show how balance and specialisation change over time.

    Args:
        windows: The end of each window and what was counted in it.
        unit: What the ends are counted in.
    """
    ends_W = [end for end, _ in windows]
    tables = [layer_table(assignments) for _, assignments in windows]
    shown = (
        ("load_entropy", "load entropy; 1 is even"),
        ("max_violation", "busiest expert above an even load"),
        ("router_entropy", "router entropy; 1 is undecided"),
        ("specialisation", "specialisation; 1 is one domain each"),
    )
    figure, axes_RC = new_figure(4.6, 2, 2)
    for axes, (name, title) in zip(axes_RC.flat, shown, strict=True):
        value_LW = np.array([table[name].to_numpy() for table in tables], float).T
        for layer_W in value_LW:
            axes.plot(ends_W, layer_W, color=FAINT, linewidth=0.8, alpha=0.7)
        axes.plot([], [], color=FAINT, linewidth=0.8, label="a layer")
        mean_W = [np.nanmean(v) if np.isfinite(v).any() else np.nan for v in value_LW.T]
        axes.plot(ends_W, mean_W, color=COLOURS["proposal"], linewidth=2, label="mean")
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), 1.03 * high)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        label(axes, title=title)
    legend(axes_RC[0, 0], loc="lower right")
    for axes in axes_RC[1]:
        label(axes, x=unit, title=axes.get_title(loc="left"))
    return figure


def plot_expert_history(
    windows: Sequence[tuple[float, Assignments]], layer: int | str, unit: str = "step"
) -> Figure:
    """Show the load of each expert of a layer over time, in all and of each domain.

    Args:
        windows: The end of each window and what was counted in it.
        layer: The model's own number of the layer.
        unit: What the ends are counted in.

    Raises:
        RoutingError: The layer has no router.
    """
    found = [assignments.layer(layer) for _, assignments in windows]
    names = ["all domains", *windows[-1][1].domains]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes_RC = new_figure(0.8 + 1.7 * rows, columns, rows)
    order_E = _by_domain(found[-1])
    image: Any = None
    for place, axes in enumerate(axes_RC.flat):
        if place >= len(names):
            axes.set_visible(False)
            continue
        counts_WE = [
            one.counts_DE.sum(0) if not place else one.counts_DE[place - 1] for one in found
        ]
        load_EW = np.array([load_shares(counts_E) for counts_E in counts_WE]).T[order_E]
        image = _loads(axes, load_EW * found[-1].experts)
        ticks = np.unique(np.linspace(0, len(windows) - 1, min(3, len(windows))).astype(int))
        axes.set_xticks(ticks, [f"{windows[w][0]:g}" for w in ticks])
        axes.set_yticks(*_expert_ticks(order_E, 8))
        label(axes, title=names[place])
    figure.supxlabel(unit, fontsize=LETTER, color=INK)
    figure.supylabel(f"expert of layer {layer}", fontsize=LETTER, color=INK)
    _scale(figure, image, axes_RC)
    return figure


def plot_distances(assignments: Assignments, layers: Sequence[int | str] | None = None) -> Figure:
    """Show how far apart the domains' experts are.

    Args:
        assignments: What was counted.
        layers: The layers to show; the first, the middle and the last by default.

    Raises:
        RoutingError: A layer that has no router.
    """
    chosen = [assignments.layer(number) for number in layers or _spread(assignments)]
    names = assignments.domains
    figure, axes_RC = new_figure(1.1 + 5.6 / len(chosen), len(chosen), 1)
    image: Any = None
    for axes, layer in zip(axes_RC[0], chosen, strict=True):
        distance_DD = profile_distances(expert_profiles(layer.counts_DE))
        image = axes.imshow(distance_DD, cmap=_NEAR, vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names if axes is axes_RC[0, 0] else [""] * len(names))
        label(axes, title=f"layer {layer.key}")
    bar = figure.colorbar(image, ax=axes_RC, shrink=0.7, aspect=18)
    bar.set_label("Jensen-Shannon distance", fontsize=LETTER, color=INK)
    bar.outline.set_visible(False)
    return figure


def _loads(axes: Axes, load: Array) -> Any:
    """Draw multiples of the even load; nothing is as far down as the scale goes."""
    with np.errstate(divide="ignore"):
        powers = np.clip(np.log2(load), -DEEP, DEEP)
    axes.grid(visible=False)
    return axes.imshow(
        powers, cmap=_LOADS, vmin=-DEEP, vmax=DEEP, aspect="auto", interpolation="nearest"
    )


def _scale(figure: Figure, image: Any, axes: Any) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=24, pad=0.02)
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    bar.set_label("times an even load", fontsize=LETTER, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=LETTER - 1, colors=INK, length=2)


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
