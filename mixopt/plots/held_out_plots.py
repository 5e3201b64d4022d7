"""Figures of how good a fit is: on trials that it had not seen, and by number of trials.

Shapes: N trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mixopt.plots.drawing import Axes, Figure, MaxNLocator
from mixopt.plots.figure_style import (
    COLOURS,
    FAINT,
    GRID,
    label,
    legend,
    legend_above,
    new_figure,
    written,
)
from mixopt.plots.fitted_values import FittedValue
from mixopt.system import Array, name_text, rank_text, steady_progress

if TYPE_CHECKING:
    from mixopt.fitting import Fit

NINETY = 1.645  # standard deviations to either side that hold 90% of a normal distribution


def plot_held_out(fit: Fit, *, target: str | None = None) -> Figure:
    """Show predictions for trials that the regressor had not seen against what was observed.

    The band holds 90% of what a perfect predictor would miss, by the spread of replicates; there is
    none where no mixture was trained twice.

    Args:
        fit: The fit.
        target: A loss; the objective when None.

    Raises:
        ConfigError: An unknown loss.
    """
    value = FittedValue(fit, target)
    own = (pl.col("predictor") == fit.name) & (pl.col("target") == value.name)
    rows = fit.held_out.filter(own)
    observed_N, predicted_N = (rows[name].to_numpy() for name in ("observed", "predicted"))
    figure, axes_RC = new_figure(4.4)
    axes = axes_RC[0, 0]
    ends = _ends(observed_N, predicted_N)
    noise = _noise(fit, value)
    if noise is not None:
        _band(axes, ends, NINETY * noise)
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
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    label(axes, x=f"predicted {value.axis}", y=f"observed {value.axis}", title=_ranks(fit, value))
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def plot_regret(fit: Fit, *, counts: Sequence[int] | None = None) -> Figure:
    """Show how far the pick of the first n trials is from the pick of all trials.

    The chosen regressor, with what it chose for all trials, is fitted again on the first n trials
    and picks the mixture of the table with the lowest predicted objective; beside it is the trial
    with the lowest observed objective among the first n. The regret of either is what the fit of
    all trials predicts for it - the lowest that it predicts for any mixture of the table: the law's
    is 0 at the end by construction (mixopt.fitting.regret_by_trials). Each number of trials costs
    one refit: together seconds, of a regressor without `tuned` as long as fitting so often.

    Args:
        fit: Of all trials.
        counts: How many trials; 8 numbers, evenly spread, when None.

    Raises:
        TrialsError: A number below 6 or above the number of trials.
    """
    from mixopt.fitting import REGRET_COUNTS, regret_by_trials

    with steady_progress("regret", REGRET_COUNTS if counts is None else len(counts)) as update:
        table = regret_by_trials(fit, counts, update=update)
    value = FittedValue(fit)
    figure, axes_RC = new_figure(3.2)
    axes = axes_RC[0, 0]
    drawn = (
        ("law", f"pick of {name_text(fit.name)} fitted to the first n", "proposal", "o-"),
        ("best_trial", "best observed of the first n trials", "best_trial", "^--"),
    )
    for column, text, look, line in drawn:
        axes.plot(
            table["trials"].to_numpy(),
            table[column].cast(pl.Float64).fill_null(np.nan).to_numpy(),
            line,
            color=COLOURS[look],
            label=written(text, 60),
            markersize=5,
            linewidth=1.5,
        )
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), None)
    axes.set_xlim(0, 1.03 * len(fit.trials))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    label(axes, x="trials, in the order of the table", y=f"regret, {value.unit}")
    legend_above(axes)
    return figure


def _ends(observed_N: Array, predicted_N: Array) -> tuple[float, float]:
    both = np.concatenate([observed_N, predicted_N])
    margin = 0.04 * max(float(np.ptp(both)), 1e-9)
    return float(both.min()) - margin, float(both.max()) + margin


def _band(axes: Axes, ends: tuple[float, float], half: float) -> None:
    low, high = ends
    axes.fill_between(
        [low, high],
        [low - half, high - half],
        [low + half, high + half],
        color=GRID,
        linewidth=0,
        label=f"noise of a trial, 90%: \N{PLUS-MINUS SIGN}{half:.3g}",
    )


def _noise(fit: Fit, value: FittedValue) -> float | None:
    """Return the standard deviation of replicates, in the value's unit."""
    from mixopt.fitting import CEILING

    own = (pl.col("predictor") == CEILING) & (pl.col("target") == value.name)
    found = fit.report.filter(own)["rmse"]
    return float(found[0]) if len(found) else None


def _ranks(fit: Fit, value: FittedValue) -> str:
    from mixopt.fitting import CEILING

    rows = fit.report.filter(pl.col("target") == value.name)
    found = dict(zip(rows["predictor"], rows["spearman"], strict=True))
    text = f"{name_text(fit.name)}: Spearman {rank_text(found.get(fit.name))}"
    if CEILING in found:
        text += f", noise ceiling {rank_text(found[CEILING])}"
    return written(text, 100)
