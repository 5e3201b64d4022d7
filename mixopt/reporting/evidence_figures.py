"""Figures of evidence: held-out predictions, slices of the fit, and the runs of a validation.

Shapes: N trials or mixtures, D domains, K points of a slice, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mixopt.config import TASK
from mixopt.fitting import CEILING, OBJECTIVE
from mixopt.mixture import Mixture
from mixopt.objective import SHOWN, UNITS, unit_text, value_text
from mixopt.proposals import named
from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    GRID,
    INK,
    LETTER,
    MAX_PANELS,
    Axes,
    Figure,
    Look,
    PercentFormatter,
    check_known,
    dots,
    label,
    largest_domains,
    legend,
    looks,
    name_rows,
    new_figure,
    of_all,
    ticks,
    written,
)
from mixopt.system import Array, name_text, rank_text

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals import Proposal, Recommendation, Validation

NINETY = 1.645  # half width of a normal 90% interval in standard deviations
POINTS = 41  # on a slice


def plot_held_out(fit: Fit, *, target: str | None = None) -> Figure:
    """Plot held-out predictions against observed values."""
    (axis, factor, _), name = _shown(fit, target), target or OBJECTIVE
    rows = fit.held_out.filter(predictor=fit.name, target=name)
    observed_N, predicted_N = (factor * rows[n].to_numpy() for n in ("observed", "predicted"))
    report = fit.report.filter(target=name).rows_by_key("predictor", named=True, unique=True)
    ceiling = report.get(CEILING)
    figure, axes_RC = new_figure(4.4)
    axes = axes_RC[0, 0]
    values = np.concatenate([observed_N, predicted_N])
    margin = 0.04 * max(float(np.ptp(values)), 1e-9)
    ends = np.array([values.min() - margin, values.max() + margin])
    if ceiling is not None:
        half = NINETY * abs(factor) * ceiling["rmse"]
        text = f"noise of a trial, 90%: \N{PLUS-MINUS SIGN}{half:.3g}"
        axes.fill_between(ends, ends - half, ends + half, color=GRID, linewidth=0, label=text)
    axes.plot(ends, ends, color=FAINT, linewidth=1.1, dashes=(4, 3), label="predicted = observed")
    mark = "a trial, when held out"
    dots(axes, predicted_N, observed_N, 26, ACCENT, alpha=0.75, label=mark)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    ticks(6, axes.xaxis, axes.yaxis)
    title = f"{name_text(fit.name)}: Spearman {rank_text(report[fit.name]['spearman'])}"
    if ceiling is not None:
        title += f", noise ceiling {rank_text(ceiling['spearman'])}"
    label(axes, x=f"predicted {axis}", y=f"observed {axis}", title=written(title, 100))
    legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def plot_responses(
    fit: Fit,
    at: Proposal | Recommendation | Mapping[str, float],
    *,
    target: str | None = None,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Plot the prediction along each domain's share, with its 90% interval and the trials."""
    value = getattr(at, "mixture", at)
    mixture = value if isinstance(value, Mixture) else Mixture(cast("Mapping[str, float]", value))
    mixture, (axis, factor, column) = mixture.over(fit.domains), _shown(fit, target)
    check_known(domains or (), fit.domains, "domain")
    names = list(domains or largest_domains([mixture], MAX_PANELS))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes_RC = new_figure(0.5 + 1.65 * rows, columns, rows)
    weights_ND, losses_NM = fit.trials.weights(), fit.known_losses_NM
    values_N = fit.objective.value(losses_NM) if column is None else losses_NM[:, column]
    observed_N = factor * values_N
    for place, axes in enumerate(axes_RC.flat):
        if place >= len(names):
            axes.set_visible(False)
            continue
        if place:  # set before drawing, so that limits follow all panels
            axes.sharey(axes_RC.flat[0])
        domain = fit.domains.index(names[place])
        # Do not clip the dots of trials at a share of 0, which lie on the axis.
        dots(axes, weights_ND[:, domain], observed_N, 9, alpha=0.7, clip_on=False)
        share = float(mixture.array[domain])
        top = min(1.0, 1.05 * max(float(weights_ND[:, domain].max()), share, 1e-3))
        shares_K = np.unique(np.append(np.linspace(0.0, top, POINTS), share))
        predicted = fit.predict(along_domain(mixture.array, domain, shares_K))
        _slice(axes, shares_K, factor * _ends(predicted, column), share)
        label(axes, title=written(names[place], 22))
        axes.tick_params(labelleft=place % columns == 0)
    first = axes_RC.flat[0]
    first.set_ylim(near_trials(observed_N, first.get_ylim()))
    figure.supylabel(axis, fontsize=LETTER, color=INK)
    text = f"share of the domain{of_all(names, fit.domains)}; dashed: the mixture, dots: trials"
    figure.supxlabel(text, fontsize=LETTER, color=INK)
    return figure


