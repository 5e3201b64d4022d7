"""Figures with a row for each domain: shares of mixtures, passes over the text, what was tried.

No axis is cut off: limits follow the values, so that a large share is seen to be large. A few
domains have a bar for each mixture with its number; more have a bar for the first mixture and a
marker for each other, in rows of half the height.

Shapes: N trials, D domains, P points of a front.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from mixopt.errors import ConfigError
from mixopt.mixture import branch_shares
from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    FEW_ROWS,
    INK,
    LETTER,
    MAX_ROWS,
    PAPER,
    WARNING,
    Axes,
    Figure,
    MaxNLocator,
    PercentFormatter,
    check_known,
    label,
    legend,
    legend_above,
    looks,
    name_rows,
    new_figure,
    of_all,
    row_height,
    row_letter,
    shown_domains,
    written,
)
from mixopt.system import Array, BoolArray, name_text, share_text

if TYPE_CHECKING:
    from mixopt.proposals import Front, Proposal, Recommendation
    from mixopt.trials import Trials

    Shares: TypeAlias = Mapping[str, float]
    MixturesLike: TypeAlias = Proposal | Recommendation | Shares | Mapping[str, Shares]

MAX_BARS = 4  # mixtures that have a bar each
AT_CAP = 1e-3  # relative: this near to its cap, a domain is at it
MAX_PAIRS = 3  # panels of a front at most: of more targets the first pairs are shown
MAX_BANDS = 18  # domains that have a band of their own: of more those with the largest shares
MIN_BAND = 0.06  # of the tokens: a narrower band has no number
BAND_COLOURS = (
    "#8fbcd9", "#f2f0f7", "#b9b9b9", "#fff2cc", "#e0b48a", "#f7f7f7", "#a3c79f", "#e9e4f5",
)  # fmt: skip
BAND_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++")


def plot_mixtures(
    mixtures: MixturesLike,
    natural: Shares | None = None,
    *,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Show each domain's share in mixtures, beside its natural and the uniform one."""
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
    is_low = len(names) > FEW_ROWS
    high = 0.12 + 0.17 * min(len(shown), MAX_BARS)
    row = row_height(len(names)) if is_low or len(shown) == 2 else high
    figure, axes_RC = new_figure(0.9 + row * len(names))
    axes = axes_RC[0, 0]
    _shares(axes, shown, names, _owners(mixtures, shown))
    if "uniform" not in shown:
        axes.axvline(1 / len(first), color=FAINT, linewidth=1.1, dashes=(4, 3), label="uniform")
    name_rows(axes, names, row_letter(len(names)))
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
    """Show how often each domain's text is seen in the full run, and how often it may be."""
    passes = epochs if isinstance(epochs, Mapping) else epochs.epochs
    if not passes:
        raise ConfigError(
            "epochs are not known: set propose.target_tokens (or --tokens 25e9) and propose again"
        )
    most = dict.fromkeys(passes, caps) if isinstance(caps, int | float) else dict(caps or {})
    check_known(most, passes, "domain")
    names = shown_domains(domains, passes, [passes], MAX_ROWS)
    names = sorted(names, key=lambda name: -passes[name])
    figure, axes_RC = new_figure(0.9 + row_height(len(names)) * len(names))
    axes = axes_RC[0, 0]
    _epoch_bars(axes, names, passes, most)
    axes.axvline(1, color=FAINT, linewidth=1.1, dashes=(4, 3), label="all of its text once")
    name_rows(axes, names, row_letter(len(names)))
    axes.set_xlim(0, 1.15 * max(1.0, *(max(passes[n], most.get(n) or 0.0) for n in names)))
    label(axes, x=f"epochs: passes over the domain's text{of_all(names, passes)}")
    legend_above(axes)
    return figure


