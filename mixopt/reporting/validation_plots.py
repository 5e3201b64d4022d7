"""Figures of a validation: from plain values to a matplotlib `Figure`.

Shapes: S seeds, B baselines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.reporting.drawing import Axes, Figure, FuncFormatter, MaxNLocator
from mixopt.reporting.figure_style import (
    FAINT,
    INK,
    LETTER,
    MARKERS,
    PAPER,
    colour_of,
    label,
    legend,
    new_figure,
)
from mixopt.system import Array, name_text, short_count

if TYPE_CHECKING:
    from mixopt.proposals import Comparison


def plot_validation(
    values: Mapping[str, Mapping[int, float]], comparisons: Sequence[Comparison], unit: str
) -> Figure:
    """Show the runs of a validation, and the proposal's paired difference from each baseline.

    Args:
        values: The objective by mixture and seed.
        comparisons: The proposal less each baseline, with its interval.
        unit: Unit of the objective.
    """
    rows = {name: place for place, name in enumerate(values)}
    figure, axes_RC = new_figure(1.1 + 0.42 * max(len(rows), 3), 2, width_ratios=[1.15, 1])
    left, right = axes_RC[0]
    for name, place in rows.items():
        _runs(left, place, np.array(list(values[name].values())), colour_of(name, place))
    _differences(right, comparisons, [rows[found.baseline] for found in comparisons])
    label(left, x=unit, title="each seed, and the mean")
    label(right, x=unit, title="proposal less baseline, 95% interval")
    for axes in (left, right):
        axes.set_yticks(list(rows.values()), [name_text(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    right.tick_params(labelleft=False)
    return figure


def plot_predicted_validated(
    predicted: Mapping[str, tuple[float, float, float]],
    comparisons: Sequence[Comparison],
    unit: str,
) -> Figure:
    """Show the difference from each baseline as it was predicted and as it was validated.

    Args:
        predicted: The proposal's predicted objective less each baseline's, and the ends of its
            interval.
        comparisons: The same, as validated, with its interval.
        unit: Unit of the objective.
    """
    figure, axes_RC = new_figure(1.2 + 0.5 * max(len(comparisons), 2))
    axes = axes_RC[0, 0]
    rows_B = np.arange(len(comparisons))
    _differences(axes, comparisons, list(rows_B), named="validated, 95% interval")
    middles, lows, highs = zip(*(predicted[c.baseline] for c in comparisons), strict=True)
    axes.hlines(rows_B + 0.24, lows, highs, color=FAINT, linewidth=1.2)
    style: dict[str, Any] = {"markerfacecolor": PAPER, "markeredgecolor": INK, "linestyle": "none"}
    named = "predicted from the trials"
    axes.plot(middles, rows_B + 0.24, marker="D", markersize=6, label=named, **style)
    axes.set_yticks(rows_B, [name_text(found.baseline) for found in comparisons])
    axes.set_ylim(len(comparisons) - 0.5, -0.6)
    label(axes, x=f"proposal less baseline, {unit}; below 0 the proposal is better")
    legend(axes, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2, borderaxespad=0)
    return figure


def plot_curves(curves: Mapping[str, Sequence[tuple[Array, Array]]], unit: str) -> Figure:
    """Show the objective while the validation runs train, a thin line for each seed.

    Args:
        curves: By mixture, for each seed, tokens and objective, of equal shapes.
        unit: Unit of the objective.
    """
    figure, axes_RC = new_figure(3.6)
    axes = axes_RC[0, 0]
    for place, (name, lines) in enumerate(curves.items()):
        colour = colour_of(name, place)
        for number, (tokens, objective) in enumerate(lines):
            axes.plot(
                tokens,
                objective,
                color=colour,
                linewidth=1.3,
                alpha=0.8,
                markersize=3.5,
                marker=MARKERS.get(name, "o"),
                label=name_text(name) if number == 0 else None,
            )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    label(axes, x="training tokens", y=unit)
    legend(axes, loc="upper right")
    return figure


def _runs(axes: Axes, place: float, runs_S: Array, colour: str) -> None:
    """Draw a row with a dot for each seed, and the mean."""
    axes.scatter(runs_S, np.full(len(runs_S), place), s=22, color=colour, alpha=0.55, linewidths=0)
    axes.grid(visible=False, axis="y")
    if len(runs_S):
        mean = float(runs_S.mean())
        text: dict[str, Any] = {"ha": "center", "va": "bottom", "color": INK}
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, linewidth=2.6)
        axes.text(mean, place - 0.34, f"{mean:.4f}", fontsize=LETTER - 1, **text)


def _differences(
    axes: Axes, comparisons: Sequence[Comparison], rows: Sequence[float], named: str | None = None
) -> None:
    """Draw the mean difference and its interval for each baseline, in its row."""
    for place, found in zip(rows, comparisons, strict=True):
        style: dict[str, Any] = {"color": colour_of(found.baseline, int(place)), "linewidth": 2.2}
        axes.plot([found.low, found.high], [place, place], **style)
        axes.plot([found.mean], [place], marker="o", markersize=7, **style, label=named)
        named = None
    axes.axvline(0, color=INK, linewidth=1.1)
    axes.grid(visible=False, axis="y")
