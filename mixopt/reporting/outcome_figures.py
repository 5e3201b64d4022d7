"""Figures of what was trained to compare: a validation and its curves, and microanneals.

Shapes: S seeds, K sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.errors import ConfigError
from mixopt.objective import UNITS
from mixopt.reporting.figure_style import (
    COLOURS,
    FAINT,
    INK,
    LETTER,
    OTHERS,
    PAPER,
    Axes,
    Figure,
    FuncFormatter,
    MaxNLocator,
    check_known,
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
    from mixopt.proposals import Anneals, Effect, Validation

EARLY = 0.2  # of the tokens of a run: what falls before is not what the axis is made for
MAX_TARGETS = 3  # of microanneals, beside the objective
MAX_TITLE = {1: 60, 2: 34, 3: 22, 4: 16}  # characters of a panel's title, by the number of panels


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


def plot_anneals(anneals: Anneals, *, targets: Sequence[str] | None = None) -> Figure:
    """Show each source's difference from the control, the best on the objective at the top.

    Args:
        anneals: The sources' effects.
        targets: Losses that have a panel beside the objective's; the first few that the
            objective measures when None.

    Raises:
        ConfigError: No anneal finished together with its control, or an unknown target.
    """
    order = [one.source for one in anneals.effects()]
    if not order:
        raise ConfigError("no anneal finished together with its control: there is nothing to show")
    if targets is None:
        targets = anneals.targets[:MAX_TARGETS] if len(anneals.targets) > 1 else ()
    check_known(targets, anneals.trials.targets, "loss")
    panels = [None, *targets]
    figure, axes_RC = new_figure(1.25 + 0.34 * max(len(order), 3), len(panels))
    for axes, target in zip(axes_RC[0], panels, strict=True):
        for one in anneals.effects(target):
            _effect(axes, order.index(one.source), one)
        axes.axvline(0, color=INK, linewidth=1.1)
        name_rows(axes, order)
        axes.xaxis.set_major_locator(MaxNLocator(3 if len(panels) > 2 else 5))
        whole = "the objective" if len(panels) > 1 else anneals.objective.describe()
        label(axes, title=written(target or whole, MAX_TITLE.get(len(panels), 12)))
        axes.tick_params(labelleft=axes is axes_RC[0, 0])
    text = f"source - control, {UNITS[anneals.objective.value_unit]}: left of 0 is better"
    figure.supxlabel(text, fontsize=LETTER, color=INK)
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


def _effect(axes: Axes, place: int, one: Effect) -> None:
    """Draw a source's mean, filled where it is significant, and its interval."""
    colour = {"better": COLOURS["proposal"], "worse": OTHERS[1]}.get(one.verdict, FAINT)
    if one.low is not None and one.high is not None:
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2.2)
    marker = {"better": "o", "worse": "s"}.get(one.verdict, "D")
    face = PAPER if marker == "D" else colour
    style: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": colour}
    axes.plot([one.mean], [place], marker=marker, markersize=6.5, linestyle="none", **style)
