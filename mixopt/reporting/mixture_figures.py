"""Figures with a row for each domain: shares of mixtures, epochs, shares tried by the trials.

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
    INK,
    LETTER,
    MAX_ROWS,
    PAPER,
    Axes,
    Figure,
    MaxNLocator,
    PercentFormatter,
    check_known,
    dots,
    guide,
    is_low,
    label,
    legend,
    legend_above,
    looks,
    name_rows,
    new_figure,
    of_all,
    row_figure,
    row_letter,
    shown_domains,
    written,
)
from mixopt.system import Array, name_text, share_text

if TYPE_CHECKING:
    from mixopt.proposals import Front, Proposal, Recommendation
    from mixopt.trials import Trials

    Shares: TypeAlias = Mapping[str, float]
    MixturesLike: TypeAlias = Proposal | Recommendation | Shares | Mapping[str, Shares]

MAX_BARS = 4  # mixtures with a bar each
AT_CAP = 1e-3  # relative distance within which a domain counts as at its cap
MAX_PAIRS = 3  # panels of a front: the first pairs of targets
MAX_COLUMNS = 10  # of a map of shares with numbers


def plot_mixtures(
    mixtures: MixturesLike, natural: Shares | None = None, *, domains: Sequence[str] | None = None
) -> Figure:
    """Plot each domain's share in mixtures, beside natural and uniform shares."""
    shown = _by_name(mixtures)
    if natural is None and not isinstance(mixtures, Mapping):
        natural = mixtures.natural
    if natural is not None:
        shown.setdefault("natural", natural)
    first, every = next(iter(shown.values())), list(shown.values())
    for other in every:
        check_known(first, other, "domain")
    names = shown_domains(domains, first, every, MAX_ROWS)
    names = sorted(names, key=lambda name: -first[name])
    high = 0.12 + 0.17 * min(len(shown), MAX_BARS)
    figure, axes = row_figure(names, None if is_low(names) or len(shown) == 2 else high)
    _shares(axes, shown, names, _owners(mixtures, shown))
    if "uniform" not in shown:
        guide(axes, 1 / len(first), "uniform")
    axes.set_xlim(0, 1.12 * max(mixture[name] for mixture in every for name in names))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{of_all(names, first)}")
    legend_above(axes)
    return figure


def plot_epochs(
    epochs: Proposal | Recommendation | Mapping[str, float],
    caps: float | Mapping[str, float] | None = None,
    *,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Plot the epochs of each domain in the full run, and their maximum."""
    passes = epochs if isinstance(epochs, Mapping) else epochs.epochs
    if not passes:
        raise ConfigError(
            "epochs are not known: set propose.target_tokens (or --tokens 25e9) and propose again"
        )
    most = dict.fromkeys(passes, caps) if isinstance(caps, int | float) else dict(caps or {})
    check_known(most, passes, "domain")
    names = shown_domains(domains, passes, [passes], MAX_ROWS)
    names = sorted(names, key=lambda name: -passes[name])
    figure, axes = row_figure(names)
    _epoch_bars(axes, names, passes, most)
    guide(axes, 1, "all of its text once")
    axes.set_xlim(0, 1.15 * max(1.0, *(max(passes[n], most.get(n) or 0.0) for n in names)))
    label(axes, x=f"epochs: passes over the domain's text{of_all(names, passes)}")
    legend_above(axes)
    return figure


def plot_cells(mixture: MixturesLike, natural: Shares | None = None) -> Figure:
    """Plot a tree of domains as a map: a row for each branch, a column for each last part.

    Args:
        mixture: A proposal, a recommendation, or shares by domain.
        natural: Shares to compare with; None: those of the proposal or recommendation.

    Raises:
        ConfigError: The domains do not form a tree.
    """
    ((_, shares), *_) = _by_name(mixture).items()
    if natural is None and not isinstance(mixture, Mapping):
        natural = mixture.natural
    cells = {tuple(name.rsplit("/", 1)): one for name, one in shares.items() if "/" in name}
    if not branch_shares(shares):
        raise ConfigError("a map of cells needs domains that nest, such as web/science/high")
    levels = list(dict.fromkeys(level for _, level in cells))
    sums = {name: one for name, one in branch_shares(shares).items() if name not in shares}
    names = sorted(sums, key=lambda name: -sums[name])[:MAX_ROWS]
    figure, axes = row_figure(names, margin=1.2)
    cells_BL = [[cells.get((one, level)) for level in levels] for one in names]
    was_BL = [[(natural or {}).get(f"{one}/{level}") for level in levels] for one in names]
    image = _share_map(axes, cells_BL, was_BL, levels)
    name_rows(axes, names)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1.0, decimals=1), pad=0.02)
    beside = "" if natural is None else ", natural in brackets"
    label(axes, x=f"share of the training tokens{beside}{of_all(names, sums)}")
    return figure


def plot_design(
    trials: Trials,
    natural: Mapping[str, float] | None = None,
    *,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Plot the shares of each domain that the trials have tried, one dot a trial.

    Args:
        trials: The trials, finished or not.
        natural: Share of each domain in the corpus, drawn as a line.
        domains: The domains to show; None: all up to 64, else those with the largest shares.

    Raises:
        ConfigError: An unknown domain.
    """
    by_domain = dict(zip(trials.domains, trials.weights().T, strict=True))
    named: list[Shares] = [
        {name: max(shares_N, default=0.0) for name, shares_N in by_domain.items()}
    ]
    if natural is not None:
        check_known(trials.domains, natural, "domain")
        named.append(natural)
    shown = shown_domains(domains, trials.domains, named, MAX_ROWS)
    figure, axes = row_figure(shown)
    # Fixed jitter, so that equal tables give equal figures.
    spread_N = 0.56 * (np.arange(len(trials)) * 0.6180339887 % 1.0 - 0.5)
    for place, name in enumerate(shown):
        size, mark = 4 if is_low(shown) else 13, "a trial" if place == 0 else None
        dots(axes, by_domain[name], place + spread_N, size, ACCENT, alpha=0.5, label=mark)
        if natural is not None:
            mark = "natural" if place == 0 else None
            ends = [place - 0.36, place + 0.36]
            axes.plot([natural[name]] * 2, ends, color=INK, linewidth=1.8, label=mark)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{of_all(shown, trials.domains)}")
    legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure


def plot_front(front: Front, trials: Trials | None = None) -> Figure:
    """Plot predicted losses for each pair of targets, and the weights of each point below."""
    pairs = list(combinations(front.targets, 2))[:MAX_PAIRS]
    figure, axes_RC = new_figure(3.4 + 0.8 + 0.34 * len(front.points), len(pairs), 2)
    for axes, (first, second) in zip(axes_RC[0], pairs, strict=True):
        _trade(axes, front, first, second, trials)
    legend_above(axes_RC[0, 0])
    axes, *others = axes_RC[1]
    for other in others:
        other.remove()
    axes.set_subplotspec(axes.get_gridspec()[1, :])
    every = [point.mixture for point in front.points]
    domains = shown_domains(None, every[0], every, MAX_ROWS)
    shares_PD = [[mixture[domain] for domain in domains] for mixture in every]
    _share_map(axes, shares_PD, [[None] * len(domains)] * len(every), domains)
    axes.set_xticks(axes.get_xticks(), axes.get_xticklabels(), rotation=60, ha="right")
    name_rows(axes, [str(number) for number, _ in enumerate(every, start=1)])
    label(axes, x=f"share of the training tokens{of_all(domains, every[0])}", y="proposal")
    return figure


def _share_map(
    axes: Axes,
    shares_RC: Sequence[Sequence[float | None]],
    was_RC: Sequence[Sequence[float | None]],
    columns: Sequence[str],
) -> Any:
    """Draw shares as a map, darker for more; with few columns also as numbers."""
    shares = np.array(shares_RC, dtype=float)
    most = float(np.nanmax(shares)) or 1.0
    axes.grid(visible=False)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=most, aspect="auto")
    axes.set_xticks(range(len(columns)), [written(one, 12) for one in columns])
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": row_letter(shares) - 1}
    for (row, column), share in np.ndenumerate(shares) if len(columns) <= MAX_COLUMNS else ():
        if np.isfinite(share):
            was = was_RC[row][column]
            text = share_text(share) if was is None else f"{share_text(share)} ({share_text(was)})"
            axes.annotate(text, (column, row), color=PAPER if share > 0.6 * most else INK, **style)
    return image


