"""The figures of mixtures, designs, fits and validations; `run.plot.mixtures()` and others.

Axes of shares start at 0 and are never cut off. A few domains have a bar with its number for each
mixture; many domains have a bar for the first mixture and markers for the others.

Shapes: N trials or mixtures, D domains, P points of a front, K points of a slice, S seeds.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias, cast

import numpy as np

from mixopt.config import TASK
from mixopt.difference import UNITS, shown_factor, unit_text, value_text
from mixopt.errors import ConfigError
from mixopt.fitting import CEILING, OBJECTIVE, Fit
from mixopt.mixture import Mixture, branch_shares
from mixopt.proposals import Front, Proposal, Recommendation, Validation, named
from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    GRID,
    INK,
    LETTER,
    MAX_PANELS,
    MAX_ROWS,
    PAPER,
    Axes,
    Figure,
    Look,
    PercentFormatter,
    check_known,
    dots,
    is_low,
    label,
    largest_domains,
    legend,
    legend_above,
    looks,
    name_rows,
    new_figure,
    of_all,
    row_figure,
    row_letter,
    ticks,
    written,
)
from mixopt.system import Array, name_text, rank_text, share_text
from mixopt.trials import Trials

Shares: TypeAlias = Mapping[str, float]
At: TypeAlias = Proposal | Recommendation | Shares
MixturesLike: TypeAlias = At | Mapping[str, Shares]

MAX_BARS = 4  # mixtures with a bar each
SUBJECTS = ("recommended", "proposed", "mixture")  # labels that look like the run's choice
MAX_PAIRS = 3  # panels of a front: the first pairs of targets
MAX_COLUMNS = 10  # of a map of shares with numbers
NINETY = 1.645  # half width of a normal 90% interval in standard deviations
POINTS = 41  # on a slice


def plot_mixtures(mixtures: MixturesLike) -> Figure:
    """Plot each domain's share in mixtures, and the uniform share.

    Args:
        mixtures: A proposal or a recommendation, which is shown beside natural; shares by domain;
            or several of these by name.
    """
    by_name = _by_name(mixtures)
    first, *further = all_shares = list(by_name.values())
    names = sorted(largest_domains(all_shares), key=lambda name: -first[name])
    high = 0.12 + 0.17 * min(len(by_name), MAX_BARS)
    has_usual_rows = is_low(names) or len(further) == 1
    figure, axes = row_figure(names, None if has_usual_rows else high)
    _shares(axes, by_name, names, getattr(mixtures, "chosen", "proposal"))
    if "uniform" not in by_name:
        axes.axvline(1 / len(first), color=FAINT, linewidth=1.1, dashes=(4, 3), label="uniform")
    axes.set_xlim(0, 1.12 * max(mixture[name] for mixture in all_shares for name in names))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{of_all(names, first)}")
    legend_above(axes)
    return figure


def plot_cells(mixtures: MixturesLike) -> Figure:
    """Plot a tree of domains as a map: a row for each branch, a column for each last part.

    Args:
        mixtures: As for `plot_mixtures`; the first is shown, with the one named natural.

    Raises:
        ConfigError: The domains do not form a tree.
    """
    by_name = _by_name(mixtures)
    shares = next(iter(by_name.values()))
    natural = by_name.get("natural", {})
    cells = {tuple(name.rsplit("/", 1)): share for name, share in shares.items() if "/" in name}
    if not branch_shares(shares):
        raise ConfigError("a map of cells needs domains that nest, such as web/science/high")
    levels = list(dict.fromkeys(level for _, level in cells))
    sums = {name: share for name, share in branch_shares(shares).items() if name not in shares}
    names = sorted(sums, key=lambda name: -sums[name])[:MAX_ROWS]
    figure, axes = row_figure(names, margin=1.2)
    cells_BL = [[cells.get((branch, level)) for level in levels] for branch in names]
    was_BL = [[natural.get(f"{branch}/{level}") for level in levels] for branch in names]
    image = _share_map(axes, cells_BL, levels, was_BL)
    name_rows(axes, names)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1.0, decimals=1), pad=0.02)
    beside = ", natural in brackets" if natural else ""
    label(axes, x=f"share of the training tokens{beside}{of_all(names, sums)}")
    return figure


def plot_design(trials: Trials, natural: Shares | None = None) -> Figure:
    """Plot the shares of each domain that the trials have tried, one dot a trial.

    Args:
        trials: The trials, finished or not.
        natural: Share of each domain in the corpus, drawn as a line.

    Raises:
        ConfigError: An unknown domain.
    """
    by_domain = dict(zip(trials.domains, trials.weights().T, strict=True))
    largest = {name: max(shares_N, default=0.0) for name, shares_N in by_domain.items()}
    if natural is not None:
        check_known(trials.domains, natural, "domain")
    names = largest_domains([largest, natural or largest])
    figure, axes = row_figure(names)
    # Fixed jitter, so that equal tables give equal figures.
    spread_N = 0.56 * (np.arange(len(trials)) * 0.6180339887 % 1.0 - 0.5)
    place_D = np.arange(len(names))
    shares_DN = np.array([by_domain[name] for name in names])
    row_DN = place_D[:, None] + spread_N
    size = 4 if is_low(names) else 13
    dots(axes, shares_DN, row_DN, size, ACCENT, alpha=0.5, label="a trial")
    if natural is not None:
        shares_D = [natural[name] for name in names]
        lines = axes.vlines(shares_D, place_D - 0.36, place_D + 0.36, INK, label="natural")
        lines.set(linewidth=1.8, capstyle="projecting")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{of_all(names, trials.domains)}")
    legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure


def plot_front(front: Front, trials: Trials | None = None) -> Figure:
    """Plot predicted losses for each pair of targets, and the weights of each point below."""
    pairs = list(combinations(front.targets, 2))[:MAX_PAIRS]
    figure, axes_RC = new_figure(3.4 + 0.8 + 0.34 * len(front.points), len(pairs), 2)
    for axes, (first, second) in zip(axes_RC[0], pairs, strict=True):
        _trade(axes, front, first, second, trials)
    legend_above(axes_RC[0, 0])
    axes, *spares = axes_RC[1]
    for spare in spares:
        spare.remove()
    axes.set_subplotspec(axes.get_gridspec()[1, :])
    mixtures = [point.mixture for point in front.points]
    domains = largest_domains(mixtures)
    shares_PD = [[mixture[domain] for domain in domains] for mixture in mixtures]
    _share_map(axes, shares_PD, domains)
    axes.set_xticks(axes.get_xticks(), axes.get_xticklabels(), rotation=60, ha="right")
    name_rows(axes, [str(number) for number, _ in enumerate(mixtures, start=1)])
    label(axes, x=f"share of the training tokens{of_all(domains, mixtures[0])}", y="proposal")
    return figure


def _share_map(axes: Axes, rows: Any, columns: Sequence[str], natural: Any = None) -> Any:
    """Draw shares as a map, darker for more; with few columns also as numbers."""
    shares_RC = np.array(rows, float)
    natural_RC = np.broadcast_to(np.array(natural, float), shares_RC.shape)
    largest = float(np.nanmax(shares_RC)) or 1.0
    axes.grid(visible=False)
    image = axes.imshow(shares_RC, cmap="Blues", vmin=0.0, vmax=largest, aspect="auto")
    axes.set_xticks(range(len(columns)), [written(name, 12) for name in columns])
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": row_letter(rows) - 1}
    numbered = np.isfinite(shares_RC) & (len(columns) <= MAX_COLUMNS)
    for row, column in np.argwhere(numbered):
        share = shares_RC[row, column]
        text = share_text(share)
        if not np.isnan(natural_RC[row, column]):
            text += f" ({share_text(natural_RC[row, column])})"
        colour = PAPER if share > 0.6 * largest else INK
        axes.annotate(text, (column, row), color=colour, **style)
    return image


def _by_name(shares: MixturesLike) -> dict[str, Shares]:
    """Return the mixtures by their labels; the first is the subject of the figure."""
    if not isinstance(shares, Mapping):
        name = "recommended" if hasattr(shares, "chosen") else "proposed"
        return {name: shares.mixture, "natural": shares.natural}
    if not shares:
        raise ConfigError("a figure of no mixtures was requested: give it one")
    if not isinstance(next(iter(shares.values())), Mapping):
        return {"mixture": cast(Shares, shares)}
    mixtures = dict(cast(Mapping[str, Shares], shares))
    first = next(iter(mixtures))
    for name, mixture in mixtures.items():
        for odd in sorted(set(mixture) ^ set(mixtures[first])):
            raise ConfigError(f"mixtures {first!r} and {name!r}: domain {odd!r} is in one of them")
    return mixtures


def _shares(axes: Axes, by_name: Mapping[str, Shares], names: Sequence[str], chosen: str) -> None:
    """Draw bars with numbers; in low rows, one bar and markers for the other mixtures."""
    first, *further = by_name
    subject = chosen if first in SUBJECTS else first
    owners = [subject, *further]
    max_bars = 1 if is_low(names) else MAX_BARS
    bars = list(by_name)[:max_bars]
    high = 0.76 / len(bars)
    for number, (name, mixture) in enumerate(by_name.items()):
        look = looks(owners)[owners[number]]
        shares_D = np.array([mixture[domain] for domain in names])
        style: dict[str, Any] = {"color": look.colour, "label": written(name_text(name))}
        if name not in bars:
            style |= {"marker": look.marker, "markersize": 4.5, "zorder": 3}
            style |= {"linestyle": "none", "markeredgecolor": INK, "markeredgewidth": 0.6}
            axes.plot(shares_D, np.arange(len(shares_D)), **style)
            continue
        shift = (number - (len(bars) - 1) / 2) * high
        places_D = np.arange(len(names), dtype=np.float64) + shift
        style |= {"hatch": look.hatch, "edgecolor": PAPER, "linewidth": 0}
        row = axes.barh(places_D, shares_D, height=0.9 * high, **style)
        if not is_low(names):
            numbers = [share_text(share) for share in shares_D]
            axes.bar_label(row, numbers, padding=4, fontsize=LETTER - 1, color=INK)


def _trade(axes: Axes, front: Front, first: str, second: str, trials: Trials | None) -> None:
    if trials is not None:
        observed = dict(zip(trials.targets, trials.losses(front.unit).T, strict=True))
        dots(axes, observed[first], observed[second], 11, label="a trial")
    places = [(point.losses[first].value, point.losses[second].value) for point in front.points]
    x_P, y_P = zip(*sorted(places), strict=True)
    if len(front.targets) == 2:  # with more targets the front is a surface
        axes.plot(x_P, y_P, color=ACCENT, linewidth=1.2)
    axes.scatter(x_P, y_P, s=26, color=ACCENT, zorder=3, label="a proposal, predicted")
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": LETTER - 1, "color": INK}
    for number, at in enumerate(places, start=1):
        axes.annotate(str(number), at, (5, 4), **style)
    ticks(5, axes.xaxis)
    x = target_label(first, is_higher=first in front.higher)
    y = target_label(second, is_higher=second in front.higher)
    label(axes, x=x, y=y)


def target_label(target: str, *, is_higher: bool) -> str:
    """Return the label of an axis of a loss, or of a metric of which higher is better."""
    return written(target) if is_higher else f"loss on {written(target)}"


def plot_held_out(fit: Fit, *, target: str | None = None) -> Figure:
    """Plot held-out predictions against observed values."""
    axis, factor, _ = _shown(fit, target)
    name = target or OBJECTIVE
    rows = fit.held_out.filter(predictor=fit.name, target=name)
    observed_N = factor * rows["observed"].to_numpy()
    predicted_N = factor * rows["predicted"].to_numpy()
    report = fit.report.filter(target=name).rows_by_key("predictor", named=True, unique=True)
    ceiling = report.get(CEILING)
    figure, axes_RC = new_figure(4.4)
    axes = axes_RC[0, 0]
    values = np.concatenate([observed_N, predicted_N])
    margin = 0.04 * max(float(np.ptp(values)), 1e-9)
    ends = np.array([values.min() - margin, values.max() + margin])
    if ceiling is not None:
        half = NINETY * factor * ceiling["rmse"]
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
    fit: Fit, at: At, *, target: str | None = None, domains: Sequence[str] | None = None
) -> Figure:
    """Plot the prediction along each domain's share, with its 90% interval and the trials."""
    mixture = Mixture(getattr(at, "mixture", cast(Any, at))).over(fit.domains)
    axis, factor, column = _shown(fit, target)
    check_known(domains or (), fit.domains, "domain")
    names = list(domains or largest_domains([mixture], MAX_PANELS))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes_RC = new_figure(0.5 + 1.65 * rows, columns, rows)
    weights_ND = fit.trials.weights()
    if column is None:
        values_N = fit.objective.turned_value(fit.objective.value(fit.known_losses_NM))
    else:
        values_N = fit.objective.turned(fit.known_losses_NM)[:, column]
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
    chosen = chosen or validation.leading
    value_unit = validation.objective.value_unit
    unit = unit_text(value_unit)
    factor = shown_factor(value_unit)
    names = validation.mixtures
    figure, axes_RC = new_figure(1.1 + 0.42 * max(len(names), 3), 2, width_ratios=[1.15, 1])
    left, right = axes_RC[0]
    for place, name in enumerate(names):
        look = looks(names)[name]
        values_S = np.array(list(validation.values(name).values()))
        _runs(left, place, values_S, look, value_unit)
        gain = None if name == chosen else validation.compare(name, of=chosen)
        if gain is not None:
            ends = [factor * gain.low, factor * gain.high]
            right.plot(ends, [place, place], color=look.colour, linewidth=2.2)
            mean = factor * gain.mean
            right.plot([mean], [place], marker=look.marker, markersize=7, color=look.colour)
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
    low = float(observed_N.min())
    high = float(observed_N.max())
    spread = max(high - low, 1e-6 * max(abs(high), 1.0))
    return max(limits[0], low - spread), min(limits[1], high + spread)