def plot_validation(validation: Validation, chosen: str | None = None) -> Figure:
    """Plot the runs of a validation, and the gain of one mixture over each of the others.

    Args:
        validation: The mixtures, with several seeds each.
        chosen: The mixture whose gains are shown; None: the leading proposal.
    """
    value_unit, chosen = validation.objective.value_unit, chosen or validation.leading
    unit, factor = unit_text(value_unit), SHOWN.get(value_unit, 1.0)
    names = validation.mixtures
    figure, axes_RC = new_figure(1.1 + 0.42 * max(len(names), 3), 2, width_ratios=[1.15, 1])
    left, right = axes_RC[0]
    for place, name in enumerate(names):
        look = looks(names)[name]
        _runs(left, place, np.array(list(validation.values(name).values())), look, value_unit)
        comparison = None if name == chosen else validation.compare(name, of=chosen)
        if comparison is not None:
            style: dict[str, Any] = {"color": look.colour, "linewidth": 2.2}
            low, mean, high = (
                -abs(factor) * n for n in (comparison.high, comparison.mean, comparison.low)
            )
            right.plot([low, high], [place, place], **style)
            right.plot([mean], [place], marker=look.marker, markersize=7, **style)
    right.axvline(0, color=INK, linewidth=1.1)
    label(left, x=unit, title="each seed, and the mean")
    title = f"gain of {written(named(chosen, names))}, 95% interval"
    label(right, x=f"{unit}; above 0 is better", title=title)
    for axes in (left, right):
        name_rows(axes, [named(name, names) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.75)
        ticks(5, axes.xaxis)
    right.tick_params(labelleft=False)
    return figure


def near_trials(observed_N: Array, limits: tuple[float, float]) -> tuple[float, float]:
    """Return axis limits at most one spread of the trials beyond the trials."""
    low, high = float(observed_N.min()), float(observed_N.max())
    spread = max(high - low, 1e-6 * max(abs(high), 1.0))
    return max(limits[0], low - spread), min(limits[1], high + spread)


def along_domain(at_D: Array, place: int, shares_K: Array) -> Array:
    """Return a mixture with varied shares of one domain, shape (K, D)."""
    is_other_D = np.arange(len(at_D)) != place
    rest_D = np.where(is_other_D, at_D, 0.0)
    rest_D = rest_D if rest_D.any() else is_other_D.astype(float)
    weights_KD: Array = (1.0 - shares_K)[:, None] * rest_D / max(rest_D.sum(), 1e-300)
    weights_KD[:, place] = shares_K
    return weights_KD


def _slice(axes: Axes, shares_K: Array, ends_3K: Array, share: float) -> None:
    """Draw predictions with their intervals, and the share of the mixture."""
    (middle_K, low_K, high_K), top = ends_3K, float(shares_K[-1])
    axes.fill_between(shares_K, low_K, high_K, color=ACCENT, alpha=0.22, linewidth=0, label="90%")
    axes.plot(shares_K, middle_K, color=ACCENT, linewidth=1.6, label="predicted")
    axes.axvline(share, color=INK, linewidth=1.0, dashes=(4, 3))
    axes.set_xlim(0, top)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.04 else 1))
    ticks(3, axes.xaxis)
    ticks(4, axes.yaxis)


def _shown(fit: Fit, target: str | None) -> tuple[str, float, int | None]:
    """Return the label of an axis, the factor from stored to shown values, and a loss's column."""
    objective = fit.objective
    if target is None:
        unit = objective.value_unit
        return f"objective, {unit_text(unit)}", SHOWN.get(unit, 1.0), None
    check_known([target], fit.targets, "evaluation domain")
    column, is_higher = fit.targets.index(target), target in objective.higher
    if target in objective.items:
        return f"{written(target)}, points", 100.0, column
    unit = "metric_units" if is_higher or target.startswith(TASK) else objective.unit
    return f"{'' if is_higher else 'loss on '}{written(target)}, {UNITS[unit]}", 1.0, column


def _ends(predicted: Any, column: int | None) -> Array:
    """Return predictions and both ends of their 90% intervals, shape (3, N)."""
    if column is None:
        ends = predicted.objective_N, predicted.objective_low_N, predicted.objective_high_N
        return np.array(ends)
    return np.array([predicted.losses_NM, predicted.low_NM, predicted.high_NM])[:, :, column]


def _runs(axes: Axes, place: float, runs_S: Array, look: Look, unit: str) -> None:
    """Draw a row with a dot for each seed and a mark for the mean."""
    values_S = SHOWN.get(unit, 1.0) * runs_S
    places_S = np.full(len(runs_S), place)
    dots(axes, values_S, places_S, 24, look.colour, alpha=0.7, marker=look.marker)
    if len(runs_S):
        mean = float(values_S.mean())
        text: dict[str, Any] = {"ha": "center", "va": "bottom", "color": INK}
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=look.colour, linewidth=2.6)
        axes.text(mean, place - 0.34, value_text(runs_S.mean(), unit), fontsize=LETTER - 1, **text)