def plot_cells(mixture: MixturesLike, natural: Shares | None = None) -> Figure:
    """Show a tree of domains as a map: a row for each branch, a column for each last part.

    Args:
        mixture: A proposal, a recommendation, or shares by domain.
        natural: Shares that it is compared with; those of a proposal or recommendation when None.

    Raises:
        ConfigError: The domains are no tree.
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
    cells_BL = np.array([[cells.get((one, level), np.nan) for level in levels] for one in names])
    figure, axes_RC = new_figure(1.2 + row_height(len(names)) * len(names))
    axes = axes_RC[0, 0]
    axes.grid(visible=False)
    most = float(np.nanmax(cells_BL)) or 1.0
    image = axes.imshow(cells_BL, cmap="Blues", vmin=0.0, vmax=most, aspect="auto")
    name_rows(axes, names, row_letter(len(names)))
    axes.set_xticks(range(len(levels)), [written(level, 12) for level in levels])
    figure.colorbar(image, ax=axes, format=PercentFormatter(1.0, decimals=1), pad=0.02)
    for (row, column), share in np.ndenumerate(cells_BL) if len(levels) <= FEW_ROWS // 2 else ():
        if np.isfinite(share):
            was = None if natural is None else natural.get("/".join((names[row], levels[column])))
            text = share_text(share) if was is None else f"{share_text(share)} ({share_text(was)})"
            ink = PAPER if share > 0.6 * most else INK
            style = {"ha": "center", "va": "center", "fontsize": row_letter(len(names)) - 1}
            axes.annotate(text, (column, row), color=ink, **style)
    beside = "" if natural is None else ", natural in brackets"
    label(axes, x=f"share of the training tokens{beside}{of_all(names, sums)}")
    return figure


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
    shown = shown_domains(domains, trials.domains, named, MAX_ROWS)
    figure, axes_RC = new_figure(0.9 + row_height(len(shown)) * len(shown))
    axes = axes_RC[0, 0]
    # A fixed spread across the row, so that equal tables give equal figures.
    spread_N = 0.56 * (np.arange(len(weights_ND)) * 0.6180339887 % 1.0 - 0.5)
    for place, name in enumerate(shown):
        axes.scatter(
            by_domain[name],
            place + spread_N,
            s=13 if len(shown) <= FEW_ROWS else 4,
            color=ACCENT,
            alpha=0.5,
            linewidths=0,
            label="a trial" if place == 0 else None,
        )
        if natural is not None:
            mark = "natural" if place == 0 else None
            ends = [place - 0.36, place + 0.36]
            axes.plot([natural[name]] * 2, ends, color=INK, linewidth=1.8, label=mark)
    name_rows(axes, shown, row_letter(len(shown)))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x=f"share of the training tokens{of_all(shown, trials.domains)}")
    legend(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure


def plot_front(front: Front, trials: Trials | None = None) -> Figure:
    """Show predicted losses of each pair of targets, and each point's weights beneath."""
    pairs = list(combinations(front.targets, 2))[:MAX_PAIRS]
    figure, axes_RC = new_figure(3.4 + 0.8 + 0.34 * len(front.points), len(pairs), 2)
    for axes, (first, second) in zip(axes_RC[0], pairs, strict=True):
        _trade(axes, front, first, second, trials)
    marks, names = axes_RC[0, 0].get_legend_handles_labels()
    figure.legend(
        marks,
        names,
        frameon=False,
        fontsize=LETTER,
        labelcolor=INK,
        loc="outside upper right",
        ncols=2,
    )
    for axes in axes_RC[1, 1:]:
        axes.remove()
    _weights(axes_RC[1, 0], front)
    axes_RC[1, 0].set_subplotspec(axes_RC[1, 0].get_gridspec()[1, :])
    return figure


def _by_name(given: MixturesLike) -> dict[str, Shares]:
    """Return the mixtures by what a figure calls them; the first is what it is about."""
    if not isinstance(given, Mapping):
        return {"recommended" if hasattr(given, "chosen") else "proposed": given.mixture}
    if not given:
        raise ConfigError("a figure of no mixtures was requested: give it one")
    if not isinstance(next(iter(given.values())), Mapping):
        return {"mixture": cast("Shares", given)}
    mixtures = dict(cast("Mapping[str, Shares]", given))
    first = next(iter(mixtures))
    for name, mixture in mixtures.items():
        odd = sorted(set(mixture) ^ set(mixtures[first]))
        if odd:
            raise ConfigError(
                f"mixtures {first!r} and {name!r}: domain {odd[0]!r} is in one of them"
            )
    return mixtures


def _owners(given: MixturesLike, shown: Mapping[str, Shares]) -> list[str]:
    """Return the mixtures of a run whose looks those of a figure have."""
    first, *others = shown
    if isinstance(given, Mapping) and first in given:
        return list(shown)
    return [getattr(given, "chosen", "proposal"), *others]


def _shares(
    axes: Axes, shown: Mapping[str, Shares], names: Sequence[str], owners: Sequence[str]
) -> None:
    """Draw bars with their numbers; in low rows a bar for the first mixture, and markers."""
    is_low = len(names) > FEW_ROWS
    bars = list(shown)[: 1 if is_low else MAX_BARS]
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
        if not is_low:
            _numbers(axes, places_D, shares_D, [share_text(share) for share in shares_D])


