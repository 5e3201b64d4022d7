"""Figures of what a fit says of each domain: slices of the law, and its slopes as a matrix.

Shapes: N trials, D domains, M losses, K points of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.plots.drawing import (
    Axes,
    Figure,
    LinearSegmentedColormap,
    MaxNLocator,
    PercentFormatter,
)
from mixopt.plots.drawn_mixtures import centre
from mixopt.plots.figure_style import COLOURS, FAINT, INK, LETTER, WIDTH, label, new_figure, written
from mixopt.plots.fitted_values import FittedValue, along_domain
from mixopt.plots.load_scale import colour_scale, draw_map
from mixopt.plots.shown_domains import PANELS, asked_domains, check_known, of_all
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals import Proposal, Recommendation

POINTS = 41  # of a slice
STEP = 0.01  # of the tokens, by which a slope is taken
NUMBERED = 14  # domains or losses up to which a cell has its number

# Lightness falls all the way, so that the sign of a slope is seen in grey print too.
SLOPES = LinearSegmentedColormap.from_list(
    "slope",
    [(0.0, "#eef8ff"), (0.3, "#8cc4ea"), (0.5, "#a9a7a3"), (0.72, "#b8651b"), (1, "#3c0f00")],
)


def plot_responses(
    fit: Fit,
    at: Proposal | Recommendation | Mapping[str, float],
    *,
    target: str | None = None,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Show what is predicted along each domain's share, with the 90% interval and the trials.

    Along a slice the domain's share changes and the others keep their proportions; a line marks
    the mixture. Trials are drawn at their share and what they gave: they differ in the other
    domains too, so that they lie beside the slice.

    Args:
        fit: What predicts.
        at: The mixture that the slices go through.
        target: A loss; the objective when None.
        domains: The domains to show; the 24 with the largest shares when None.

    Raises:
        ConfigError: An unknown domain or loss.
        MixtureError: A mixture of other domains than the fit's.
    """
    mixture, value = centre(at, fit.domains), FittedValue(fit, target)
    shown = asked_domains(domains, fit.domains, [mixture], PANELS)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes_RC = new_figure(0.5 + 1.65 * rows, columns, rows)
    tried_ND, observed_N = fit.trials.weights(), value.observed()
    for place, axes in enumerate(axes_RC.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        if place:  # before anything is drawn, so that limits follow all panels
            axes.sharey(axes_RC.flat[0])
        domain = fit.domains.index(shown[place])
        axes.scatter(  # a trial without the domain lies on the axis: all of its dot is shown
            tried_ND[:, domain],
            observed_N,
            s=9,
            color=FAINT,
            alpha=0.7,
            linewidths=0,
            clip_on=False,
        )
        _slice(axes, value, mixture.array, domain, float(tried_ND[:, domain].max()))
        label(axes, title=written(shown[place], 22))
        axes.tick_params(labelleft=place % columns == 0)
    first = axes_RC.flat[0]
    first.set_ylim(near_trials(observed_N, first.get_ylim()))
    figure.supylabel(value.axis, fontsize=LETTER, color=INK)
    text = f"share of the domain{of_all(shown, fit.domains)}; dashed: the mixture, dots: trials"
    figure.supxlabel(text, fontsize=LETTER, color=INK)
    return figure


def near_trials(observed_N: Array, limits: tuple[float, float]) -> tuple[float, float]:
    """Return limits of an axis that are no farther from the trials than these spread.

    At a share that no trial is near, an interval may be thousands of times as wide as all that was
    observed; it leaves the panel, and the trials stay legible.
    """
    low, high = float(observed_N.min()), float(observed_N.max())
    spread = max(high - low, 1e-6 * max(abs(high), 1.0))
    return max(limits[0], low - spread), min(limits[1], high + spread)


def plot_interactions(
    fit: Fit,
    at: Proposal | Recommendation | Mapping[str, float],
    *,
    targets: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Show how each loss changes when a domain gets more of the tokens, as a matrix.

    A cell is the predicted change of a loss for one more percent of the tokens to a domain, taken
    from all domains in proportion to their shares. Below 0 the domain helps the loss.

    Args:
        fit: What predicts.
        at: The mixture at which slopes are taken.
        targets: The losses, a row each; all when None.
        domains: The domains, a column each; all when None.

    Raises:
        ConfigError: An unknown domain or loss.
        MixtureError: A mixture of other domains than the fit's.
    """
    mixture = centre(at, fit.domains)
    rows, columns = list(targets or fit.targets), list(domains or fit.domains)
    check_known(rows, fit.targets, "evaluation domain")
    check_known(columns, fit.domains, "domain")
    slope_MD = slopes(fit, mixture.array)[[fit.targets.index(name) for name in rows]]
    slope_MD = slope_MD[:, [fit.domains.index(name) for name in columns]]
    small = max(len(rows), len(columns)) > NUMBERED
    letters = LETTER - (4.0 if small else 0.5)
    width = WIDTH * (1.25 if small else 1.0)
    figure, axes_RC = new_figure(1.9 + (0.125 if small else 0.34) * len(rows))
    figure.set_figwidth(width)
    axes = axes_RC[0, 0]
    # Of many domains each one's slope on its own loss would leave no colours for the others.
    reach = float(np.quantile(np.abs(slope_MD), 0.97 if small else 1.0)) or 1.0
    image = draw_map(axes, slope_MD, SLOPES, -reach, reach)
    axes.set_xticks(range(len(columns)), [written(n, 24) for n in columns], rotation=90)
    axes.set_yticks(range(len(rows)), [written(n, 24) for n in rows])
    axes.tick_params(labelsize=letters, length=0 if small else 3)
    if not small:
        _cell_numbers(axes, slope_MD, reach, letters)
    label(axes, x="one more percent of the tokens to", y="loss on")
    about = f"change of the loss, {FittedValue(fit, rows[0]).unit}; light: it falls"
    if np.abs(slope_MD).max() > reach:
        about += f"; the darkest and lightest are {reach:.2g} or more"
    colour_scale(figure, image, axes, about, "top")
    return figure


def slopes(fit: Fit, at_D: Array) -> Array:
    """Return the change of each loss for one more percent of the tokens to a domain, (M, D).

    It is taken forward, and backward where a domain has nearly all of the tokens; by differences of
    predictions, so that every regressor has it.
    """
    rows, signs = [], []
    for place, share in enumerate(at_D):
        step = STEP if share <= 1 - STEP else -STEP
        rows.append(along_domain(at_D, place, np.array([share + step]))[0])
        signs.append(np.sign(step))
    losses_NM = fit.predict(np.vstack([at_D, *rows])).losses_NM
    slope_MD: Array = ((losses_NM[1:] - losses_NM[0]) * np.array(signs)[:, None]).T
    return slope_MD


def _slice(axes: Axes, value: FittedValue, at_D: Array, domain: int, tried: float) -> None:
    """Draw a slice with its interval, as far as trials went or the mixture is."""
    share = float(at_D[domain])
    top = min(1.0, 1.05 * max(tried, share, 1e-3))
    shares_K = np.unique(np.append(np.linspace(0.0, top, POINTS), share))
    middle_K, low_K, high_K = value.predicted(along_domain(at_D, domain, shares_K))
    axes.fill_between(
        shares_K, low_K, high_K, color=COLOURS["proposal"], alpha=0.22, linewidth=0, label="90%"
    )
    axes.plot(shares_K, middle_K, color=COLOURS["proposal"], linewidth=1.6, label="predicted")
    axes.axvline(share, color=INK, linewidth=1.0, dashes=(4, 3))
    axes.set_xlim(0, top)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.04 else 1))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _cell_numbers(axes: Axes, slope_MD: Array, reach: float, letters: float) -> None:
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": letters - 1.5}
    digits = int(np.clip(2 - np.floor(np.log10(reach)), 1, 6))
    for row, column in np.ndindex(*slope_MD.shape):
        slope = float(slope_MD[row, column])
        colour = "#ffffff" if slope > 0.45 * reach else INK
        text = f"{slope:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
        axes.text(column, row, text, color=colour, **style)
