"""Figures with a row for each domain: shares of mixtures, and passes over the text.

No axis is cut off: limits follow the values, so that a large share is seen to be large. Up to
`FEW` domains have a bar for each mixture with its number; more have a bar for the first mixture and
a marker for each other, in rows of half the height.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.errors import ConfigError
from mixopt.plots.drawing import Axes, Figure, PercentFormatter
from mixopt.plots.drawn_mixtures import mixtures_by_name, natural_of
from mixopt.plots.figure_style import (
    COLOURS,
    FAINT,
    INK,
    OTHERS,
    PAPER,
    colour_of,
    hatch_of,
    label,
    legend_above,
    marker_of,
    new_figure,
    written,
)
from mixopt.plots.shown_domains import (
    FEW,
    ROWS,
    asked_domains,
    check_known,
    of_all,
    row_height,
    row_letter,
)
from mixopt.system import Array, BoolArray, name_text, share_text

if TYPE_CHECKING:
    from mixopt.plots.drawn_mixtures import MixturesLike, Shares
    from mixopt.proposals import Proposal, Recommendation

BARS = 4  # mixtures that have a bar each
COLUMNS = 3  # mixtures whose numbers are written in rows that are low
AT_CAP = 1e-3  # relative: this near to its cap, a domain is at it


def plot_mixtures(
    mixtures: MixturesLike,
    natural: Shares | None = None,
    *,
    domains: Sequence[str] | None = None,
) -> Figure:
    """Show each domain's share in one or several mixtures, beside its natural and the uniform one.

    Args:
        mixtures: A proposal, a recommendation, a mixture, or several mixtures by name; rows are in
            the order of the first one's shares.
        natural: Each domain's share of the corpus; that of the proposal or the recommendation when
            None.
        domains: The domains to show; all of 64, of more those with the largest shares, when None.

    Raises:
        ConfigError: An unknown domain, or mixtures of different domains.
    """
    shown = mixtures_by_name(mixtures)
    natural = natural_of(mixtures) if natural is None else natural
    if natural is not None and "natural" not in shown:
        shown["natural"] = natural
    first, every = next(iter(shown.values())), list(shown.values())
    for other in every:
        check_known(first, other, "domain")
    names = asked_domains(domains, first, every, ROWS)
    names = sorted(names, key=lambda name: -first[name])
    figure, axes_RC = new_figure(0.9 + _row(len(names), len(shown)) * len(names))
    axes = axes_RC[0, 0]
    _shares(axes, shown, names)
    if "uniform" not in shown:
        axes.axvline(1 / len(first), color=FAINT, linewidth=1.1, dashes=(4, 3), label="uniform")
    _rows(axes, names)
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
    """Show how often each domain's text is seen in the full run, and how often it may be.

    Args:
        epochs: A proposal, a recommendation, or passes by domain.
        caps: The most passes, for all domains or by domain; a domain at its cap is marked.
        domains: The domains to show; all of 64, of more those with the most epochs, when None.

    Raises:
        ConfigError: Epochs are not known, or an unknown domain.
    """
    passes = _passes(epochs)
    most = dict.fromkeys(passes, caps) if isinstance(caps, int | float) else dict(caps or {})
    check_known(most, passes, "domain")
    names = sorted(asked_domains(domains, passes, [passes], ROWS), key=lambda name: -passes[name])
    figure, axes_RC = new_figure(0.9 + _row(len(names), 1) * len(names))
    axes = axes_RC[0, 0]
    _epoch_bars(axes, names, passes, most)
    axes.axvline(1, color=FAINT, linewidth=1.1, dashes=(4, 3), label="all of its text once")
    _rows(axes, names)
    axes.set_xlim(0, 1.15 * max(1.0, *(max(passes[n], most.get(n) or 0.0) for n in names)))
    label(axes, x=f"epochs: passes over the domain's text{of_all(names, passes)}")
    legend_above(axes)
    return figure


def _passes(given: Proposal | Recommendation | Mapping[str, float]) -> Mapping[str, float]:
    passes = given if isinstance(given, Mapping) else given.epochs
    if not passes:
        raise ConfigError(
            "epochs are not known: set propose.target_tokens (or --tokens 25e9) and propose again"
        )
    return passes


def _row(rows: int, mixtures: int) -> float:
    return row_height(rows) if rows > FEW or mixtures == 2 else 0.12 + 0.17 * min(mixtures, BARS)


def _shares(axes: Axes, shown: Mapping[str, Shares], names: Sequence[str]) -> None:
    """Draw bars, and markers for mixtures that have none."""
    bars = list(shown)[: BARS if len(names) <= FEW else 1]
    columns = [name for name in shown if name != "uniform"][:COLUMNS] if len(names) > FEW else []
    high = 0.76 / len(bars)
    for number, (name, mixture) in enumerate(shown.items()):
        known = "proposal" if number == 0 else name
        look = (known, number)
        shares_D = np.array([mixture[domain] for domain in names])
        if name in bars:
            shift = (number - (len(bars) - 1) / 2) * high
            places_D = np.arange(len(names), dtype=np.float64) + shift
            _bars(axes, places_D, shares_D, 0.9 * high, look, name_text(name))
        else:
            _markers(axes, shares_D, look, name_text(name))
        texts = [share_text(share) for share in shares_D]
        if name in columns:
            _column(axes, columns.index(name), texts, name_text(name))
        elif name in bars and len(names) <= FEW:
            _numbers(axes, places_D, shares_D, texts, len(names))


def _bars(
    axes: Axes, places_D: Array, widths_D: Array, high: float, look: tuple[str, int], text: str
) -> None:
    axes.barh(
        places_D,
        widths_D,
        height=high,
        color=colour_of(*look),
        hatch=hatch_of(*look),
        edgecolor=PAPER,
        linewidth=0,
        label=written(text),
    )


def _markers(axes: Axes, shares_D: Array, look: tuple[str, int], text: str) -> None:
    axes.plot(
        shares_D,
        np.arange(len(shares_D)),
        linestyle="none",
        marker=marker_of(*look),
        markersize=4.5,
        color=colour_of(*look),
        markeredgecolor=INK,
        markeredgewidth=0.6,
        label=written(text),
        zorder=3,
    )


def _numbers(axes: Axes, places_D: Array, widths_D: Array, texts: Sequence[str], rows: int) -> None:
    """Write a number at the end of each bar."""
    beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    beside |= {"fontsize": row_letter(rows) - (1 if rows <= FEW else 0.5), "color": INK}
    for place, width, text in zip(places_D, widths_D, texts, strict=True):
        axes.annotate(text, (width, place), **beside)


def _column(axes: Axes, number: int, texts: Sequence[str], name: str) -> None:
    """Write numbers in a column at the right, where no marker covers them."""
    style: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "color": INK}
    style |= {"textcoords": "offset points", "annotation_clip": False}
    style |= {"ha": "right", "va": "center", "fontsize": row_letter(len(texts))}
    right = 36 + 38 * number  # points
    for place, text in enumerate(texts):
        axes.annotate(text, (1, place), (right, 0), **style)
    head = {**style, "va": "bottom", "rotation": 35}
    axes.annotate(written(name, 10), (1, -0.75), (right + 4, 0), **head)


def _epoch_bars(
    axes: Axes, names: Sequence[str], passes: Mapping[str, float], most: Mapping[str, Any]
) -> None:
    places_D = np.arange(len(names), dtype=np.float64)
    passes_D = np.array([passes[name] for name in names])
    caps_D = np.array([most.get(name) or np.nan for name in names], float)
    held_D = passes_D >= (1 - AT_CAP) * caps_D
    styles: tuple[tuple[BoolArray, str, dict[str, Any]], ...] = (
        (~held_D, "epochs", {"color": COLOURS["proposal"]}),
        (held_D, "epochs, at the cap", {"color": OTHERS[1], "hatch": "////"}),
    )
    for chosen_D, text, style in styles:
        if chosen_D.any():
            axes.barh(
                places_D[chosen_D],
                passes_D[chosen_D],
                height=0.66,
                edgecolor=PAPER,
                linewidth=0,
                label=text,
                **style,
            )
    known_D = np.isfinite(caps_D)
    if known_D.any():
        style = {"color": INK, "linewidth": 1.6}
        at_D = places_D[known_D]
        axes.vlines(caps_D[known_D], at_D - 0.42, at_D + 0.42, **style, label="maximum allowed")
    ends_D = np.where(held_D, np.maximum(caps_D, passes_D), passes_D)
    _numbers(axes, places_D, ends_D, [f"{one:.2f}" for one in passes_D], len(names))


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows, the first at the top."""
    size = row_letter(len(names))
    axes.set_yticks(range(len(names)), [written(name) for name in names], fontsize=size)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