def _numbers(axes: Axes, places_D: Array, widths_D: Array, texts: Sequence[str]) -> None:
    """Write a number at the end of each bar."""
    beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    beside |= {"fontsize": row_letter(len(texts)) - 1, "color": INK}
    for place, width, text in zip(places_D, widths_D, texts, strict=True):
        axes.annotate(text, (width, place), **beside)


def _epoch_bars(
    axes: Axes, names: Sequence[str], passes: Mapping[str, float], most: Mapping[str, Any]
) -> None:
    places_D = np.arange(len(names), dtype=np.float64)
    passes_D = np.array([passes[name] for name in names])
    caps_D = np.array([most.get(name) or np.nan for name in names], float)
    held_D = passes_D >= (1 - AT_CAP) * caps_D
    style: dict[str, Any] = {"height": 0.66, "edgecolor": PAPER, "linewidth": 0}
    looks: tuple[tuple[BoolArray, str, dict[str, Any]], ...] = (
        (~held_D, "epochs", {"color": ACCENT}),
        (held_D, "epochs, at the cap", {"color": WARNING, "hatch": "////"}),
    )
    for chosen_D, text, look in looks:
        if chosen_D.any():
            axes.barh(places_D[chosen_D], passes_D[chosen_D], label=text, **style, **look)
    known_D = np.isfinite(caps_D)
    if known_D.any():
        at_D, line = places_D[known_D], {"color": INK, "linewidth": 1.6}
        axes.vlines(caps_D[known_D], at_D - 0.42, at_D + 0.42, **line, label="maximum allowed")
    ends_D = np.where(held_D, np.maximum(caps_D, passes_D), passes_D)
    _numbers(axes, places_D, ends_D, [f"{one:.2f}" for one in passes_D])


def _trade(axes: Axes, front: Front, first: str, second: str, trials: Trials | None) -> None:
    if trials is not None:
        seen = dict(zip(trials.targets, trials.losses(front.unit).T, strict=True))
        axes.scatter(seen[first], seen[second], s=11, color=FAINT, linewidths=0, label="a trial")
    points = sorted(front.points, key=lambda point: point.losses[first].value)
    x_P, y_P = ([p.losses[name].value for p in points] for name in (first, second))
    if len(front.targets) == 2:  # of more, the front is a surface
        axes.plot(x_P, y_P, color=ACCENT, linewidth=1.2)
    axes.scatter(x_P, y_P, s=26, color=ACCENT, zorder=3, label="a proposal, predicted")
    for number, point in enumerate(front.points, start=1):
        at = (point.losses[first].value, point.losses[second].value)
        axes.annotate(
            str(number), at, (5, 4), textcoords="offset points", fontsize=LETTER - 1, color=INK
        )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    label(axes, x=f"loss on {written(first)}", y=f"loss on {written(second)}")


def _weights(axes: Axes, front: Front) -> None:
    """Draw each point's mixture as bands; hatches tell them apart in grey print."""
    first = front.points[0].mixture
    every = [point.mixture for point in front.points]
    domains = shown_domains(None, first, every, MAX_BANDS)
    places = np.arange(len(every), dtype=float)
    left_P = np.zeros(len(every))
    looks = zip(itertools.cycle(BAND_COLOURS), itertools.cycle(BAND_HATCHES), strict=False)
    for domain, (colour, hatch) in zip(domains, looks, strict=False):
        widths_P = np.array([mixture[domain] for mixture in every])
        _band(axes, places, widths_P, left_P, (colour, hatch), written(domain, 22))
        for place, width, left in zip(places, widths_P, left_P, strict=True):
            if width >= MIN_BAND:
                axes.annotate(
                    share_text(width),
                    (left + width / 2, place),
                    ha="center",
                    va="center",
                    fontsize=LETTER - 2,
                    bbox={"boxstyle": "square,pad=0.1", "color": PAPER, "alpha": 0.8},
                )
        left_P += widths_P
    if len(domains) < len(first):
        others = f"{len(first) - len(domains)} others"
        _band(axes, places, np.maximum(1 - left_P, 0), left_P, (PAPER, ""), others)
    axes.set_yticks(places, [str(number + 1) for number in range(len(places))])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, x="share of the training tokens", y="proposal")
    legend(axes, loc="center left", bbox_to_anchor=(1, 0.5))


def _band(
    axes: Axes, places: Array, widths_P: Array, left_P: Array, look: tuple[str, str], text: str
) -> None:
    style: dict[str, Any] = {"height": 0.72, "color": look[0], "hatch": look[1]}
    style |= {"edgecolor": FAINT, "linewidth": 0.4}
    axes.barh(places, widths_P, left=left_P, label=text, **style)
