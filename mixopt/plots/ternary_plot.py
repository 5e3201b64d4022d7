"""The picture of three domains or groups that share their tokens in every way.

A corner is all of their tokens for one of the three; the other domains keep what they have in the
mixture. Inside a group, domains keep their proportions. Dark is a good prediction, in grey too.

Shapes: D domains, K mixtures of the slice, 3 parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.errors import ConfigError
from mixopt.mixture import Mixture
from mixopt.plots.drawing import Axes, Figure
from mixopt.plots.drawn_mixtures import centre
from mixopt.plots.figure_style import (
    COLOURS,
    FAINT,
    INK,
    LETTER,
    MARKERS,
    PAPER,
    label,
    new_figure,
    written,
)
from mixopt.plots.fitted_values import FittedValue
from mixopt.plots.load_scale import NEAR, colour_scale
from mixopt.plots.shown_domains import check_known
from mixopt.system import Array, share_text

if TYPE_CHECKING:
    from mixopt.constraints import Constraints
    from mixopt.fitting import Fit
    from mixopt.proposals import Proposal, Recommendation

SIDE = 32  # steps along a side of the triangle
HIGH = math.sqrt(3) / 2
CORNERS_32 = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, HIGH]])


@dataclass(frozen=True)
class TernarySlice:
    """Mixtures that differ in how three parts share their tokens.

    Attributes:
        at_D: The mixture that the slice goes through.
        inside_3D: How a part's tokens are shared by its domains, a row adding up to 1.
        total: What the three have together.
    """

    at_D: Array
    inside_3D: Array
    total: float

    @classmethod
    def of(cls, at_D: Array, members_3D: Array, total: float | None) -> TernarySlice:
        """Take the parts' insides from the mixture; a part without tokens is shared evenly."""
        own_3D = members_3D * at_D
        own_3D = np.where(own_3D.sum(1, keepdims=True) > 0, own_3D, members_3D)
        shared = float((members_3D * at_D).sum())
        everything = members_3D.sum() == len(at_D)
        asked = total if total is not None else (shared if 0 < shared < 1 else 1.0)
        return cls(at_D, own_3D / own_3D.sum(1, keepdims=True), 1.0 if everything else asked)

    def mixtures(self, parts_K3: Array) -> Array:
        """Return the mixtures of some shares among the three, shape (K, D)."""
        rest_D = np.where(self.inside_3D.sum(0) > 0, 0.0, self.at_D)
        if self.total < 1 and rest_D.sum() <= 0:
            rest_D = (self.inside_3D.sum(0) == 0).astype(float)
        rest_D = rest_D * ((1 - self.total) / max(float(rest_D.sum()), 1e-300))
        weights_KD: Array = self.total * parts_K3 @ self.inside_3D + rest_D
        return weights_KD

    def parts(self, weights_ND: Array) -> Array:
        """Return how the three share their tokens in some mixtures, shape (N, 3); NaN for none."""
        sums_N3 = weights_ND @ (self.inside_3D > 0).T
        totals_N1 = sums_N3.sum(1, keepdims=True)
        parts_N3: Array = np.where(totals_N1 > 1e-9, sums_N3 / np.maximum(totals_N1, 1e-9), np.nan)
        return parts_N3


def plot_ternary(
    fit: Fit,
    at: Proposal | Recommendation | Mapping[str, float],
    parts: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    target: str | None = None,
    total: float | None = None,
    constraints: Constraints | None = None,
) -> Figure:
    """Show what is predicted when three domains or groups share their tokens in every way.

    Args:
        fit: What predicts.
        at: The mixture that gives what the three have together, and all other shares.
        parts: Three names, of domains or of groups.
        groups: Domains of each group by its name.
        target: A loss; the objective when None.
        total: What the three have together, in (0, 1]; what they have in the mixture when None.
        constraints: Where they do not allow a mixture is hatched.

    Raises:
        ConfigError: Not three names, an unknown one, a domain that is in two of them, or a total
            that cannot be.
        MixtureError: A mixture of other domains than the fit's.
    """
    mixture, value = centre(at, fit.domains), FittedValue(fit, target)
    members_3D = _members(parts, groups or {}, fit.domains)
    if total is not None and not 0 < total <= 1:
        raise ConfigError(f"total is {total}; need a share above 0 and up to 1")
    cut = TernarySlice.of(mixture.array, members_3D, total)
    grid_K3 = _grid()
    weights_KD = cut.mixtures(grid_K3)
    middle_K, low_K, high_K = value.predicted(weights_KD)
    figure, axes_RC = new_figure(5.0)
    axes = axes_RC[0, 0]
    colours = NEAR if value.is_better_high else NEAR.reversed()
    image = _surface(axes, grid_K3 @ CORNERS_32, middle_K, colours)
    if constraints is not None:
        _forbidden(axes, grid_K3 @ CORNERS_32, weights_KD, constraints)
    _trials(axes, cut.parts(fit.trials.weights()) @ CORNERS_32)
    best = int(np.argmax(middle_K) if value.is_better_high else np.argmin(middle_K))
    half = (high_K[best] - low_K[best]) / 2
    _mark(
        axes,
        grid_K3[best],
        "best_trial",
        f"{value.best} predicted: {middle_K[best]:.4f} \N{PLUS-MINUS SIGN} {half:.4f}",
    )
    _mark(axes, cut.parts(mixture.array[None])[0], "proposal", "the mixture")
    _frame(axes, parts, cut.total)
    colour_scale(figure, image, axes, f"predicted {value.axis}", "right")
    _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    """Say what the marks are, below the triangle."""
    marks, names = axes.get_legend_handles_labels()
    style: dict[str, Any] = {"frameon": False, "fontsize": LETTER, "labelcolor": INK}
    figure.legend(marks, names, loc="outside lower left", ncols=2, **style)


