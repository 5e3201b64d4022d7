"""Figures of evidence: held-out predictions, slices of the fit, and the runs of a validation.

Shapes: N trials or mixtures, D domains, K points of a slice, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    MaxNLocator,
    PercentFormatter,
    check_known,
    dots,
    label,
    legend,
    looks,
    name_rows,
    new_figure,
    of_all,
    shown_domains,
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
    value, name = _Value(fit, target), target or OBJECTIVE
    rows = fit.held_out.filter(predictor=fit.name, target=name)
    observed_N, predicted_N = (value.factor * rows[n].to_numpy() for n in ("observed", "predicted"))
    report = fit.report.filter(target=name).rows_by_key("predictor", named=True, unique=True)
    ceiling = report.get(CEILING)
    figure, axes_RC = new_figure(4.4)
    axes = axes_RC[0, 0]
    both = np.concatenate([observed_N, predicted_N])
    margin = 0.04 * max(float(np.ptp(both)), 1e-9)
    ends = np.array([both.min() - margin, both.max() + margin])
    if ceiling is not None:
        half = NINETY * abs(value.factor) * ceiling["rmse"]
        text = f"noise of a trial, 90%: \N{PLUS-MINUS SIGN}{half:.3g}"
        axes.fill_between(ends, ends - half, ends + half, color=GRID, linewidth=0, label=text)
    axes.plot(ends, ends, color=FAINT, linewidth=1.1, dashes=(4, 3), label="predicted = observed")
    mark = "a trial, when held out"
    dots(axes, predicted_N, observed_N, 26, ACCENT, alpha=0.75, label=mark)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    title = f"{name_text(fit.name)}: Spearman {rank_text(report[fit.name]['spearman'])}"
    if ceiling is not None:
        title += f", noise ceiling {rank_text(ceiling['spearman'])}"
    label(axes, x=f"predicted {value.axis}", y=f"observed {value.axis}", title=written(title, 100))
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
    own = getattr(at, "mixture", at)
    mixture = own if isinstance(own, Mixture) else Mixture(cast("Mapping[str, float]", own))
    mixture, value = mixture.over(fit.domains), _Value(fit, target)
    shown = shown_domains(domains, fit.domains, [mixture], MAX_PANELS)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes_RC = new_figure(0.5 + 1.65 * rows, columns, rows)
    tried_ND, observed_N = fit.trials.weights(), value.observed()
    for place, axes in enumerate(axes_RC.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        if place:  # set before drawing, so that limits follow all panels
            axes.sharey(axes_RC.flat[0])
        domain = fit.domains.index(shown[place])
        # Do not clip the dots of trials at a share of 0, which lie on the axis.
        dots(axes, tried_ND[:, domain], observed_N, 9, alpha=0.7, clip_on=False)
        _slice(axes, value, mixture.array, domain, float(tried_ND[:, domain].max()))
        label(axes, title=written(shown[place], 22))
        axes.tick_params(labelleft=place % columns == 0)
    first = axes_RC.flat[0]
    first.set_ylim(near_trials(observed_N, first.get_ylim()))
    figure.supylabel(value.axis, fontsize=LETTER, color=INK)
    text = f"share of the domain{of_all(shown, fit.domains)}; dashed: the mixture, dots: trials"
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
        axes.xaxis.set_major_locator(MaxNLocator(5))
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
    others_D = np.where(is_other_D, at_D, 0.0)
    others_D = others_D if others_D.any() else is_other_D.astype(float)
    weights_KD: Array = (1.0 - shares_K)[:, None] * others_D / max(others_D.sum(), 1e-300)
    weights_KD[:, place] = shares_K
    return weights_KD


def _slice(axes: Axes, value: _Value, at_D: Array, domain: int, tried: float) -> None:
    """Draw a slice with its interval over the range of the trials and the mixture."""
    share = float(at_D[domain])
    top = min(1.0, 1.05 * max(tried, share, 1e-3))
    shares_K = np.unique(np.append(np.linspace(0.0, top, POINTS), share))
    middle_K, low_K, high_K = value.predicted(along_domain(at_D, domain, shares_K))
    axes.fill_between(shares_K, low_K, high_K, color=ACCENT, alpha=0.22, linewidth=0, label="90%")
    axes.plot(shares_K, middle_K, color=ACCENT, linewidth=1.6, label="predicted")
    axes.axvline(share, color=INK, linewidth=1.0, dashes=(4, 3))
    axes.set_xlim(0, top)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.04 else 1))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))


@dataclass(frozen=True)
class _Value:
    """The objective of a fit or one of its losses, as plotted."""

    fit: Fit
    target: str | None

    def __post_init__(self) -> None:
        if self.target is not None:
            check_known([self.target], self.fit.targets, "evaluation domain")

    @property
    def axis(self) -> str:
        """Label of its axis."""
        objective = self.fit.objective
        if self.target is None:
            return f"objective, {unit_text(objective.value_unit)}"
        if self.target in objective.items:
            return f"{written(self.target)}, points"
        is_higher = self.target in objective.higher
        unit = "metric_units" if is_higher or self.target.startswith(TASK) else objective.unit
        return f"{'' if is_higher else 'loss on '}{written(self.target)}, {UNITS[unit]}"

    @property
    def factor(self) -> float:
        """Factor from stored to shown values."""
        objective = self.fit.objective
        if self.target:
            return 100.0 if self.target in objective.items else 1.0
        return SHOWN.get(objective.value_unit, 1.0)

    def observed(self) -> Array:
        """Return the trials' values, shape (N,); at another model size, their predictions."""
        losses_NM = self.fit.known_losses()
        if self.target is None:
            return self.factor * self.fit.objective.value(losses_NM)
        return self.factor * losses_NM[:, self.fit.targets.index(self.target)]

    def predicted(self, weights_ND: Array) -> tuple[Array, Array, Array]:
        """Return predictions and both ends of the 90% interval, shape (N,) each."""
        prediction = self.fit.predict(weights_ND)
        ends = prediction.objective_N, prediction.objective_low_N, prediction.objective_high_N
        if self.target is not None:
            at = self.fit.targets.index(self.target)
            ends = prediction.losses_NM[:, at], prediction.low_NM[:, at], prediction.high_NM[:, at]
        value_N, low_N, high_N = (self.factor * one_N for one_N in ends)
        return value_N, low_N, high_N


def _runs(axes: Axes, place: float, runs_S: Array, look: Look, unit: str) -> None:
    """Draw a row with a dot for each seed and a mark for the mean."""
    shown_S = SHOWN.get(unit, 1.0) * runs_S
    places_S = np.full(len(runs_S), place)
    dots(axes, shown_S, places_S, 24, look.colour, alpha=0.7, marker=look.marker)
    if len(runs_S):
        mean = float(shown_S.mean())
        text: dict[str, Any] = {"ha": "center", "va": "bottom", "color": INK}
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=look.colour, linewidth=2.6)
        axes.text(mean, place - 0.34, value_text(runs_S.mean(), unit), fontsize=LETTER - 1, **text)
