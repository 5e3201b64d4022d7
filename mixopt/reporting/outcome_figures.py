"""Figures of a validation and its curves.

Shapes: S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.objective import UNITS
from mixopt.reporting.figure_style import (
    INK,
    LETTER,
    Axes,
    Figure,
    FuncFormatter,
    MaxNLocator,
    colour_of,
    label,
    legend,
    marker_of,
    name_rows,
    new_figure,
    written,
)
from mixopt.system import Array, name_text, short_count

if TYPE_CHECKING:
    from mixopt.proposals import Validation

EARLY = 0.2  # of the tokens of a run: what falls before is not what the axis is made for


def plot_validation(validation: Validation) -> Figure:
    """Show the runs of a validation, and the leading proposal's difference from each baseline.

    Args:
        validation: The runs, compared by their objective.
    """
    unit = UNITS[validation.objective.value_unit]
    rows = {name: place for place, name in enumerate(validation.mixtures)}
    figure, axes_RC = new_figure(1.1 + 0.42 * max(len(rows), 3), 2, width_ratios=[1.15, 1])
    left, right = axes_RC[0]
    for name, place in rows.items():
        runs_S = np.array(list(validation.values(name).values()))
        _runs(left, place, runs_S, (name, place))
    for found in validation.comparisons:
        place = rows[found.baseline]
        style: dict[str, Any] = {"color": colour_of(found.baseline, place), "linewidth": 2.2}
        right.plot([found.low, found.high], [place, place], **style)
        marker = marker_of(found.baseline, place)
        right.plot([found.mean], [place], marker=marker, markersize=7, **style)
    right.axvline(0, color=INK, linewidth=1.1)
    label(left, x=unit, title="each seed, and the mean")
    leading = written(name_text(validation.leading))
    label(right, x=unit, title=f"{leading} - baseline, 95% interval")
    for axes in (left, right):
        name_rows(axes, [name_text(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    right.tick_params(labelleft=False)
    return figure


def plot_validation_curves(
    curves: Mapping[str, Sequence[tuple[Array, Array]]], unit: str
) -> Figure:
    """Show the objective while the validation runs train, a thin line for each seed.

    The axis of the objective has the values after the first fifth of the tokens, for the drop
    before it is many times what the mixtures differ by at the end; lines come in from outside.

    Args:
        curves: By mixture, for each seed, tokens and objective, of equal shapes.
        unit: Unit of the objective.
    """
    figure, axes_RC = new_figure(3.6)
    axes = axes_RC[0, 0]
    for place, (name, lines) in enumerate(curves.items()):
        for number, (tokens, objective) in enumerate(lines):
            axes.plot(
                tokens,
                objective,
                color=colour_of(name, place),
                linewidth=1.3,
                alpha=0.8,
                markersize=3.5,
                marker=marker_of(name, place),
                label=written(name_text(name)) if number == 0 else None,
            )
    every = [line for lines in curves.values() for line in lines]
    last = max(float(tokens[-1]) for tokens, _ in every)
    late = np.concatenate([objective[tokens > EARLY * last] for tokens, objective in every])
    low, high = float(late.min()), float(late.max())
    margin = 0.05 * (high - low) or 0.01
    axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    label(axes, x="training tokens", y=unit)
    legend(axes, loc="upper right")
    return figure


def _runs(axes: Axes, place: float, runs_S: Array, look: tuple[str, int]) -> None:
    """Draw a row with a dot for each seed, and the mean."""
    colour = colour_of(*look)
    style: dict[str, Any] = {"color": colour, "alpha": 0.7, "linewidths": 0}
    axes.scatter(runs_S, np.full(len(runs_S), place), s=24, marker=marker_of(*look), **style)
    if len(runs_S):
        mean = float(runs_S.mean())
        text: dict[str, Any] = {"ha": "center", "va": "bottom", "color": INK}
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, linewidth=2.6)
        axes.text(mean, place - 0.34, f"{mean:.4f}", fontsize=LETTER - 1, **text)