def _members(
    parts: Sequence[str], groups: Mapping[str, Sequence[str]], domains: tuple[str, ...]
) -> Array:
    """Return which domains are in which part, shape (3, D)."""
    if len(parts) != 3:
        raise ConfigError(f"a ternary is of three domains or groups, not {len(parts)}")
    check_known(parts, {*domains, *groups}, "domain or group")
    members_3D = np.zeros((3, len(domains)))
    for row, part in enumerate(parts):
        own = groups.get(part, (part,))
        check_known(own, domains, "domain")
        members_3D[row, [domains.index(name) for name in own]] = 1.0
    for place in np.flatnonzero(members_3D.sum(0) > 1)[:1]:
        raise ConfigError(f"domain {domains[place]!r} is in two of {', '.join(parts)}")
    return members_3D


def _grid() -> Array:
    """Return evenly spread shares of three parts, shape (K, 3)."""
    steps = [(i, j, SIDE - i - j) for i in range(SIDE + 1) for j in range(SIDE + 1 - i)]
    return np.array(steps, float) / SIDE


def _surface(axes: Axes, places_K2: Array, values_K: Array, colours: Any) -> Any:
    flat = float(np.ptp(values_K)) < 1e-12
    levels = np.linspace(values_K.min() - 1e-9, values_K.max() + 1e-9, 13)
    across = (places_K2[:, 0], places_K2[:, 1], values_K)
    image = axes.tricontourf(*across, levels=levels, cmap=colours)
    if not flat:
        lines = axes.tricontour(*across, levels=levels[::3], colors=PAPER, linewidths=0.8)
        axes.clabel(lines, fontsize=LETTER - 2.5, fmt="%.3g")
    return image


def _forbidden(axes: Axes, places_K2: Array, weights_KD: Array, constraints: Constraints) -> None:
    """Hatch what the constraints do not allow."""
    broken_K = np.array(
        [
            bool(constraints.violations(Mixture.from_array(constraints.domains, weights_D)))
            for weights_D in weights_KD
        ],
        float,
    )
    if not broken_K.any():
        return
    axes.tricontourf(
        places_K2[:, 0],
        places_K2[:, 1],
        broken_K,
        levels=[0.5, 1.5],
        colors="none",
        hatches=["///"],
    )
    axes.fill([], [], facecolor="none", edgecolor=INK, hatch="///", label="not allowed")


def _trials(axes: Axes, places_N2: Array) -> None:
    axes.plot(
        places_N2[:, 0],
        places_N2[:, 1],
        "o",
        markersize=4,
        markerfacecolor=PAPER,
        markeredgecolor=INK,
        markeredgewidth=0.7,
        label="a trial, by its shares among the three",
    )


def _mark(axes: Axes, parts_3: Array, look: str, text: str) -> None:
    x, y = parts_3 @ CORNERS_32
    axes.plot(
        [x],
        [y],
        MARKERS[look],
        markersize=9,
        color=COLOURS[look],
        markeredgecolor=PAPER,
        markeredgewidth=1.4,
        label=text,
        zorder=4,
    )


def _frame(axes: Axes, parts: Sequence[str], total: float) -> None:
    """Draw the triangle, name its corners, and say what the three share."""
    axes.fill(*CORNERS_32.T, facecolor="none", edgecolor=FAINT, linewidth=1.1)
    places = (("center", "top", (0, -5)), ("center", "top", (0, -5)), ("center", "bottom", (0, 5)))
    for part, corner, (side, edge, shift) in zip(parts, CORNERS_32, places, strict=True):
        axes.annotate(
            f"all {written(part, 24)}",
            corner,
            shift,
            textcoords="offset points",
            ha=side,
            va=edge,
            fontsize=LETTER,
            color=INK,
        )
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(-0.12, HIGH + 0.08)
    text = f"The three share {share_text(total)} of the tokens"
    label(axes, title=text + ("." if total >= 1 else "; the others keep their shares."))
