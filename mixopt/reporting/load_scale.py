"""How loads of experts are coloured: as multiples of the even one, the more the darker.

The scale is one of powers of two, from an eighth to eight times. Blue is less than even, grey is
even, orange to brown is more; lightness falls all the way, so that it reads in grey print, and
blue and orange are told apart by those who see few colours.

Shapes: E experts, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixopt.reporting.figure_style import INK, LETTER, Axes, Figure, LinearSegmentedColormap
from mixopt.system import Array

DEEP = 3.0  # powers of two to either side of the scale
LOADS = LinearSegmentedColormap.from_list(
    "load",
    [
        (0.0, "#f3faff"),
        (0.25, "#a9d6f2"),
        (0.5, "#bcbab5"),
        (0.68, "#cf8f45"),
        (0.85, "#8f3d00"),
        (1.0, "#300c00"),
    ],
)
NEAR = LinearSegmentedColormap.from_list("distance", ["#f4f4f2", "#5b9bc8", "#08306b"])
CELLS = 256  # of a row, at most; more cannot be seen beside each other
SCREEN = 5.2  # inches; as high as a map may be


def draw_loads(axes: Axes, load: Array) -> Any:
    """Draw multiples of the even load; nothing is as far down as the scale goes."""
    with np.errstate(divide="ignore"):
        powers = np.clip(np.log2(load), -DEEP, DEEP)
    return draw_map(axes, powers, LOADS, -DEEP, DEEP)


def draw_map(axes: Axes, values: Array, colours: Any, low: float, high: float) -> Any:
    """Draw a cell for each value, and no grid."""
    axes.grid(visible=False)
    return axes.imshow(
        values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )


def load_scale(
    figure: Figure,
    image: Any,
    axes: Any,
    title: str = "times an even load",
    location: str = "right",
) -> None:
    """Draw the scale of `draw_loads` beside its axes."""
    bar = colour_scale(figure, image, axes, title, location)
    bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])


def colour_scale(figure: Figure, image: Any, axes: Any, title: str, location: str = "right") -> Any:
    """Draw a scale of colours beside axes, or above or below them, and return it."""
    pad = 0.08 if location == "bottom" else 0.02
    bar = figure.colorbar(image, ax=axes, location=location, shrink=0.8, aspect=24, pad=pad)
    bar.set_label(title, fontsize=LETTER, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=LETTER - 1, colors=INK, length=2)
    return bar


def fewer_cells(load_LE: Array) -> tuple[Array, int]:
    """Return a map of at most `CELLS` columns, and of how many experts each column is."""
    layers, experts = load_LE.shape
    each = -(-experts // CELLS)
    if each == 1:
        return load_LE, 1
    columns = -(-experts // each)
    padded = np.full((layers, columns * each), np.nan)
    padded[:, :experts] = load_LE
    parts = padded.reshape(layers, columns, each)
    with np.errstate(divide="ignore"):
        far = np.nan_to_num(np.abs(np.log2(parts)), nan=-1.0, posinf=np.inf)
    chosen = far.argmax(2)[:, :, None]
    return np.take_along_axis(parts, chosen, 2)[:, :, 0], each


def layer_ticks(axes: Axes, names: Sequence[str], most: int = 16) -> None:
    """Name the rows of a map of layers, some of them where they are many."""
    places = range(len(names))
    every = max(1, -(-len(names) // most))
    axes.set_yticks(places[::every], names[::every])
