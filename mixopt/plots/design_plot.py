"""The picture of a design: which shares of each domain the trials have tried.

Shapes: N trials, D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixopt.plots.drawing import Figure, PercentFormatter
from mixopt.plots.figure_style import COLOURS, INK, label, legend, new_figure, written
from mixopt.plots.shown_domains import (
    FEW,
    ROWS,
    asked_domains,
    check_known,
    of_all,
    row_height,
    row_letter,
)

if TYPE_CHECKING:
    from mixopt.trials import Trials


def plot_design(
    trials: Trials,
    natural: Mapping[str, float] | None = None,
    *,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Show which shares of each domain the trials have tried, a dot a trial.

    Args:
        trials: The trials, finished or not.
        natural: Share of each domain in the corpus, drawn as a line.
        domains: The domains to show; all of 64, of more those with the largest shares, when None.

    Raises:
        ConfigError: An unknown domain.
    """
    weights_ND = trials.weights()
    by_domain = dict(zip(trials.domains, weights_ND.T, strict=True))
    tried = {name: float(shares_N.max(initial=0.0)) for name, shares_N in by_domain.items()}
    if natural is not None:
        check_known(trials.domains, natural, "domain")
    named = [tried] if natural is None else [tried, natural]
    shown = asked_domains(domains, trials.domains, named, ROWS)
    figure, axes_RC = new_figure(0.9 + row_height(len(shown)) * len(shown))
    axes = axes_RC[0, 0]
    # A fixed spread across the row, so that equal tables give equal figures.
    spread_N = 0.56 * (np.arange(len(weights_ND)) * 0.6180339887 % 1.0 - 0.5)
    for place, name in enumerate(shown):
        axes.scatter(
            by_domain[name],
            place + spread_N,
            s=13 if len(shown) <= FEW else 4,
            color=COLOURS["proposal"],
            alpha=0.5,
            linewidths=0,
            label="a trial" if place == 0 else None,
        )
        if natural is not None:
            mark = "natural" if place == 0 else None
            ends = [place - 0.36, place + 0.36]
            axes.plot([natural[name]] * 2, ends, color=INK, linewidth=1.8, label=mark)
    axes.set_yticks(
        range(len(shown)), [written(name) for name in shown], fontsize=row_letter(len(shown))
    )
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{of_all(shown, trials.domains)}")
    legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure
