"""Figures with a row for each domain: shares of mixtures, shares tried by the trials.

Axes of shares start at 0 and are never cut off. A few domains have a bar with its number for each
mixture; many domains have a bar for the first mixture and markers for the others.

Shapes: N trials, D domains, P points of a front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from mixopt.errors import ConfigError
from mixopt.mixture import branch_shares
from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    INK,
    LETTER,
    MAX_ROWS,
    PAPER,
    Axes,
    Figure,
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
from mixopt.system import name_text, share_text

if TYPE_CHECKING:
    from mixopt.proposals import Front, Proposal, Recommendation
    from mixopt.trials import Trials

    Shares: TypeAlias = Mapping[str, float]
    MixturesLike: TypeAlias = Proposal | Recommendation | Shares | Mapping[str, Shares]

MAX_BARS = 4  # mixtures with a bar each
SUBJECTS = ("recommended", "proposed", "mixture")  # labels that look like the run's choice
MAX_PAIRS = 3  # panels of a front: the first pairs of targets
MAX_COLUMNS = 10  # of a map of shares with numbers


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
    figure, axes = row_figure(names, None if is_low(names) or len(further) == 1 else high)
    _shares(axes, by_name, names, getattr(mixtures, "chosen", "proposal"))
    if "uniform" not in by_name:
        style: dict[str, Any] = {"color": FAINT, "linewidth": 1.1, "dashes": (4, 3)}
        axes.axvline(1 / len(first), label="uniform", **style)
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
    shares, natural = next(iter(by_name.values())), by_name.get("natural", {})
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
    check_known(trials.domains, trials.domains if natural is None else natural, "domain")
    names = largest_domains([largest, natural or largest])
    figure, axes = row_figure(names)
    # Fixed jitter, so that equal tables give equal figures.
    spread_N = 0.56 * (np.arange(len(trials)) * 0.6180339887 % 1.0 - 0.5)
    place_D, shares_DN = np.arange(len(names)), np.array([by_domain[name] for name in names])
    row_DN, size = place_D[:, None] + spread_N, 4 if is_low(names) else 13
    dots(axes, shares_DN, row_DN, size, ACCENT, alpha=0.5, label="a trial")
    if natural is not None:
        style: dict[str, Any] = {"color": INK, "linewidth": 1.8, "label": "natural"}
        shares_D = [natural[name] for name in names]
        axes.vlines(shares_D, place_D - 0.36, place_D + 0.36, capstyle="projecting", **style)
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
    shares_RC, was_RC = np.array(rows, float), np.array(natural, float)
    largest = float(np.nanmax(shares_RC)) or 1.0
    axes.grid(visible=False)
    image = axes.imshow(shares_RC, cmap="Blues", vmin=0.0, vmax=largest, aspect="auto")
    axes.set_xticks(range(len(columns)), [written(name, 12) for name in columns])
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": row_letter(rows) - 1}
    numbered = np.isfinite(shares_RC) & (len(columns) <= MAX_COLUMNS)
    for row, column in np.argwhere(numbered):
        share, was = shares_RC[row, column], np.broadcast_to(was_RC, shares_RC.shape)[row, column]
        text = share_text(share) if np.isnan(was) else f"{share_text(share)} ({share_text(was)})"
        axes.annotate(text, (column, row), color=PAPER if share > 0.6 * largest else INK, **style)
    return image


def _by_name(shares: MixturesLike) -> dict[str, Shares]:
    """Return the mixtures by their labels; the first is the subject of the figure."""
    if not isinstance(shares, Mapping):
        called = "recommended" if hasattr(shares, "chosen") else "proposed"
        return {called: shares.mixture, "natural": shares.natural}
    if not shares:
        raise ConfigError("a figure of no mixtures was requested: give it one")
    if not isinstance(next(iter(shares.values())), Mapping):
        return {"mixture": cast("Shares", shares)}
    mixtures = dict(cast("Mapping[str, Shares]", shares))
    first = next(iter(mixtures))
    for name, mixture in mixtures.items():
        for odd in sorted(set(mixture) ^ set(mixtures[first])):
            raise ConfigError(f"mixtures {first!r} and {name!r}: domain {odd!r} is in one of them")
    return mixtures


def _shares(axes: Axes, by_name: Mapping[str, Shares], names: Sequence[str], chosen: str) -> None:
    """Draw bars with numbers; in low rows, one bar and markers for the other mixtures."""
    first, *further = by_name
    owners = [chosen if first in SUBJECTS else first, *further]
    bars = list(by_name)[: 1 if is_low(names) else MAX_BARS]
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
    x, y = (f"{'' if n in front.higher else 'loss on '}{written(n)}" for n in (first, second))
    label(axes, x=x, y=y)
