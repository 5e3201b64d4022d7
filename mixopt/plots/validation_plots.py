"""Figures of a validation: from plain values to a matplotlib `Figure`.

Shapes: S seeds, B baselines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.plots.drawing import Axes, Figure, FuncFormatter, MaxNLocator
from mixopt.plots.figure_style import (
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
    from mixopt.proposals import Comparison, Gain


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
    label(right, x=unit, title="proposal - baseline, 95% interval")
    for axes in (left, right):
        axes.set_yticks(list(rows.values()), [name_text(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    right.tick_params(labelleft=False)
    return figure


def plot_gains(gains: Mapping[str, Gain], unit: str) -> Figure:
    """Show the gain over each other mixture as it was predicted and as it was validated.

    Args:
        gains: By name of the other mixture.
        unit: Unit of the objective.
    """
    figure, axes_RC = new_figure(1.2 + 0.5 * max(len(gains), 2))
    axes = axes_RC[0, 0]
    text: str | None = "validated, 95% interval"
    for place, (name, gain) in enumerate(gains.items()):
        one = gain.validated
        _interval(axes, place, (one.value, one.low, one.high), colour_of(name, place), text)
        text = None
    axes.axvline(0, color=INK, linewidth=1.1)
    axes.grid(visible=False, axis="y")
    known = [(at + 0.24, gain.predicted) for at, gain in enumerate(gains.values())]
    told = [(at, one) for at, one in known if one is not None]
    if told:
        rows = [at for at, _ in told]
        lows, highs = [one.low for _, one in told], [one.high for _, one in told]
        axes.hlines(rows, lows, highs, color=FAINT, linewidth=1.2)
        style: dict[str, Any] = {"markerfacecolor": PAPER, "markeredgecolor": INK}
        style |= {"linestyle": "none"}
        middles = [one.value for _, one in told]
        named_so = "predicted from the trials, 90% interval"
        axes.plot(middles, rows, marker="D", markersize=6, label=named_so, **style)
    axes.set_yticks(range(len(gains)), [name_text(name) for name in gains])
    axes.set_ylim(len(gains) - 0.5, -0.6)
    label(axes, x=f"gain, {unit}; above 0 the recommended mixture is better")
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


def _differences(axes: Axes, comparisons: Sequence[Comparison], rows: Sequence[float]) -> None:
    """Draw the mean difference and its interval for each baseline, in its row."""
    for place, found in zip(rows, comparisons, strict=True):
        ends = (found.mean, found.low, found.high)
        _interval(axes, place, ends, colour_of(found.baseline, int(place)))
    axes.axvline(0, color=INK, linewidth=1.1)
    axes.grid(visible=False, axis="y")


def _interval(
    axes: Axes,
    place: float,
    ends: tuple[float, float, float],
    colour: str,
    text: str | None = None,
) -> None:
    """Draw a mean with its interval in a row."""
    mean, low, high = ends
    style: dict[str, Any] = {"color": colour, "linewidth": 2.2}
    axes.plot([low, high], [place, place], **style)
    axes.plot([mean], [place], marker="o", markersize=7, **style, label=text)