def _by_name(given: MixturesLike) -> dict[str, Shares]:
    """Return the mixtures by their labels; the first is the subject of the figure."""
    if not isinstance(given, Mapping):
        return {"recommended" if hasattr(given, "chosen") else "proposed": given.mixture}
    if not given:
        raise ConfigError("a figure of no mixtures was requested: give it one")
    if not isinstance(next(iter(given.values())), Mapping):
        return {"mixture": cast("Shares", given)}
    mixtures = dict(cast("Mapping[str, Shares]", given))
    first = next(iter(mixtures))
    for name, mixture in mixtures.items():
        for odd in sorted(set(mixture) ^ set(mixtures[first])):
            raise ConfigError(f"mixtures {first!r} and {name!r}: domain {odd!r} is in one of them")
    return mixtures


def _owners(given: MixturesLike, shown: Mapping[str, Shares]) -> list[str]:
    """Return the mixtures of a run that define the looks of a figure's mixtures."""
    first, *others = shown
    if isinstance(given, Mapping) and first in given:
        return list(shown)
    return [getattr(given, "chosen", "proposal"), *others]


def _shares(
    axes: Axes, shown: Mapping[str, Shares], names: Sequence[str], owners: Sequence[str]
) -> None:
    """Draw bars with numbers; in low rows, one bar and markers for the other mixtures."""
    bars = list(shown)[: 1 if is_low(names) else MAX_BARS]
    high = 0.76 / len(bars)
    for number, (name, mixture) in enumerate(shown.items()):
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
        axes.barh(places_D, shares_D, height=0.9 * high, **style)
        if not is_low(names):
            _numbers(axes, places_D, shares_D, [share_text(share) for share in shares_D])


def _numbers(axes: Axes, places_D: Array, widths_D: Array, texts: Sequence[str]) -> None:
    """Write the value at the end of each bar."""
    beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    beside |= {"fontsize": row_letter(texts) - 1, "color": INK}
    for place, width, text in zip(places_D, widths_D, texts, strict=True):
        axes.annotate(text, (width, place), **beside)


def _epoch_bars(
    axes: Axes, names: Sequence[str], passes: Mapping[str, float], most: Mapping[str, Any]
) -> None:
    """Draw the epochs of each domain, hatched at its cap, and the caps."""
    passes_D = np.array([passes[name] for name in names])
    caps_D = np.array([most.get(name) or np.nan for name in names], float)
    held_D = passes_D >= (1 - AT_CAP) * caps_D
    style: dict[str, Any] = {"height": 0.66, "edgecolor": PAPER, "linewidth": 0, "color": ACCENT}
    axes.barh(range(len(names)), passes_D, label="epochs; hatched: at the cap", **style)
    for bar, is_held in zip(axes.patches, held_D, strict=True):
        bar.set_hatch("////" if is_held else "")
    (known_K,) = np.nonzero(np.isfinite(caps_D))
    if len(known_K):
        line: dict[str, Any] = {"color": INK, "linewidth": 1.6, "label": "maximum allowed"}
        axes.vlines(caps_D[known_K], known_K - 0.42, known_K + 0.42, **line)
    ends_D = np.where(held_D, np.fmax(caps_D, passes_D), passes_D)
    _numbers(axes, np.arange(len(names), dtype=float), ends_D, [f"{one:.2f}" for one in passes_D])


def _trade(axes: Axes, front: Front, first: str, second: str, trials: Trials | None) -> None:
    if trials is not None:
        seen = dict(zip(trials.targets, trials.losses(front.unit).T, strict=True))
        dots(axes, seen[first], seen[second], 11, label="a trial")
    places = [(one.losses[first].value, one.losses[second].value) for one in front.points]
    x_P, y_P = zip(*sorted(places), strict=True)
    if len(front.targets) == 2:  # with more targets the front is a surface
        axes.plot(x_P, y_P, color=ACCENT, linewidth=1.2)
    axes.scatter(x_P, y_P, s=26, color=ACCENT, zorder=3, label="a proposal, predicted")
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": LETTER - 1, "color": INK}
    for number, at in enumerate(places, start=1):
        axes.annotate(str(number), at, (5, 4), **style)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    x, y = (f"{'' if n in front.higher else 'loss on '}{written(n)}" for n in (first, second))
    label(axes, x=x, y=y)
