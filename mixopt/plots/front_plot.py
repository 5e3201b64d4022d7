"""The picture of a Pareto front: what is traded, and how the mixture moves along it.

Shapes: P points, N trials.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.plots.drawing import Axes, Figure, MaxNLocator, PercentFormatter
from mixopt.plots.figure_style import (
    COLOURS,
    FAINT,
    INK,
    LETTER,
    PAPER,
    label,
    new_figure,
    written,
)
from mixopt.plots.share_bands import BANDS
from mixopt.plots.shown_domains import largest
from mixopt.system import Array, share_text

if TYPE_CHECKING:
    from mixopt.proposals import Front
    from mixopt.trials import Trials

PAIRS = 3  # panels at most: of more targets the first pairs are shown
NAMED = 18  # domains that have a band of their own: of more those with the largest shares
HATCHED = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++")
LEAST = 0.06  # of the tokens: a narrower band has no number


def plot_front(front: Front, trials: Trials | None = None) -> Figure:
    """Show predicted losses of each pair of targets, and each point's weights beneath.

    Args:
        front: The points.
        trials: Finished trials, drawn behind with their observed losses.
    """
    pairs = list(combinations(front.targets, 2))[:PAIRS]
    figure, axes_RC = new_figure(3.4 + 0.8 + 0.34 * len(front.points), len(pairs), 2)
    for axes, (first, second) in zip(axes_RC[0], pairs, strict=True):
        _trade(axes, front, first, second, trials)
    marks, names = axes_RC[0, 0].get_legend_handles_labels()
    figure.legend(
        marks,
        names,
        frameon=False,
        fontsize=LETTER,
        labelcolor=INK,
        loc="outside upper right",
        ncols=2,
    )
    for axes in axes_RC[1, 1:]:
        axes.remove()
    _weights(axes_RC[1, 0], front)
    axes_RC[1, 0].set_subplotspec(axes_RC[1, 0].get_gridspec()[1, :])
    return figure


def _trade(axes: Axes, front: Front, first: str, second: str, trials: Trials | None) -> None:
    if trials is not None:
        seen = dict(zip(trials.targets, trials.losses(front.unit).T, strict=True))
        axes.scatter(seen[first], seen[second], s=11, color=FAINT, linewidths=0, label="a trial")
    points = sorted(front.points, key=lambda point: point.losses[first].value)
    x_P, y_P = ([p.losses[name].value for p in points] for name in (first, second))
    if len(front.targets) == 2:  # of more, the front is a surface
        axes.plot(x_P, y_P, color=COLOURS["proposal"], linewidth=1.2)
    axes.scatter(x_P, y_P, s=26, color=COLOURS["proposal"], zorder=3, label="a proposal, predicted")
    for number, point in enumerate(front.points, start=1):
        at = (point.losses[first].value, point.losses[second].value)
        axes.annotate(
            str(number), at, (5, 4), textcoords="offset points", fontsize=LETTER - 1, color=INK
        )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    label(axes, x=f"loss on {written(first)}", y=f"loss on {written(second)}")


def _weights(axes: Axes, front: Front) -> None:
    first = front.points[0].proposal.mixture
    domains = largest(first, [point.proposal.mixture for point in front.points], NAMED)
    places = np.arange(len(front.points), dtype=float)
    left_P = np.zeros(len(front.points))
    for domain, (hatch, colour) in zip(domains, _looks(), strict=False):
        widths_P = np.array([point.proposal.mixture[domain] for point in front.points])
        _band(axes, places, widths_P, left_P, (colour, hatch), written(domain, 22))
        for place, width, left in zip(places, widths_P, left_P, strict=True):
            if width >= LEAST:
                axes.annotate(
                    share_text(width),
                    (left + width / 2, place),
                    ha="center",
                    va="center",
                    fontsize=LETTER - 2,
                    bbox={"boxstyle": "square,pad=0.1", "color": PAPER, "alpha": 0.8},
                )
        left_P += widths_P
    if len(domains) < len(first):
        others = f"{len(first) - len(domains)} others"
        _band(axes, places, np.maximum(1 - left_P, 0), left_P, (PAPER, ""), others)
    axes.set_yticks(places, [str(number + 1) for number in range(len(places))])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x="share of the training tokens", y="proposal")
    axes.legend(
        frameon=False,
        fontsize=LETTER - 1,
        labelcolor=INK,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )


def _looks() -> Iterator[tuple[str, str]]:
    """Yield hatches and colours, both others each time: in grey the hatch tells bands apart."""
    return zip(itertools.cycle(HATCHED), itertools.cycle(BANDS), strict=False)


def _band(
    axes: Axes, places: Array, widths_P: Array, left_P: Array, look: tuple[str, str], text: str
) -> None:
    style: dict[str, Any] = {"height": 0.72, "color": look[0], "hatch": look[1]}
    style |= {"edgecolor": FAINT, "linewidth": 0.4}
    axes.barh(places, widths_P, left=left_P, label=text, **style)
