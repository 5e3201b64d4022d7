"""Figures of all layers at a glance: their experts' loads, and what they do for each domain.

They are as high as a screen, of one layer or of a hundred; with more experts than can be seen
beside each other, a cell stands for several, and the distribution beside the map is of each.

Shapes: D domains, E experts, L layers.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mixopt.reporting.figure_style import (
    COLOURS,
    FAINT,
    INK,
    LETTER,
    OTHERS,
    Axes,
    Figure,
    FuncFormatter,
    MaxNLocator,
    label,
    legend,
    new_figure,
    written,
)
from mixopt.reporting.load_scale import (
    DEEP,
    NEAR,
    SCREEN,
    colour_scale,
    draw_loads,
    draw_map,
    fewer_cells,
    layer_ticks,
    load_scale,
)
from mixopt.routing import Assignments, domain_table, key_column, layer_table, load_shares
from mixopt.system import Array

LEAST = 1 / 64  # of an even load; less is drawn there on an axis of powers

MOST = 5  # powers of two; how far the scale of the busiest expert of a domain goes

# What is shown of a domain in a layer: column, title, whether it is drawn by powers of two.
DOMAIN_MEASURES = (
    ("busiest", "busiest over even", True),
    ("own", "share to own experts", False),
    ("distance", "distance to others", False),
)


def plot_load(assignments: Assignments) -> Figure:
    """Show the load of every expert of every layer, how it is spread, and how many do the work.

    Args:
        assignments: What was counted.
    """
    names = [layer.key for layer in assignments.layers]
    load_LE = loads_of(assignments)
    shown, each = fewer_cells(load_LE)
    height = 1.7 + min(SCREEN, 0.22 * len(names))
    figure, axes_RC = new_figure(height, 3, 1, width_ratios=[3.2, 1.5, 1])
    left, middle, right = axes_RC[0]
    image = draw_loads(left, shown)
    layer_ticks(left, names)
    left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if each > 1:
        left.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x) * each}"))
    cells = "expert" if each == 1 else f"expert; of {each} the one farthest from even"
    label(left, x=cells, y="layer")
    _ring(left, load_LE, each)
    _spread_of_loads(middle, load_LE)
    _workers(right, assignments)
    for axes in (middle, right):
        axes.set_ylim(left.get_ylim())
        axes.set_yticks(left.get_yticks(), [""] * len(left.get_yticks()))
    load_scale(figure, image, left, location="top")
    return figure


def plot_layer_domains(assignments: Assignments) -> Figure:
    """Show of each domain in each layer its busiest expert, own experts and distance to others.

    Args:
        assignments: What was counted; of as much text of each domain where domains are compared.
    """
    names = [layer.key for layer in assignments.layers]
    domains = assignments.domains
    table = domain_table(assignments).with_columns(key_column())
    place = {key: number for number, key in enumerate(names)}
    letters = LETTER - 1 if len(domains) <= 12 else LETTER - 3
    longest = 0.075 * letters / LETTER * max(map(len, domains))
    height = 1.3 + min(2.0, longest) + min(SCREEN, 0.22 * len(names))
    figure, axes_RC = new_figure(height, len(DOMAIN_MEASURES), 1)
    for axes, (column, title, by_powers) in zip(axes_RC[0], DOMAIN_MEASURES, strict=True):
        value_LD = np.full((len(names), len(domains)), np.nan)
        for key, domain, value in table.select("key", "domain", column).iter_rows():
            value_LD[place[key], domains.index(domain)] = np.nan if value is None else value
        shown = np.log2(value_LD) if by_powers else value_LD
        image = draw_map(axes, shown, NEAR, 0, MOST if by_powers else 1)
        bar = colour_scale(figure, image, axes, title, "top")
        if by_powers:
            bar.set_ticks(range(MOST + 1), labels=[str(2**n) for n in range(MOST + 1)])
        axes.set_xticks(
            range(len(domains)), list(map(written, domains)), rotation=90, fontsize=letters
        )
        layer_ticks(axes, names)
        label(axes, y="layer" if axes is axes_RC[0, 0] else "")
    return figure


def loads_of(assignments: Assignments) -> Array:
    """Return each expert's load as a multiple of the even one, shape (L, E).

    NaN where a layer has fewer experts than another, or no tokens.
    """
    layers = assignments.layers
    load_LE = np.full((len(layers), max(layer.experts for layer in layers)), np.nan)
    for row, layer in zip(load_LE, layers, strict=True):
        row[: layer.experts] = load_shares(layer.counts_DE.sum(0)) * layer.experts
    return load_LE


def _spread_of_loads(axes: Axes, load_LE: Array) -> None:
    """Draw for each layer the least and the most load, the middle 80%, and the median."""
    places = np.arange(len(load_LE))
    known = np.isfinite(load_LE).any(1)
    load_LE, places = load_LE[known], places[known]
    if not len(places):
        return
    low, tenth, half, most, high = np.maximum(
        np.nanquantile(load_LE, [0, 0.1, 0.5, 0.9, 1], axis=1), LEAST
    )
    axes.axvline(1, color=FAINT, linewidth=0.8)
    axes.hlines(places, low, high, color=FAINT, linewidth=0.9)
    thick = float(np.clip(150 / len(places), 1.6, 5))
    axes.hlines(places, tenth, most, color=COLOURS["proposal"], linewidth=thick)
    axes.plot(half, places, "|", color=INK, markersize=thick + 3, label="median")
    axes.plot(high, places, ">", color=OTHERS[1], markersize=3.5, label="busiest")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(multiple_text))
    legend(axes, loc="lower center", bbox_to_anchor=(0.45, 1.0), handlelength=1.2)
    label(axes, x="times an even load")


def _ring(axes: Axes, load_LE: Array, each: int) -> None:
    """Put a ring around experts beyond the scale: a cell of a pixel's width is not seen."""
    rows, experts = np.nonzero(np.nan_to_num(load_LE) > 2**DEEP)
    axes.plot(
        experts // each,
        rows,
        "o",
        markersize=5.5,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=0.8,
    )


def _workers(axes: Axes, assignments: Assignments) -> None:
    """Draw for each layer which part of its experts does the work, and which none."""
    table = layer_table(assignments).with_columns(dead=pl.col("dead") / pl.col("experts"))
    for name, line, colour in (
        ("effective", "o-", COLOURS["proposal"]),
        ("dead", "x--", OTHERS[1]),
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


def multiple_text(value: float, _: object = None) -> str:
    """Return a multiple as text, a small one as a fraction."""
    return f"{value:g}" if value >= 1 or value <= 0 else f"1/{1 / value:g}"