def along_domain(at_D: Array, place: int, shares_K: Array) -> Array:
    """Return a mixture with varied shares of one domain, shape (K, D)."""
    is_other_D = np.arange(len(at_D)) != place
    rest_D = np.where(is_other_D, at_D, 0.0)
    if not rest_D.any():
        rest_D = is_other_D.astype(float)
    weights_KD: Array = (1.0 - shares_K)[:, None] * rest_D / max(rest_D.sum(), 1e-300)
    weights_KD[:, place] = shares_K
    return weights_KD


def _slice(axes: Axes, shares_K: Array, ends_3K: Array, share: float) -> None:
    """Draw predictions with their intervals, and the share of the mixture."""
    middle_K, low_K, high_K = ends_3K
    top = float(shares_K[-1])
    axes.fill_between(shares_K, low_K, high_K, color=ACCENT, alpha=0.22, linewidth=0, label="90%")
    axes.plot(shares_K, middle_K, color=ACCENT, linewidth=1.6, label="predicted")
    axes.axvline(share, color=INK, linewidth=1.0, dashes=(4, 3))
    axes.set_xlim(0, top)
    decimals = 0 if top > 0.04 else 1
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
    ticks(3, axes.xaxis)
    ticks(4, axes.yaxis)


def _shown(fit: Fit, target: str | None) -> tuple[str, float, int | None]:
    """Return the label of an axis, the factor from stored to shown values, and a loss's column."""
    objective = fit.objective
    if target is None:
        unit = objective.value_unit
        return f"objective, {unit_text(unit)}", shown_factor(unit), None
    check_known([target], fit.targets, "evaluation domain")
    column = fit.targets.index(target)
    is_higher = target in objective.higher
    if target in objective.items:
        return f"{written(target)}, points", 100.0, column
    unit = "metric_units" if is_higher or target.startswith(TASK) else objective.unit
    return f"{target_label(target, is_higher=is_higher)}, {UNITS[unit]}", 1.0, column


def _ends(predicted: Any, column: int | None) -> Array:
    """Return predictions and both ends of their 90% intervals, shape (3, N)."""
    if column is None:
        ends = predicted.objective_N, predicted.objective_low_N, predicted.objective_high_N
        return np.array(ends)
    return np.array([predicted.losses_NM, predicted.low_NM, predicted.high_NM])[:, :, column]


def _runs(axes: Axes, place: float, runs_S: Array, look: Look, unit: str) -> None:
    """Draw a row with a dot for each seed and a mark for the mean."""
    values_S = shown_factor(unit) * runs_S
    places_S = np.full(len(runs_S), place)
    dots(axes, values_S, places_S, 24, look.colour, alpha=0.7, marker=look.marker)
    if len(runs_S):
        mean = float(values_S.mean())
        text = value_text(runs_S.mean(), unit)
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=look.colour, linewidth=2.6)
        axes.text(
            mean, place - 0.34, text, fontsize=LETTER - 1, ha="center", va="bottom", color=INK
        )
