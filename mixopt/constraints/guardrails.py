"""Guardrails: no evaluation domain may be predicted much worse than with a reference mixture.

What is worse follows the objective's directions. Both sides are predictions of one regressor, so
that what it gets wrong everywhere cancels. The exception is `base`, the checkpoint that all trials
begin with: its losses are measured, and what is held against them is what training forgets.
A floor is the worst value that a loss or a metric may be predicted to have, whatever the reference.
Guardrails hold a proposal, and only a search can tell whether they can be kept: they are limits on
predictions, not on weights.

Shapes: N mixtures, D domains, M losses, G guarded evaluation domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mixopt.constraints.limits import up
from mixopt.errors import ConfigError
from mixopt.objective import Objective
from mixopt.system import Array, BoolArray, one_value

Reference = Literal["natural", "uniform", "best_trial", "base"]
BASE: Reference = "base"
SOURCE = "constraints.guardrails"
FLOORS = "constraints.floors"
FLOOR = "the floor"
NOISE: Literal["noise"] = "noise"  # a margin: what a run's seed and its questions may change
MISSED = 1e-7  # by which a guardrail may be missed
NEAR = 1e-4  # of its margin within which a guardrail counts as holding
MIN_MARGIN = 1e-5  # in the unit of the losses, where the margin is small; a search keeps some room


@dataclass(frozen=True)
class Guardrails:
    """By how much predicted losses of evaluation domains may be worse than a reference mixture's.

    Attributes:
        reference: The mixture that is compared with.
        margin: For every evaluation domain, in the unit of the losses, >= 0; None for none;
            `noise` for each loss's own, which trials tell.
        targets: By evaluation domain or glob; overrides `margin`.
        experts: Whether the proposal is kept away from trials whose experts collapsed
            (mixopt.proposals.request).
        base: With `base` as the reference, what the checkpoint loses, in the unit of the losses;
            None where that is not measured yet.
        floors: The worst value, by evaluation domain or glob; of a loss the most.
        noise: What `noise` stands for, by evaluation domain; none before there are trials.
    """

    reference: Reference
    margin: float | Literal["noise"] | None = None
    targets: Mapping[str, float | Literal["noise"]] = field(default_factory=dict)
    experts: bool = False
    base: Mapping[str, float] | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """The fields that set a guardrail or a floor."""
        is_guarded = self.margin is not None or bool(self.targets) or self.experts
        return [SOURCE] * is_guarded + [FLOORS] * bool(self.floors)

    @property
    def mixture(self) -> str:
        """Name of the mixture that predictions are compared with; of `base` there is none."""
        return "natural" if self.reference == BASE else self.reference

    def margins(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the margin of each guarded evaluation domain, in the order of `evaluation`."""
        is_given = self.reference == BASE and set(self.targets) == set(self.base or {})
        place = f"{SOURCE}.{'reference' if is_given else 'targets'}"
        own = one_value(self.targets, evaluation, place, "evaluation domain")
        margins = {name: own.get(name, self.margin) for name in evaluation}
        known = {name: margin for name, margin in margins.items() if margin is not None}
        return {
            name: self.noise.get(name, 0.0) if margin == NOISE else float(margin)
            for name, margin in known.items()
        }

    @property
    def has_noise(self) -> bool:
        """Whether a margin is the noise of the loss."""
        return self.margin == NOISE or NOISE in self.targets.values()

    def floors_of(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the floor of each evaluation domain that has one, in the order of `evaluation`."""
        return one_value(self.floors, evaluation, FLOORS, "evaluation domain")


@dataclass(frozen=True, eq=False)
class Guards:
    """Guardrails on the predictions of a regressor, of G losses.

    Attributes:
        names: The guarded losses; those with floors come last.
        columns: Their positions among the regressor's losses.
        signs_G: 1 where lower is better, -1 where higher is, shape (G,).
        margins_G: The most by which each may be worse, in the unit of its loss, shape (G,).
        reference_D: The mixture whose predictions are compared with, shape (D,).
        reference: Its name, or `base` for a checkpoint.
        fixed_G: What is compared with and is no prediction: a checkpoint's losses, and floors;
            nan elsewhere, shape (G,).
        floors_G: Which are floors, shape (G,).
    """

    names: tuple[str, ...]
    columns: list[int]
    signs_G: Array
    margins_G: Array
    reference_D: Array
    reference: str
    fixed_G: Array
    floors_G: BoolArray

    @classmethod
    def on(cls, objective: Objective, rails: Guardrails, reference_D: Array) -> Guards:
        """Return guardrails on the losses that an objective is over.

        Raises:
            ConfigError: A loss of the checkpoint that is compared with is not known.
        """
        margins = rails.margins(objective.evaluation)
        floors = rails.floors_of(objective.evaluation)
        fixed = [np.nan] * len(margins)
        if rails.reference == BASE:
            known = rails.base or {}
            for name in margins:
                if name not in known:
                    raise ConfigError(
                        f"{SOURCE}.reference: base: the loss of the checkpoint on {name!r} is not"
                        " known; it is measured by the sweep of a run with proxy: {name: continued}"
                    )
            fixed = [known[name] for name in margins]
        names = (*margins, *floors)
        columns = [objective.evaluation.index(name) for name in names]
        return cls(
            names,
            columns,
            objective.signs[columns],
            np.array([*margins.values(), *[0.0] * len(floors)]),
            reference_D,
            rails.reference,
            np.array([*fixed, *floors.values()]),
            np.arange(len(names)) >= len(margins),
        )

    def compared(self, predict: Callable[[Array], Array]) -> Array:
        """Return what each guarded loss is compared with, shape (G,)."""
        if not np.isnan(self.fixed_G).any():
            return self.fixed_G
        reference_G = predict(self.reference_D[None])[0][self.columns]
        return np.where(np.isnan(self.fixed_G), reference_G, self.fixed_G)

    def excess(self, losses_NM: Array, compared_G: Array) -> Array:
        """Return how far beyond its margin each is, shape (N, G); below 0 where it is within."""
        worse_NG = (losses_NM[:, self.columns] - compared_G) * self.signs_G
        excess: Array = worse_NG - self.margins_G
        return excess

    def binding(self, excess_G: Array) -> list[str]:
        """Name the active guardrails: `loss of law <= that of natural + 0.01 (constraints...)`."""
        near_G = np.abs(excess_G) <= np.maximum(NEAR * self.margins_G, MIN_MARGIN)
        lines = []
        for g in np.flatnonzero(near_G).tolist():
            name, margin, is_loss = self.names[g], self.margins_G[g], self.signs_G[g] > 0
            sign = "<=" if is_loss else ">="
            if self.floors_G[g]:
                lines.append(f"{name} {sign} {self.fixed_G[g]:g} ({FLOORS})")
                continue
            beyond = f" {'+' if is_loss else '-'} {margin:.3g}" if margin else ""
            what = f"loss of {name}" if is_loss else name
            lines.append(f"{what} {sign} that of {self.reference}{beyond} ({SOURCE})")
        return lines

    def refusals(self, excess_G: Array) -> list[str]:
        """Return one line for each guardrail that a mixture violates, with the amount."""
        return [
            f"{self.names[g]}: predicted to be {self._reached(g, excess_G)};"
            f" {FLOORS} asks for {self._limit(g)}"
            if self.floors_G[g]
            else f"{self.names[g]}: predicted to be {self.margins_G[g] + excess_G[g]:.4g} worse"
            f" than with {self.reference}; {SOURCE} allows {self.margins_G[g]:g}; allow"
            f" targets: {{{self._enough(g, excess_G[g])}}}"
            for g in np.flatnonzero(excess_G > MISSED).tolist()
        ]

    def conflict(self, excess_G: Array, held_by: Sequence[str]) -> str:
        """Say that no allowed mixture satisfies the guardrails, and how to fix it.

        Args:
            excess_G: How far each is broken where the most broken one is broken least.
            held_by: Limits that are active there.
        """
        held = f", within {'; '.join(held_by)}" if held_by else ""
        broken = np.flatnonzero(excess_G > MISSED).tolist()
        low = [g for g in broken if self.floors_G[g]]
        if low:
            floors = ", ".join(f"{self.names[g]} {self._limit(g)}" for g in low)
            reached = ", ".join(f"{self.names[g]} {self._reached(g, excess_G)}" for g in low)
            return (
                f"no mixture was found that satisfies {FLOORS} ({floors}): the nearest is"
                f" predicted to reach {reached}{held}; set floors that trials reach"
            )
        worse = ", ".join(f"{self.names[g]} {self.margins_G[g] + excess_G[g]:.4g}" for g in broken)
        allowed = ", ".join(f"{self.names[g]} {self.margins_G[g]:g}" for g in broken)
        enough = ", ".join(self._enough(g, excess_G[g]) for g in broken)
        return (
            f"no mixture was found that satisfies {SOURCE} ({allowed} worse than "
            f"{self.reference}): the nearest is predicted to be worse by {worse}{held}; allow "
            f"targets: {{{enough}}}, or widen the other limits"
        )

    def _enough(self, place: int, excess: float) -> str:
        """Write the margin at which one guardrail would be kept."""
        return f"{self.names[place]}: {up(float(self.margins_G[place] + excess))}"

    def _reached(self, place: int, excess_G: Array) -> str:
        return f"{self.fixed_G[place] + self.signs_G[place] * excess_G[place]:.4g}"

    def _limit(self, place: int) -> str:
        side = "at most" if self.signs_G[place] > 0 else "at least"
        return f"{side} {self.fixed_G[place]:g}"
