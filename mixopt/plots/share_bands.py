"""Shares over time as stacked bands, told apart by their names at the right and by light and dark.

Not by hue, so that a figure can be printed in grey and has room for sixty domains.

Shapes: D domains, T points in time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from mixopt.plots.drawing import Axes, PercentFormatter
from mixopt.plots.figure_style import FAINT, INK, LETTER, label
from mixopt.system import Array

LINE = 0.14  # inches of a name at the right
SMALL = LETTER - 2.5
BANDS = ("#8fbcd9", "#f2f0f7", "#b9b9b9", "#fff2cc", "#e0b48a", "#f7f7f7", "#a3c79f", "#e9e4f5")
_LEADER = {
    "arrowstyle": "-",
    "color": FAINT,
    "linewidth": 0.5,
    "shrinkA": 1,
    "shrinkB": 0,
    "relpos": (0, 0.5),
}


def draw_bands(axes: Axes, at_T: Array, shares_TD: Array, *, step: bool = False) -> Array:
    """Draw shares that add up to 1, the first domain at the bottom.

    Args:
        axes: Where.
        at_T: Points in time, shape (T,).
        shares_TD: Shares there, shape (T, D).
        step: Whether shares hold until the next point, rather than change linearly to it.

    Returns:
        The middles of the bands, shape (T, D).
    """
    tops_TD = shares_TD.cumsum(axis=1)
    bottoms_TD = tops_TD - shares_TD
    for d, colour in zip(range(shares_TD.shape[1]), itertools.cycle(BANDS), strict=False):
        axes.fill_between(
            at_T,
            bottoms_TD[:, d],
            tops_TD[:, d],
            step="post" if step else None,
            color=colour,
            edgecolor=FAINT,
            linewidth=0.3,
        )
    axes.grid(visible=False)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, y="share of the tokens")
    middles_TD: Array = (tops_TD + bottoms_TD) / 2
    return middles_TD


def name_bands(axes: Axes, texts: Sequence[str], middles_D: Array) -> None:
    """Write at the right what each band is, a line to it; evenly where bands are thin.

    Args:
        axes: With the bands.
        texts: What is written of each.
        middles_D: Where each is at the right end, as a share of the height.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes of no figure"
    inches = axes.get_position().height * figure.get_figheight()
    places_D = _apart(middles_D, len(texts), LINE / inches)
    for text, middle, place in zip(texts, middles_D, places_D, strict=True):
        axes.annotate(
            text,
            xy=(1.0, middle),
            xytext=(1.05, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=INK,
            annotation_clip=False,
            arrowprops=_LEADER,
        )


def _apart(wanted_D: Array, count: int, line: float) -> Array:
    """Return places that are at least a line apart, each as near to its own as that allows."""
    line = min(1 / max(count, 1), line)
    places: list[list[float]] = []  # of runs of neighbours: first place, number, sum of offsets
    for wanted in wanted_D.tolist():
        places.append([wanted, 1, wanted])
        while len(places) > 1 and places[-2][0] + places[-2][1] * line > places[-1][0]:
            _, number, total = places.pop()
            before = places[-1]
            total = before[2] + total - number * before[1] * line
            places[-1] = [total / (before[1] + number), before[1] + number, total]
    found = [first + k * line for first, number, _ in places for k in range(int(number))]
    low, high = line / 2, 1 - line / 2
    for k in range(count):
        found[k] = max(found[k], low + k * line)
    for k in range(count - 1, -1, -1):
        found[k] = min(found[k], high - (count - 1 - k) * line)
    return np.array(found)
