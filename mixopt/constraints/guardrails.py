"""Guardrails: no evaluation domain may be predicted much worse than with a reference mixture.

What is worse follows the objective's directions. Both sides are predictions of one regressor, so
that what it gets wrong everywhere cancels. The exception is `base`, the checkpoint that all trials
begin with: its losses are measured, and what is held against them is what training forgets.
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
from mixopt.system import Array, one_value

Reference = Literal["natural", "uniform", "best_trial", "base"]
BASE: Reference = "base"
SOURCE = "constraints.guardrails"
MISSED = 1e-7  # by which a guardrail may be missed
NEAR = 1e-4  # of its margin within which a guardrail counts as holding
MIN_MARGIN = 1e-5  # in the unit of the losses, where the margin is small; a search keeps some room


@dataclass(frozen=True)
class Guardrails:
    """By how much predicted losses of evaluation domains may be worse than a reference mixture's.

    Attributes:
        reference: The mixture that is compared with.
        margin: For every evaluation domain, in the unit of the losses, >= 0; None for none.
        targets: By evaluation domain or glob; overrides `margin`.
        experts: Whether the proposal is kept away from trials whose experts collapsed
            (mixopt.proposals.request).
        base: With `base` as the reference, what the checkpoint loses, in the unit of the losses;
            None where that is not measured yet.
    """

    reference: Reference
    margin: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    experts: bool = False
    base: Mapping[str, float] | None = None

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
        return {name: margin for name, margin in margins.items() if margin is not None}


@dataclass(frozen=True, eq=False)
class Guards:
    """Guardrails on the predictions of a regressor.

    Attributes:
        names: Guarded evaluation domains.
        columns: Their positions among the regressor's losses.
        signs_G: 1 where lower is better, -1 where higher is.
        margins_G: The most by which each may be worse.
        reference_D: The mixture that is compared with.
        reference: What it is called.
        base_M: Measured losses that are compared with in its place; None where there are none.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    signs_G: Array
    margins_G: Array
    reference_D: Array
    reference: str
    base_M: Array | None = None

    @classmethod
    def on(cls, objective: Objective, rails: Guardrails, reference_D: Array) -> Guards:
        """Return guardrails on the losses that an objective is over."""
        margins = rails.margins(objective.evaluation)
        columns = tuple(objective.evaluation.index(name) for name in margins)
        return cls(
            tuple(margins),
            columns,
            objective.signs[list(columns)],
            np.array(list(margins.values())),
            reference_D,
            rails.reference,
            rails.base_losses(objective.evaluation),
        )

    def compared(self, predict: Callable[[Array], Array]) -> Array:
        """Return the losses that others are compared with, shape (M,)."""
        return predict(self.reference_D[None])[0] if self.base_M is None else self.base_M

    def excess(self, losses_NM: Array, reference_M: Array) -> Array:
        """Return how far beyond its margin each is, shape (N, G); below 0 where it is within."""
        worse_NG = (losses_NM - reference_M)[:, list(self.columns)] * self.signs_G
        excess: Array = worse_NG - self.margins_G
        return excess

    def binding(self, excess_G: Array) -> list[str]:
        """Name the active guardrails: `loss of law <= that of natural + 0.01 (constraints...)`."""
        near_G = np.abs(excess_G) <= np.maximum(NEAR * self.margins_G, MIN_MARGIN)
        return [self._named(place) for place in np.flatnonzero(near_G).tolist()]

    def refusals(self, excess_G: Array, tolerance: float = MISSED) -> list[str]:
        """Return one line for each guardrail that a mixture violates, with the amount."""
        return [
            f"{self.names[place]}: predicted to be {self.margins_G[place] + excess_G[place]:.4g} "
            f"worse than with {self.reference}; {SOURCE} allows {self.margins_G[place]:g}; allow"
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
        broken = np.flatnonzero(excess_G > MISSED).tolist()
        worse_G = self.margins_G + excess_G
        worse = [f"{self.names[g]} {worse_G[g]:.4g}" for g in broken]
        allowed = [f"{self.names[g]} {self.margins_G[g]:g}" for g in broken]
        together = ", ".join(f"{self.names[g]}: {up(float(worse_G[g]))}" for g in broken)
        needed = [self._enough(g, excess) for g, excess in (alone or {}).items()]
        allow = ", or ".join(f"targets: {one}" for one in needed or [f"{{{together}}}"])
        held = f", within {'; '.join(held_by)}" if held_by else ""
        return (
            f"no mixture was found that satisfies {SOURCE} ({', '.join(allowed)} worse than "
            f"{self.reference}): the nearest is predicted to be worse by "
            f"{', '.join(worse)}{held}; allow {allow}, or widen the other limits"
        )

    def _enough(self, place: int, excess: float) -> str:
        """Write the margin at which one guardrail would be kept."""
        return f"{{{self.names[place]}: {up(float(self.margins_G[place] + excess))}}}"

    def _named(self, place: int) -> str:
        margin = self.margins_G[place]
        beyond = f" {'+' if self.signs_G[place] > 0 else '-'} {margin:.3g}" if margin else ""
        sign = "<=" if self.signs_G[place] > 0 else ">="
        loss = "loss of " if self.signs_G[place] > 0 else ""
        return f"{loss}{self.names[place]} {sign} that of {self.reference}{beyond} ({SOURCE})"
