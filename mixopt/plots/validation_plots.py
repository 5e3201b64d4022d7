"""Figures of a validation: its runs, its gains, and its learning curves.

Shapes: S seeds, B baselines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.errors import ConfigError
from mixopt.objective import UNITS
from mixopt.plots.drawing import Axes, Figure, FuncFormatter, MaxNLocator
from mixopt.plots.figure_style import (
    FAINT,
    INK,
    LETTER,
    PAPER,
    colour_of,
    label,
    legend,
    marker_of,
    new_figure,
    written,
)
from mixopt.system import Array, name_text, short_count

if TYPE_CHECKING:
    from mixopt.proposals import Comparison, Interval, Recommendation, Validation

EARLY = 0.2  # of the tokens of a run: what falls before is not what the axis is made for


def plot_validation(validation: Validation) -> Figure:
    """Show the runs of a validation, and the leading proposal's difference from each baseline.

    Args:
        validation: The runs, compared by their objective.
    """
    unit = UNITS[validation.objective.value_unit]
    rows = {name: place for place, name in enumerate(validation.mixtures)}
    compared = validation.comparisons
    figure, axes_RC = new_figure(1.1 + 0.42 * max(len(rows), 3), 2, width_ratios=[1.15, 1])
    left, right = axes_RC[0]
    for name, place in rows.items():
        runs_S = np.array(list(validation.values(name).values()))
        _runs(left, place, runs_S, (name, place))
    _differences(right, compared, [rows[found.baseline] for found in compared])
    label(left, x=unit, title="each seed, and the mean")
    leading = written(name_text(validation.leading))
    label(right, x=unit, title=f"{leading} - baseline, 95% interval")
    for axes in (left, right):
        axes.set_yticks(list(rows.values()), [written(name_text(name)) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    right.tick_params(labelleft=False)
    return figure


def plot_gains(recommendation: Recommendation) -> Figure:
    """Show the gain over each other mixture as it was predicted and as it was validated.

    Args:
        recommendation: With its gains.

    Raises:
        ConfigError: No other mixture was validated.
    """
    gains = recommendation.gains
    if not gains:
        raise ConfigError("a figure of no gains was asked for: no other mixture was validated")
    figure, axes_RC = new_figure(1.2 + 0.5 * max(len(gains), 2))
    axes = axes_RC[0, 0]
    text: str | None = "validated, 95% interval"
    for place, (name, gain) in enumerate(gains.items()):
        one = gain.validated
        _interval(axes, place, (one.value, one.low, one.high), (name, place), text)
        text = None
    axes.axvline(0, color=INK, linewidth=1.1)
    axes.grid(visible=False, axis="y")
    _predictions(axes, [gain.predicted for gain in gains.values()])
    axes.set_yticks(range(len(gains)), [written(name_text(name)) for name in gains])
    axes.set_ylim(len(gains) - 0.5, -0.6)
    label(axes, x=f"gain, {UNITS[recommendation.unit]}; above 0 the recommended mixture is better")
    legend(axes, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2, borderaxespad=0)
    return figure


def _predictions(axes: Axes, gains: Sequence[Interval | None]) -> None:
    """Draw predicted gains, each below the validated one."""
    told = [(place + 0.24, one) for place, one in enumerate(gains) if one is not None]
    if not told:
        return
    rows = [at for at, _ in told]
    lows, highs = [one.low for _, one in told], [one.high for _, one in told]
    axes.hlines(rows, lows, highs, color=FAINT, linewidth=1.2)
    style: dict[str, Any] = {"markerfacecolor": PAPER, "markeredgecolor": INK}
    style |= {"linestyle": "none"}
    middles = [one.value for _, one in told]
    named_so = "predicted from the trials, 90% interval"
    axes.plot(middles, rows, marker="D", markersize=6, label=named_so, **style)


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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    low, high = _late([line for lines in curves.values() for line in lines])
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    label(axes, x="training tokens", y=unit)
    legend(axes, loc="upper right")
    return figure


def _late(lines: Sequence[tuple[Array, Array]]) -> tuple[float, float]:
    """Return the lowest and the highest objective after the first fifth of the tokens."""
    last = max(float(tokens[-1]) for tokens, _ in lines)
    kept = [objective[tokens > EARLY * last] for tokens, objective in lines]
    values = np.concatenate(kept)
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def _runs(axes: Axes, place: float, runs_S: Array, look: tuple[str, int]) -> None:
    """Draw a row with a dot for each seed, and the mean."""
    colour = colour_of(*look)
    style: dict[str, Any] = {"color": colour, "alpha": 0.7, "linewidths": 0}
    axes.scatter(runs_S, np.full(len(runs_S), place), s=24, marker=marker_of(*look), **style)
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
        _interval(axes, place, ends, (found.baseline, int(place)))
    axes.axvline(0, color=INK, linewidth=1.1)
    axes.grid(visible=False, axis="y")


def _interval(
    axes: Axes,
    place: float,
    ends: tuple[float, float, float],
    look: tuple[str, int],
    text: str | None = None,
) -> None:
    """Draw a mean with its interval in a row."""
    mean, low, high = ends
    style: dict[str, Any] = {"color": colour_of(*look), "linewidth": 2.2}
    axes.plot([low, high], [place, place], **style)
    axes.plot([mean], [place], marker=marker_of(*look), markersize=7, **style, label=text)
