"""Style of all figures, the domains that they show, and SVG output.

Colours are Okabe and Ito's colour-blind safe palette, a grey, and an olive in place of the blue
that is the accent of the dark page. A mixture has the same look in all figures. Figures use
matplotlib's object interface: no pyplot, and no global settings.
"""

import contextlib
import importlib.util
import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mixopt.errors import ConfigError, did_you_mean

_MATPLOTLIB = importlib.util.find_spec("matplotlib")
# matplotlib reads `matplotlibrc` from the working directory when it is first imported. That may be
# somebody else's run directory, whose settings could run LaTeX, or whose file is an endless pipe.
_BESIDE_MATPLOTLIB = (
    contextlib.chdir(Path(str(_MATPLOTLIB.origin)).parent)
    if _MATPLOTLIB is not None and os.path.lexists("matplotlibrc")
    else contextlib.nullcontext()
)
with _BESIDE_MATPLOTLIB:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

__all__ = ["Axes", "Figure", "LinearSegmentedColormap", "PercentFormatter", "matplotlib"]

INK = "#1c2128"
GRID = "#d8dde3"
FAINT = "#8a929c"
PAPER = "#fefefe"
WIDTH = 7.6  # inches, a column of the page
LETTER = 9.5  # points
MAX_NAME = 32  # characters

# Sixty domains fit as rows; hundreds of panels would take minutes to lay out.
MAX_ROWS = 64
MAX_PANELS = 24
MAX_HIGH_ROWS = 20  # maximum number of high rows, which have numbers beside all bars
HIGH_ROW = 0.42  # inches
LOW_ROW = 0.17  # inches


class Look(NamedTuple):
    """Look of a mixture; colours that are alike in grey differ in marker and hatch."""

    colour: str
    marker: str
    hatch: str


LOOKS = {
    "proposal": Look("#0072b2", "o", ""),
    "natural": Look("#b0b6bd", "s", "////"),
    "uniform": Look("#e69f00", "D", "...."),
    "best_trial": Look("#009e73", "^", "\\\\\\\\"),
}
FURTHER = (Look("#cc79a7", "v", "xxxx"), Look("#d55e00", "P", "----"), Look("#999933", "X", "++++"))
ACCENT = LOOKS["proposal"].colour


def new_figure(height: float, columns: int = 1, rows: int = 1, **ratios: Any) -> tuple[Figure, Any]:
    """Return a figure of the page's width and its axes, shape (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    axes_RC = figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios or None)
    for axes in axes_RC.flat:
        axes.set_facecolor(PAPER)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=LETTER, length=3, color=FAINT)
        axes.grid(visible=True, color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
    return figure, axes_RC


def row_figure(
    names: Sequence[str], row: float | None = None, margin: float = 0.9
) -> tuple[Figure, Axes]:
    """Return a figure with a row for each name, the first at the top."""
    if row is None:
        row = LOW_ROW if is_low(names) else HIGH_ROW
    figure, axes_RC = new_figure(margin + row * len(names))
    name_rows(axes_RC[0, 0], names)
    return figure, axes_RC[0, 0]


def is_low(rows: Collection[Any]) -> bool:
    """Return whether rows are low, without numbers beside the bars."""
    return len(rows) > MAX_HIGH_ROWS


def row_letter(rows: Collection[Any]) -> float:
    """Return the size of the letters in a row, in points."""
    return LETTER - 2.5 if is_low(rows) else LETTER


def dots(axes: Axes, x: Any, y: Any, size: float, colour: str = FAINT, **look: Any) -> None:
    """Draw dots without an edge."""
    axes.scatter(x, y, s=size, color=colour, linewidths=0, **look)


def ticks(max_ticks: int, *sides: Any, **options: Any) -> None:
    """Limit the ticks of some axes, such as `axes.xaxis`."""
    for side in sides:
        side.set_major_locator(MaxNLocator(max_ticks, **options))


def label(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Name the axes."""
    axes.set_xlabel(x, fontsize=LETTER, color=INK)
    axes.set_ylabel(y, fontsize=LETTER, color=INK)
    if title:
        axes.set_title(title, fontsize=LETTER + 0.5, color=INK, loc="left")


def legend(axes: Axes, **options: Any) -> None:
    """Add a legend without a frame."""
    axes.legend(frameon=False, fontsize=LETTER, labelcolor=INK, handletextpad=0.4, **options)


def legend_above(axes: Axes) -> None:
    """Add a legend above the axes, where it covers nothing."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    legend(axes, **place, ncols=5, columnspacing=1.2)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure, the first at the top."""
    texts = [written(name) for name in names]
    axes.set_yticks(range(len(names)), texts, fontsize=row_letter(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def looks(mixtures: Iterable[str]) -> dict[str, Look]:
    """Return the look of each of a run's mixtures, the same in every figure."""
    further = sorted({*mixtures} - LOOKS.keys())
    return LOOKS | {name: FURTHER[n % len(FURTHER)] for n, name in enumerate(further)}


def written(name: str, longest: int = MAX_NAME) -> str:
    """Return a name for figures: shortened in the middle, and escaped from math text."""
    if len(name) > longest:
        end = longest // 3
        name = f"{name[: longest - end - 1]}\N{HORIZONTAL ELLIPSIS}{name[-end:]}"
    return name.replace("$", r"\$")


def largest_domains(mixtures: Sequence[Mapping[str, float]], max_rows: int = MAX_ROWS) -> list[str]:
    """Return the domains with the largest share in any mixture, in the order of the first one."""
    order = sorted(mixtures[0], key=lambda name: -max(mixture[name] for mixture in mixtures))
    largest = set(order[:max_rows])
    return [name for name in mixtures[0] if name in largest]


def check_known(names: Iterable[str], valid: Collection[str], kind: str) -> None:
    """Raise ConfigError for an unknown name."""
    for name in names:
        if name not in valid:
            raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(name, valid)}")


def of_all(names: Collection[str], domains: Collection[str]) -> str:
    """Return a note such as "16 of 64 domains"; empty if all are shown."""
    if len(names) == len(domains):
        return ""
    return f" ({len(names)} of {len(domains)} domains)"


def figure_svg(figure: Figure) -> str:
    """Return a figure as SVG with its text as text; equal figures give equal SVG."""
    settings = {"svg.fonttype": "none", "svg.hashsalt": "mixopt", "font.family": ["sans-serif"]}
    stream = io.StringIO()
    with matplotlib.rc_context(settings):
        about = {"Date": None, "Creator": None}
        # The resolution of embedded maps, high enough to show every cell.
        figure.savefig(stream, format="svg", metadata=about, dpi=200)
    return stream.getvalue()
