"""A forest plot of microanneals: each source's difference from the control, by target.

Shapes: K sources, C columns: the objective, then targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixopt.errors import ConfigError
from mixopt.objective import UNITS
from mixopt.plots.drawing import Axes, Figure, MaxNLocator
from mixopt.plots.figure_style import (
    COLOURS,
    FAINT,
    INK,
    OTHERS,
    PAPER,
    label,
    new_figure,
    written,
)

if TYPE_CHECKING:
    from mixopt.proposals import Anneals, Effect

PANELS = 4  # beside each other: the objective, and targets
LONGEST = {1: 60, 2: 34, 3: 22, 4: 16}  # characters of a panel's title, by the number of panels
GOOD, BAD = COLOURS["proposal"], OTHERS[1]


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
        raise ConfigError("a figure of no sources was asked for: no anneal finished with a control")
    panels = _panels(anneals, targets)
    figure, axes_RC = new_figure(1.25 + 0.34 * max(len(order), 3), len(panels))
    rows = {name: place for place, name in enumerate(order)}
    for axes, target in zip(axes_RC[0], panels, strict=True):
        for one in anneals.effects(target):
            _draw(axes, rows[one.source], one)
        axes.axvline(0, color=INK, linewidth=1.1)
        axes.grid(visible=False, axis="y")
        axes.set_yticks(range(len(order)), [written(name) for name in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(3 if len(panels) > 2 else 5))
        whole = "the objective" if len(panels) > 1 else anneals.objective.describe()
        title = whole if target is None else target
        label(axes, title=written(title, LONGEST.get(len(panels), 12)))
        axes.tick_params(labelleft=axes is axes_RC[0, 0])
    _name_axis(figure, anneals)
    return figure


def _panels(anneals: Anneals, targets: Sequence[str] | None) -> list[str | None]:
    for name in targets or ():
        if name not in anneals.trials.targets:
            known = ", ".join(anneals.trials.targets)
            raise ConfigError(f"no loss is called {name!r}; known: {known}")
    if targets is not None:
        return [None, *targets]
    several = len(anneals.targets) > 1
    return [None, *(anneals.targets[: PANELS - 1] if several else ())]


def _draw(axes: Axes, place: int, one: Effect) -> None:
    """Draw a source's mean, filled where it is significant, and its interval."""
    colour = {"better": GOOD, "worse": BAD}.get(one.verdict, FAINT)
    if one.low is not None and one.high is not None:
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2.2)
    marker = {"better": "o", "worse": "s"}.get(one.verdict, "D")
    face = PAPER if marker == "D" else colour
    style: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": colour}
    axes.plot([one.mean], [place], marker=marker, markersize=6.5, linestyle="none", **style)


def _name_axis(figure: Figure, anneals: Anneals) -> None:
    unit = UNITS[anneals.objective.value_unit]
    said = f"source - control, {unit}: left of 0 is better"
    figure.supxlabel(said, fontsize=9.5, color=INK)
