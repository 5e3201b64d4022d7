"""Figures of what the experts of a model do: from assignments to a matplotlib `Figure`.

Those of all layers at a glance are in `mixopt.reporting.expert_maps`, that of a change of weights
in `mixopt.reporting.expert_change_plot`; how loads are coloured, in `mixopt.reporting.load_scale`.

Shapes: D domains, E experts, L layers, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mixopt.reporting.expert_change_plot import mark_changes, name_changes
from mixopt.reporting.figure_style import (
    COLOURS,
    FAINT,
    INK,
    LETTER,
    Figure,
    MaxNLocator,
    label,
    legend,
    new_figure,
    written,
)
from mixopt.reporting.load_scale import NEAR, colour_scale, draw_loads, load_scale
from mixopt.routing import (
    Assignments,
    LayerAssignments,
    expert_profiles,
    layer_table,
    lift,
    load_shares,
    profile_distances,
)
from mixopt.system import IntArray

LAYERS_SHOWN = 3


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
        image = draw_loads(axes, profile_DE[:, order_E] * layer.experts)
        axes.set_yticks(range(len(assignments.domains)), list(map(written, assignments.domains)))
        axes.set_xticks(*_expert_ticks(order_E, 32))
        label(axes, title=f"layer {layer.key}")
    label(axes_RC[-1, 0], x="expert, beside those that serve the same domain")
    load_scale(figure, image, axes_RC)
    return figure


def plot_windows(
    windows: Sequence[tuple[float, Assignments]],
    unit: str = "step",
    changes: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Show how balance and specialisation change over time.

    Args:
        windows: The end of each window and what was counted in it.
        unit: What the ends are counted in.
        changes: Where the weights changed, in the same unit, and what changed.
    """
    tables = [(end, layer_table(assignments)) for end, assignments in windows]
    return plot_tables(tables, unit, changes)


def plot_tables(
    tables: Sequence[tuple[float, pl.DataFrame]],
    unit: str = "step",
    changes: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Show what `plot_windows` shows, of the layer tables of its windows."""
    ends_W = [end for end, _ in tables]
    shown = (
        ("load_entropy", "load entropy; 1 is even"),
        ("max_violation", "busiest expert above an even load"),
        ("router_entropy", "router entropy; 1 is undecided"),
        ("specialisation", "specialisation; 1 is one domain each"),
    )
    figure, axes_RC = new_figure(4.6, 2, 2)
    for axes, (name, title) in zip(axes_RC.flat, shown, strict=True):
        value_LW = np.array([table[name].to_numpy() for _, table in tables], float).T
        for layer_W in value_LW:
            axes.plot(ends_W, layer_W, color=FAINT, linewidth=0.8, alpha=0.7)
        axes.plot([], [], color=FAINT, linewidth=0.8, label="a layer")
        mean_W = [np.nanmean(v) if np.isfinite(v).any() else np.nan for v in value_LW.T]
        axes.plot(ends_W, mean_W, color=COLOURS["proposal"], linewidth=2, label="mean")
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), 1.03 * high)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        mark_changes(axes, (place for place, _ in changes))
        label(axes, title=title)
    legend(axes_RC[0, 0], loc="lower right")
    for axes in axes_RC[1]:
        label(axes, x=unit, title=axes.get_title(loc="left"))
    name_changes(figure, changes, unit)
    return figure


def plot_expert_history(
    windows: Sequence[tuple[float, Assignments]],
    layer: int | str,
    unit: str = "step",
    changes: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Show the load of each expert of a layer over time, in all and of each domain.

    Args:
        windows: The end of each window and what was counted in it.
        layer: The model's own number of the layer.
        unit: What the ends are counted in.
        changes: Where the weights changed, as in `plot_windows`.

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
        image = draw_loads(axes, load_EW * found[-1].experts)
        ticks = np.unique(np.linspace(0, len(windows) - 1, min(3, len(windows))).astype(int))
        axes.set_xticks(ticks, [f"{windows[w][0]:g}" for w in ticks])
        axes.set_yticks(*_expert_ticks(order_E, 8))
        mark_changes(axes, _in_windows(changes, windows))
        label(axes, title=written(names[place]))
    name_changes(figure, changes, unit)
    figure.supxlabel(unit, fontsize=LETTER, color=INK)
    figure.supylabel(f"expert of layer {layer}", fontsize=LETTER, color=INK)
    load_scale(figure, image, axes_RC)
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
    names = list(map(written, assignments.domains))
    figure, axes_RC = new_figure(1.1 + 5.6 / len(chosen), len(chosen), 1)
    image: Any = None
    for axes, layer in zip(axes_RC[0], chosen, strict=True):
        distance_DD = profile_distances(expert_profiles(layer.counts_DE))
        image = axes.imshow(distance_DD, cmap=NEAR, vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names if axes is axes_RC[0, 0] else [""] * len(names))
        label(axes, title=f"layer {layer.key}")
    colour_scale(figure, image, axes_RC, "Jensen-Shannon distance")
    return figure


def _in_windows(
    changes: Sequence[tuple[float, str]], windows: Sequence[tuple[float, Assignments]]
) -> list[float]:
    """Return where changes are on an axis on which each window is one cell."""
    ends_W = [end for end, _ in windows]
    first = ends_W[0] - (ends_W[1] - ends_W[0]) if len(ends_W) > 1 else 0.0
    edges = np.arange(len(ends_W) + 1) - 0.5
    return [float(np.interp(place, [first, *ends_W], edges)) for place, _ in changes]


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
