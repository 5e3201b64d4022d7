"""Figures of mixtures and trials: from plain values to a matplotlib `Figure`.

No axis is cut off: limits follow the values, so that a large share is seen to be large. Of many
domains those with the largest shares are drawn, and the axis says so: hundreds of panels take
minutes to lay out, and nobody reads them. The tables have all domains.

Shapes: N trials, D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixopt.plots.drawing import Figure, MaxNLocator, PercentFormatter
from mixopt.plots.figure_style import COLOURS, FAINT, INK, LETTER, label, legend, new_figure
from mixopt.system import Array, share_text

SHOWN = 24  # domains that a figure has at most


def plot_shares(
    natural: Mapping[str, float], proposal: Mapping[str, float], called: str = "proposed"
) -> Figure:
    """Show the proposed share of each domain beside its natural and the uniform one.

    Args:
        natural: Share of each domain in the corpus.
        proposal: Proposed or recommended share of each domain.
        called: Which of the two.
    """
    most = _largest(list(proposal), proposal, natural)
    names = sorted(most, key=lambda name: -proposal[name])[::-1]
    places_D = np.arange(len(names))
    figure, axes_RC = new_figure(0.9 + 0.46 * len(names))
    axes = axes_RC[0, 0]
    beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    beside |= {"fontsize": LETTER - 1, "color": INK}
    for mixture, shares, offset in (("proposal", proposal, 0.2), ("natural", natural, -0.2)):
        widths_D = [shares[name] for name in names]
        text = called if mixture == "proposal" else mixture
        axes.barh(places_D + offset, widths_D, height=0.36, color=COLOURS[mixture], label=text)
        for place, width in zip(places_D + offset, widths_D, strict=True):
            axes.annotate(share_text(width), (width, place), **beside)
    axes.axvline(1 / len(proposal), color=FAINT, linewidth=1.1, dashes=(4, 3), label="uniform")
    axes.set_yticks(places_D, names)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.12 * max(*proposal.values(), *natural.values()))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{_of_all(names, proposal)}")
    legend(axes, loc="lower right")
    return figure


def plot_design(weights_ND: Array, domains: Sequence[str], natural: Mapping[str, float]) -> Figure:
    """Show which shares of each domain the trials have tried.

    Args:
        weights_ND: Mixtures of the trials, shape (N, D).
        domains: Names of the domains.
        natural: Share of each domain in the corpus.
    """
    tried = dict(zip(domains, weights_ND.max(axis=0).tolist(), strict=True))
    shown = _largest(domains, natural, tried)
    figure, axes_RC = new_figure(0.9 + 0.38 * len(shown))
    axes = axes_RC[0, 0]
    # A fixed spread across the row, so that equal tables give equal figures.
    spread_N = 0.56 * (np.arange(len(weights_ND)) * 0.6180339887 % 1.0 - 0.5)
    for place, name in enumerate(shown):
        weights_N = weights_ND[:, list(domains).index(name)]
        dots = "a trial" if place == 0 else None
        axes.scatter(
            weights_N,
            place + spread_N,
            s=13,
            color=COLOURS["proposal"],
            alpha=0.5,
            linewidths=0,
            label=dots,
        )
        mark = "natural" if place == 0 else None
        at = natural[name]
        axes.plot([at, at], [place - 0.36, place + 0.36], color=INK, linewidth=1.8, label=mark)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{_of_all(shown, domains)}")
    legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure


def plot_responses(
    weights_ND: Array,
    objective_N: Array,
    domains: Sequence[str],
    proposal: Mapping[str, float],
    unit: str,
) -> Figure:
    """Show the objective of each trial against the share of each domain.

    Args:
        weights_ND: Mixtures of the trials, shape (N, D).
        objective_N: The objective that was observed, shape (N,).
        domains: Names of the domains.
        proposal: Proposed share of each domain, drawn as a line.
        unit: Unit of the objective.
    """
    shown = _largest(domains, proposal)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes_RC = new_figure(0.5 + 1.65 * rows, columns, rows)
    for place, axes in enumerate(axes_RC.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        name = shown[place]
        weights_N = weights_ND[:, list(domains).index(name)]
        axes.scatter(weights_N, objective_N, s=11, color=FAINT, linewidths=0)
        axes.axvline(proposal[name], color=COLOURS["proposal"], linewidth=1.6)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        label(axes, title=name)
        axes.tick_params(labelleft=place % columns == 0)
        axes.sharey(axes_RC.flat[0])
    figure.supylabel(f"objective, {unit}", fontsize=LETTER, color=INK)
    axis = f"share of the domain{_of_all(shown, domains)}; line: proposal"
    figure.supxlabel(axis, fontsize=LETTER, color=INK)
    return figure


def plot_held_out(observed_N: Array, predicted_N: Array, unit: str, note: str = "") -> Figure:
    """Show predictions for trials that the regressor had not seen against what was observed.

    Args:
        observed_N: The objective that was observed, shape (N,).
        predicted_N: The objective predicted by the folds that did not hold the trial, shape (N,).
        unit: Unit of the objective.
        note: A line to write in the corner, such as the rank correlation.
    """
    figure, axes_RC = new_figure(4.1)
    axes = axes_RC[0, 0]
    both = np.concatenate([observed_N, predicted_N])
    margin = 0.04 * max(float(np.ptp(both)), 1e-9)
    ends = [float(both.min()) - margin, float(both.max()) + margin]
    axes.plot(ends, ends, color=FAINT, linewidth=1.1, dashes=(4, 3), label="predicted = observed")
    axes.scatter(
        predicted_N,
        observed_N,
        s=26,
        color=COLOURS["proposal"],
        alpha=0.75,
        linewidths=0,
        label="a trial, when held out",
    )
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    label(axes, x=f"predicted, {unit}", y=f"observed, {unit}", title=note)
    legend(axes, loc="upper left")
    return figure


def _largest(domains: Sequence[str], *shares: Mapping[str, float]) -> list[str]:
    """Return the domains with the largest share in any of some mixtures, in their order."""
    order = sorted(domains, key=lambda name: -max(mixture[name] for mixture in shares))
    kept = set(order[:SHOWN])
    return [name for name in domains if name in kept]


def _of_all(shown: Sequence[str], domains: Sequence[str] | Mapping[str, float]) -> str:
    if len(shown) == len(domains):
        return ""
    return f" ({len(shown)} of {len(domains)} domains, with the largest shares)"
