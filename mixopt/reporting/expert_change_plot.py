"""Figures of a change of the mixture: experts before and after it, and where it was.

Shapes: D domains, E experts, L layers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mixopt.reporting.expert_maps import loads_of, multiple_text
from mixopt.reporting.figure_style import (
    COLOURS,
    FAINT,
    INK,
    LETTER,
    OTHERS,
    PAPER,
    WIDTH,
    Axes,
    Figure,
    FuncFormatter,
    MaxNLocator,
    label,
    legend,
    plain,
    written,
)
from mixopt.reporting.load_scale import (
    SCREEN,
    draw_loads,
    fewer_cells,
    layer_ticks,
    load_scale,
)
from mixopt.routing import ExpertChange, layer_table
from mixopt.system import Array

LABELLED = 4  # changes of weights that are named above a figure over time; all have a line
MANY = 12  # changes of weights whose lines are faint
SEEN = 1e-9  # what counts as tokens before and after, to divide by


def plot_expert_change(change: ExpertChange) -> Figure:
    """Show the experts before and after a change of weights, and the weights beside them.

    Above are the loads of all layers before and after, and how many times as much each expert has
    after. Below is what was before and what is after, in one row: each domain's weight, and for
    each layer its busiest expert and the share of the experts that do the work.

    Args:
        change: The change, with what was counted on both sides of it.

    Raises:
        RoutingError: The two sides are of other experts.
    """
    before, after = change.before, change.after
    after.check_sizes(before.domains, before.sizes, f"step {change.step}: before the change")
    before_LE, after_LE = loads_of(before), loads_of(after)
    names = [layer.key for layer in after.layers]
    domains = list(dict.fromkeys([*change.weights_before, *change.weights_after]))
    rows = 0.2 * len(names)
    upper = 1.4 + min(0.6 * SCREEN, rows)
    lower = 1.0 + max(min(0.6 * SCREEN, rows), 0.19 * len(domains))
    size = (WIDTH, 0.4 + upper + lower)
    figure = Figure(figsize=size, layout="constrained", facecolor=PAPER)
    parts: Any = figure.subfigures(2, 1, height_ratios=[upper, lower])
    above, below = parts
    title = f"Weights changed from step {change.step:,} on: {written(change.why, 80)}"
    figure.suptitle(title, fontsize=LETTER + 1, color=INK, x=0.01, ha="left")
    _maps(above, before_LE, after_LE, names)
    _what_changed(below, change, domains, names, (before_LE, after_LE))
    return figure


def _what_changed(
    figure: Any,
    change: ExpertChange,
    domains: Sequence[str],
    names: Sequence[str],
    load_LE: tuple[Array, Array],
) -> None:
    axes_C = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.25, 1, 1]})
    for axes in axes_C:
        plain(axes)
    _weights(axes_C[0], domains, change.weights_before, change.weights_after)
    before, after = layer_table(change.before), layer_table(change.after)
    for axes, column, title in (
        (axes_C[1], "busiest", "busiest over even"),
        (axes_C[2], "effective", "effective share of experts"),
    ):
        _pairs(axes, *(table[column].to_numpy() for table in (before, after)))
        axes.set_ylim(len(names) - 0.4, -0.6)
        layer_ticks(axes, names)
        label(axes, x=title, y="layer" if axes is axes_C[1] else "")
    _by_powers(axes_C[1], max(float(np.nan_to_num(side).max()) for side in load_LE))
    axes_C[2].set_xlim(0, 1.03)


def mark_changes(axes: Axes, places: Iterable[float]) -> None:
    """Draw a line where the weights changed.

    Args:
        axes: With their limits as they shall be.
        places: On the axis.
    """
    low, high = sorted(axes.get_xlim())
    inside = [place for place in places if low <= place <= high]
    strength = 1.0 if len(inside) <= MANY else 0.25  # many must not hide what they mark
    for place in inside:
        axes.axvline(
            place, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=3, alpha=strength
        )


def name_changes(figure: Figure, changes: Sequence[tuple[float, str]], unit: str) -> None:
    """Write above a figure what changed at its lines; of the first few.

    Args:
        figure: Whose axes have the lines.
        changes: Where, and what.
        unit: What they are counted in.
    """
    if not changes:
        return
    said = [f"{unit} {place:,g}: {text}" for place, text in changes[:LABELLED]]
    if len(changes) > LABELLED:
        said.append(f"{len(changes) - LABELLED} more")
    title = "Weights changed (dashed) after " + ";  ".join(said)
    lines = textwrap.fill(title, 105)
    figure.suptitle(lines, fontsize=LETTER - 0.5, color=INK, x=0.01, ha="left")


def _maps(figure: Any, before_LE: Array, after_LE: Array, names: Sequence[str]) -> None:
    """Draw the loads before and after, and how many times as much there is after."""
    axes_C = figure.subplots(1, 3, sharey=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        # An expert that had nothing and has nothing has as much as before.
        ratio_LE = np.where(before_LE == after_LE, 1.0, after_LE / np.maximum(before_LE, SEEN))
    ratio_LE = np.where(np.isfinite(before_LE), ratio_LE, np.nan)
    titles = ("before", "after", "after over before")
    for axes, load_LE, title in zip(axes_C, (before_LE, after_LE, ratio_LE), titles, strict=True):
        plain(axes)
        shown, each = fewer_cells(load_LE)
        image = draw_loads(axes, shown)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if each > 1:
            axes.xaxis.set_major_formatter(FuncFormatter(_numbered(each)))
        label(axes, x="expert", y="layer" if axes is axes_C[0] else "", title=title)
    layer_ticks(axes_C[0], names)
    load_scale(
        figure,
        image,
        axes_C,
        "times an even load; after over before: times the load before",
        "bottom",
    )


def _numbered(each: int) -> Any:
    return lambda place, _: f"{int(place) * each}"


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
    axes.xaxis.set_major_formatter(FuncFormatter(multiple_text))


def _pairs(axes: Axes, before: Array, after: Array, *, named: bool = False) -> None:
    """Draw a pair in each row: a ring is before, a dot after."""
    rows = np.arange(len(before))
    size = 5.0 if len(rows) <= 30 else 3.0
    axes.hlines(rows, before, after, color=FAINT, linewidth=1.2, zorder=1)
    axes.plot(
        before,
        rows,
        "o",
        label="before" if named else None,
        markersize=size,
        markerfacecolor=PAPER,
        markeredgecolor=OTHERS[1],
        zorder=2,
    )
    axes.plot(
        after,
        rows,
        "o",
        label="after" if named else None,
        markersize=size - 0.5,
        color=COLOURS["proposal"],
        zorder=3,
    )
    axes.grid(visible=False, axis="y")
