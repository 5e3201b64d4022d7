"""The picture of a training job: which mixture it trained on over time, and the losses meanwhile.

Shapes: D domains, T points in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.errors import ConfigError
from mixopt.plots.drawing import Axes, Figure, MaxNLocator
from mixopt.plots.figure_style import (
    COLOURS,
    FAINT,
    INK,
    LETTER,
    OTHERS,
    PAPER,
    WIDTH,
    label,
    plain,
    written,
)
from mixopt.plots.share_bands import LINE, draw_bands, name_bands
from mixopt.system import loss_text, share_text

if TYPE_CHECKING:
    from mixopt.online import TrainingHistory

LINES = ("-", "--", ":", "-.")
NAMED = 8  # losses that have a line of their own; more are grey, and their mean is drawn


def plot_training(source: TrainingHistory | str | Path) -> Figure:
    """Show the weights over a training job, and beneath its losses.

    Losses are held-out ones, of training where none were measured; of more than 8 their mean is
    drawn with all of them in grey behind it.

    Args:
        source: The directory of a pretraining, the log of an online driver, or what
            `read_history` returned.

    Raises:
        RunError: There is no such job, or a file of it is damaged.
        ConfigError: It has written neither weights nor losses yet.
    """
    from mixopt.online import TrainingHistory, read_history

    history = source if isinstance(source, TrainingHistory) else read_history(source)
    losses, what = (
        (history.held_out, "held-out") if history.held_out else (history.trained, "train")
    )
    if not history.weights and not losses:
        raise ConfigError("this job has written neither weights nor losses yet")
    shares = max(2.4, LINE * len(history.domains) + 0.4) if history.weights else 0.0
    curves = max(2.2, LINE * min(len(losses), NAMED)) if losses else 0.0
    height = 0.6 + shares + (0.35 if shares and curves else 0.0) + curves
    figure = Figure(figsize=(WIDTH * 1.25, height), facecolor=PAPER)
    lowest = None
    if curves:
        lowest = _axes(figure, 0.5, curves, height)
        _losses(lowest, losses, what)
    if shares:
        axes = _axes(figure, height - shares - 0.1, shares, height)
        _weights(axes, history)
        lowest = lowest or axes
        axes.tick_params(labelbottom=lowest is axes)
    for axes in figure.axes:
        axes.set_xlim(0, max(history.last, 1))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if lowest is not None:
        lowest.set_xlabel("optimiser step", fontsize=LETTER, color=INK)
    return figure


def _axes(figure: Figure, bottom: float, high: float, height: float) -> Axes:
    """Return axes at a place in inches; names are at their right."""
    axes = figure.add_axes((0.085, bottom / height, 0.645, high / height))
    plain(axes)
    return axes


def _weights(axes: Axes, history: TrainingHistory) -> None:
    names = history.domains
    steps = [step for step, _ in history.weights]
    shares_TD = np.array([[mix.get(name, 0.0) for name in names] for _, mix in history.weights])
    order_D = np.argsort(-shares_TD.mean(0), kind="stable")
    shares_TD = shares_TD[:, order_D]
    at_T = np.array([*steps, max(history.last, steps[-1] + 1)], float)
    at_T[0] = min(at_T[0], 1.0)
    middles_TD = draw_bands(axes, at_T, np.vstack([shares_TD, shares_TD[-1:]]), step=True)
    texts = []
    for place, first, last in zip(order_D, shares_TD[0], shares_TD[-1], strict=True):
        moved = abs(first - last) >= 5e-4
        said = f"{share_text(first)} \N{RIGHTWARDS ARROW} " if moved else ""
        texts.append(f"{written(names[place])}  {said}{share_text(last)}")
    name_bands(axes, texts, middles_TD[-1])


def _losses(axes: Axes, losses: Mapping[str, tuple[list[int], list[float]]], what: str) -> None:
    few = len(losses) <= NAMED
    palette = (*COLOURS.values(), *OTHERS)
    for number, (steps, values) in enumerate(losses.values()):
        colour = palette[number % len(palette)] if few else FAINT
        style: dict[str, Any] = {"linewidth": 1.5 if few else 0.7, "alpha": 1.0 if few else 0.6}
        axes.plot(steps, values, color=colour, linestyle=LINES[number % len(LINES)], **style)
    ends = {name: values[-1] for name, (_, values) in losses.items()}
    if not few:
        steps, means = _mean(losses)
        axes.plot(steps, means, color=COLOURS["proposal"], linewidth=2.0)
        ends = {f"mean of {len(losses)}": means[-1]}
    label(axes, y=f"{what} loss, nats per token")
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda name: ends[name])
    at_D = np.array([(ends[name] - low) / (high - low) for name in order])
    name_bands(axes, [f"{written(name)}  {loss_text(ends[name])}" for name in order], at_D)


def _mean(losses: Mapping[str, tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """Return the mean over the losses where all of them are known."""
    found = [dict(zip(steps, values, strict=True)) for steps, values in losses.values()]
    shared = sorted(set.intersection(*(set(one) for one in found)))
    if not shared:  # measured at different steps: the last of each
        return [max(max(one) for one in found)], [float(np.mean([one[max(one)] for one in found]))]
    return shared, [float(np.mean([one[step] for one in found])) for step in shared]
