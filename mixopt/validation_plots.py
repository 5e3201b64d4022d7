"""Figures of a validation: each function takes plain values and returns a matplotlib `Figure`.

Shapes: S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mixopt.figure_style import INK, LETTER, MARKERS, colour_of, label, legend, new_figure

if TYPE_CHECKING:
    from mixopt.validation import Comparison

Floats = NDArray[np.float64]


def plot_validation(
    values: Mapping[str, Mapping[int, float]], comparisons: Sequence[Comparison], unit: str
) -> Figure:
    """Show the runs of a validation, and the proposal's paired difference from each baseline.

    Args:
        values: The objective by mixture and seed.
        comparisons: The proposal less each baseline, with its interval.
        unit: Unit of the objective.
    """
    height = 1.1 + 0.42 * max(len(values), 3)
    figure, axes_RC = new_figure(height, 2, width_ratios=[1.15, 1])
    left, right = axes_RC[0]
    for place, (name, by_seed) in enumerate(values.items()):
        runs_S = np.array(list(by_seed.values()))
        colour = colour_of(name, place)
        left.scatter(
            runs_S, np.full(len(runs_S), place), s=22, color=colour, alpha=0.55, linewidths=0
        )
        mean = float(runs_S.mean())
        left.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, linewidth=2.6)
        left.text(
            mean,
            place - 0.34,
            f"{mean:.4f}",
            ha="center",
            va="bottom",
            fontsize=LETTER - 1,
            color=INK,
        )
    left.set_yticks(range(len(values)), [_words(name) for name in values])
    left.set_ylim(len(values) - 0.5, -0.75)
    left.grid(visible=False, axis="y")
    label(left, x=unit, title="each seed, and the mean")
    _differences(right, comparisons)
    label(right, x=unit, title="proposal less baseline, 95% interval")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def plot_predicted_validated(
    predicted: Mapping[str, float], comparisons: Sequence[Comparison], unit: str
) -> Figure:
    """Show the difference from each baseline as it was predicted and as it was validated.

    Args:
        predicted: The proposal's predicted objective less each baseline's.
        comparisons: The same, as validated, with its interval.
        unit: Unit of the objective.
    """
    figure, axes_RC = new_figure(1.2 + 0.5 * max(len(comparisons), 2))
    axes = axes_RC[0, 0]
    _differences(axes, comparisons, label_first="validated, 95% interval")
    for place, comparison in enumerate(comparisons):
        name = "predicted from the trials" if place == 0 else None
        axes.plot(
            [predicted[comparison.baseline]],
            [place + 0.22],
            marker="D",
            markersize=6,
            linestyle="none",
            markerfacecolor="none",
            markeredgecolor=INK,
            label=name,
        )
    label(axes, x=f"proposal less baseline, {unit}; below 0 the proposal is better")
    legend(axes, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2, borderaxespad=0)
    return figure


def plot_curves(curves: Mapping[str, Sequence[tuple[Floats, Floats]]], unit: str) -> Figure:
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
                label=_words(name) if number == 0 else None,
            )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    label(axes, x="training tokens", y=unit)
    legend(axes, loc="upper right")
    return figure


def _differences(
    axes: Axes, comparisons: Sequence[Comparison], label_first: str | None = None
) -> None:
    """Draw a row with the mean difference and its interval for each baseline."""
    for place, found in enumerate(comparisons):
        colour = colour_of(found.baseline, place)
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2.2)
        axes.plot(
            [found.mean],
            [place],
            marker="o",
            markersize=7,
            linestyle="none",
            color=colour,
            label=label_first if place == 0 else None,
        )
    axes.axvline(0, color=INK, linewidth=1.1)
    axes.set_yticks(range(len(comparisons)), [_words(found.baseline) for found in comparisons])
    axes.set_ylim(len(comparisons) - 0.5, -0.6)
    axes.grid(visible=False, axis="y")


def short_count(value: float) -> str:
    """Write a count for reading: 25B, 410M, 1.2k."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _words(mixture: str) -> str:
    return mixture.replace("_", " ")
