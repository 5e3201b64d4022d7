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
from dataclasses import dataclass, field, replace
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
            `noise` for each loss's own, which trials tell (`with_noise`).
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
    targets: Mapping[str, float] = field(default_factory=dict)
    experts: bool = False
    base: Mapping[str, float] | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)

    @property
    def mixture(self) -> str:
        """Name of the mixture that predictions are compared with; of `base` there is none."""
        return "natural" if self.reference == BASE else self.reference

    def base_losses(self, evaluation: Sequence[str]) -> Array | None:
        """Return what is compared with where that is measured, shape (M,); None where predicted."""
        if self.reference != BASE:
            return None
        known = self.base or {}
        for name in self.margins(evaluation):
            if name not in known:
                raise ConfigError(
                    f"{SOURCE}.reference: base: the loss of the checkpoint on {name!r} is not"
                    " known; it is measured by the sweep of a run with proxy: {name: continued}"
                )
        return np.array([known.get(name, np.nan) for name in evaluation])

    def margins(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the margin of each guarded evaluation domain, in the order of `evaluation`."""
        own = one_value(self.targets, evaluation, f"{SOURCE}.targets", "evaluation domain")
        margins = {name: own.get(name, self.margin) for name in evaluation}
        known = {name: margin for name, margin in margins.items() if margin is not None}
        return {
            name: self.noise.get(name, 0.0) if margin == NOISE else float(margin)
            for name, margin in known.items()
        }

    def floors_of(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the floor of each evaluation domain that has one, in the order of `evaluation`."""
        return one_value(self.floors, evaluation, FLOORS, "evaluation domain")

    @property
    def needs_noise(self) -> bool:
        """Whether `noise` is a margin that trials have not told yet."""
        return self.margin == NOISE and not self.noise

    def with_noise(self, noise: Mapping[str, float]) -> Guardrails:
        """Return the guardrails with what trials tell of the noise of each loss."""
        return replace(self, noise=dict(noise))


@dataclass(frozen=True, eq=False)
class Guards:
    """Guardrails on the predictions of a regressor.

    Attributes:
        names: Guarded evaluation domains; those with floors come last.
        columns: Their positions among the regressor's losses.
        signs_G: 1 where lower is better, -1 where higher is.
        margins_G: The most by which each may be worse.
        reference_D: The mixture that is compared with.
        reference: What it is called.
        fixed_G: What is compared with where that is no prediction: what the checkpoint loses,
            and floors; nan elsewhere.
        floors_G: Which are floors.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    signs_G: Array
    margins_G: Array
    reference_D: Array
    reference: str
    fixed_G: Array
    floors_G: BoolArray

    @classmethod
    def on(cls, objective: Objective, rails: Guardrails, reference_D: Array) -> Guards:
        """Return guardrails on the losses that an objective is over."""
        margins = rails.margins(objective.evaluation)
        floors = rails.floors_of(objective.evaluation)
        names = (*margins, *floors)
        columns = tuple(objective.evaluation.index(name) for name in names)
        base_M = rails.base_losses(objective.evaluation)
        guarded = columns[: len(margins)]
        base_G = np.full(len(margins), np.nan) if base_M is None else base_M[list(guarded)]
        return cls(
            names,
            columns,
            objective.signs[list(columns)],
            np.array([*margins.values(), *[0.0] * len(floors)]),
            reference_D,
            rails.reference,
            np.array([*base_G, *floors.values()]),
            np.arange(len(names)) >= len(margins),
        )

    def compared(self, predict: Callable[[Array], Array]) -> Array:
        """Return what each guarded loss is compared with, shape (G,)."""
        if not np.isnan(self.fixed_G).any():
            return self.fixed_G
        reference_G = predict(self.reference_D[None])[0][list(self.columns)]
        return np.where(np.isnan(self.fixed_G), reference_G, self.fixed_G)

    def excess(self, losses_NM: Array, compared_G: Array) -> Array:
        """Return how far beyond its margin each is, shape (N, G); below 0 where it is within."""
        worse_NG = (losses_NM[:, list(self.columns)] - compared_G) * self.signs_G
        excess: Array = worse_NG - self.margins_G
        return excess

    def binding(self, excess_G: Array) -> list[str]:
        """Name the active guardrails: `loss of law <= that of natural + 0.01 (constraints...)`."""
        near_G = np.abs(excess_G) <= np.maximum(NEAR * self.margins_G, MIN_MARGIN)
        return [self._named(place) for place in np.flatnonzero(near_G).tolist()]

    def refusals(self, excess_G: Array, tolerance: float = MISSED) -> list[str]:
        """Return one line for each guardrail that a mixture violates, with the amount."""
        return [
            f"{self.names[place]}: predicted to be {self._reached(place, excess_G[place]):.4g};"
            f" {FLOORS} asks for {self._asked(place)}"
            if self.floors_G[place]
            else f"{self.names[place]}: predicted to be"
            f" {self.margins_G[place] + excess_G[place]:.4g} worse than with {self.reference};"
            f" {SOURCE} allows {self.margins_G[place]:g}; allow"
            f" targets: {self._enough(place, excess_G[place])}"
            for place in np.flatnonzero(excess_G > tolerance).tolist()
        ]

    def only(self, places: Sequence[int]) -> Guards:
        """Return some of the guardrails."""
        rows = list(places)
        return replace(
            self,
            names=tuple(self.names[g] for g in rows),
            columns=tuple(self.columns[g] for g in rows),
            signs_G=self.signs_G[rows],
            margins_G=self.margins_G[rows],
            fixed_G=self.fixed_G[rows],
            floors_G=self.floors_G[rows],
        )

    def conflict(
        self, excess_G: Array, held_by: Sequence[str], alone: Mapping[int, float] | None = None
    ) -> str:
        """Say that no allowed mixture satisfies the guardrails, and how to fix it.

        Args:
            excess_G: How far each is broken where the most broken one is broken least.
            held_by: Limits that are active there.
            alone: How far each one is broken, by position, where it alone gives way.
        """
        held = f", within {'; '.join(held_by)}" if held_by else ""
        low = np.flatnonzero((excess_G > MISSED) & self.floors_G).tolist()
        if low:
            asked = [f"{self.names[g]} {self._asked(g)}" for g in low]
            reached = [f"{self.names[g]} {self._reached(g, excess_G[g]):.4g}" for g in low]
            return (
                f"no mixture was found that satisfies {FLOORS} ({', '.join(asked)}): the nearest is"
                f" predicted to reach {', '.join(reached)}{held}; set floors that trials reach"
            )
        broken = np.flatnonzero(excess_G > MISSED).tolist()
        worse_G = self.margins_G + excess_G
        worse = [f"{self.names[g]} {worse_G[g]:.4g}" for g in broken]
        allowed = [f"{self.names[g]} {self.margins_G[g]:g}" for g in broken]
        together = ", ".join(f"{self.names[g]}: {up(float(worse_G[g]))}" for g in broken)
        needed = [self._enough(g, excess) for g, excess in (alone or {}).items()]
        allow = ", or ".join(f"targets: {one}" for one in needed or [f"{{{together}}}"])
        return (
            f"no mixture was found that satisfies {SOURCE} ({', '.join(allowed)} worse than "
            f"{self.reference}): the nearest is predicted to be worse by "
            f"{', '.join(worse)}{held}; allow {allow}, or widen the other limits"
        )

    def _enough(self, place: int, excess: float) -> str:
        """Write the margin at which one guardrail would be kept."""
        return f"{{{self.names[place]}: {up(float(self.margins_G[place] + excess))}}}"

    def _reached(self, place: int, excess: float) -> float:
        return float(self.fixed_G[place] + self.signs_G[place] * excess)

    def _asked(self, place: int) -> str:
        side = "at most" if self.signs_G[place] > 0 else "at least"
        return f"{side} {self.fixed_G[place]:g}"

    def _named(self, place: int) -> str:
        if self.floors_G[place]:
            sign = "<=" if self.signs_G[place] > 0 else ">="
            return f"{self.names[place]} {sign} {self.fixed_G[place]:g} ({FLOORS})"
        margin = self.margins_G[place]
        beyond = f" {'+' if self.signs_G[place] > 0 else '-'} {margin:.3g}" if margin else ""
        sign = "<=" if self.signs_G[place] > 0 else ">="
        loss = "loss of " if self.signs_G[place] > 0 else ""
        return f"{loss}{self.names[place]} {sign} that of {self.reference}{beyond} ({SOURCE})"
