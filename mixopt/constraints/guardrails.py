"""Guardrails: no evaluation domain may be predicted much worse than with a reference mixture.

The objective's directions define "worse". Both sides are predictions of the same regressor, so that
its systematic errors cancel. The exception is `base`, the checkpoint that all trials start from:
its losses are measured, and the guardrails limit forgetting. A floor is the worst predicted value
allowed for a loss or metric, independent of the reference. Guardrails apply to a proposal, and only
a search can find whether they are satisfiable: they limit predictions, not weights.

Shapes: N mixtures, D domains, M losses, G guarded evaluation domains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

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
NOISE: Literal["noise"] = "noise"  # a margin: the variation from a run's seed and its questions
MISSED = 1e-7  # tolerance of a guardrail
NEAR = 1e-4  # fraction of its margin within which a guardrail is active
MIN_MARGIN = 1e-5  # lower bound of that distance, in the unit of the losses; a search keeps room


@dataclass(frozen=True)
class Guardrails:
    """Margins by which predicted losses may be worse than with a reference mixture.

    Attributes:
        reference: The reference mixture.
        margin: Margin of every evaluation domain, in the unit of the losses, >= 0; None: no
            guardrail; `noise`: the noise of each loss, measured by trials.
        targets: Margins by evaluation domain or glob; override `margin`.
        experts: Whether the proposal must stay away from trials whose experts collapsed
            (mixopt.proposals.request).
        base: Losses of the checkpoint, for the reference `base`, in the unit of the losses;
            None: not measured yet.
        floors: Worst allowed values by evaluation domain or glob; for a loss, the maximum.
        noise: Value of `noise` by evaluation domain; empty before there are trials.
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
        """Name of the mixture for reference predictions; `natural` if the reference is `base`."""
        return "natural" if self.reference == BASE else self.reference

    def margins(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the margin of each guarded evaluation domain, in the order of `evaluation`."""
        is_given = self.reference == BASE and set(self.targets) == set(self.base or {})
        place = f"{SOURCE}.{'reference' if is_given else 'targets'}"
        targets = one_value(self.targets, evaluation, place, "evaluation domain")
        margins = {name: targets.get(name, self.margin) for name in evaluation}
        stated = {name: margin for name, margin in margins.items() if margin is not None}
        return {
            name: self.noise.get(name, 0.0) if margin == NOISE else float(margin)
            for name, margin in stated.items()
        }

    @property
    def has_noise(self) -> bool:
        """Whether any margin is the noise of the loss."""
        return self.margin == NOISE or NOISE in self.targets.values()

    def floors_of(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the floor of each evaluation domain that has one, in the order of `evaluation`."""
        return one_value(self.floors, evaluation, FLOORS, "evaluation domain")


@dataclass(frozen=True, eq=False)
class Guards:
    """Guardrails on G predicted losses of a regressor.

    Attributes:
        names: The guarded losses; floors come last.
        columns: Their positions among the regressor's losses.
        signs_G: 1 if lower is better, -1 if higher is better, shape (G,).
        margins_G: Allowed excess of each loss, in its unit, shape (G,).
        reference_D: The reference mixture, shape (D,).
        reference: Name of the reference mixture, or `base` for a checkpoint.
        fixed_G: Reference values that are not predictions: a checkpoint's losses, and floors;
            nan elsewhere, shape (G,).
        floors_G: Whether each is a floor, shape (G,).
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
    def on(cls, objective: Objective, rails: Guardrails, reference_D: Array) -> Self:
        """Return guardrails on the losses of an objective.

        Raises:
            ConfigError: A loss of the reference checkpoint is unknown.
        """
        margins = rails.margins(objective.evaluation)
        floors = rails.floors_of(objective.evaluation)
        fixed = [np.nan] * len(margins)
        if rails.reference == BASE:
            base = rails.base or {}
            for name in margins:
                if name not in base:
                    raise ConfigError(
                        f"{SOURCE}.reference: base: the loss of the checkpoint on {name!r} is"
                        " unknown; a sweep with proxy: {name: continued} measures it"
                    )
            fixed = [base[name] for name in margins]
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
        """Return the reference value of each guarded loss, shape (G,)."""
        if not np.isnan(self.fixed_G).any():
            return self.fixed_G
        reference_G = predict(self.reference_D[None])[0][self.columns]
        return np.where(np.isnan(self.fixed_G), reference_G, self.fixed_G)

    def excess(self, losses_NM: Array, compared_G: Array) -> Array:
        """Return how far each loss exceeds its margin, shape (N, G); < 0 within the margin."""
        worse_NG = (losses_NM[:, self.columns] - compared_G) * self.signs_G
        return worse_NG - self.margins_G

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
            offset = f" {'+' if is_loss else '-'} {margin:.3g}" if margin else ""
            label = f"loss of {name}" if is_loss else name
            lines.append(f"{label} {sign} that of {self.reference}{offset} ({SOURCE})")
        return lines

    def refusals(self, excess_G: Array) -> list[str]:
        """Return one line for each guardrail that a mixture violates, with the amount."""
        return [
            f"{self.names[g]}: predicted to be {self._level(g, excess_G)};"
            f" {FLOORS} requires {self._limit(g)}"
            if self.floors_G[g]
            else f"{self.names[g]}: predicted to be {self.margins_G[g] + excess_G[g]:.4g} worse"
            f" than with {self.reference}; {SOURCE} allows {self.margins_G[g]:g}; allow"
            f" targets: {{{self._sufficient_target(g, excess_G[g])}}}"
            for g in np.flatnonzero(excess_G > MISSED).tolist()
        ]

    def conflict(self, excess_G: Array, limits: Sequence[str]) -> str:
        """Return the message that no allowed mixture satisfies the guardrails, with a fix.

        Args:
            excess_G: Excess of each at the mixture with the smallest largest excess.
            limits: Limits that are active there.
        """
        within = f", within {'; '.join(limits)}" if limits else ""
        broken = np.flatnonzero(excess_G > MISSED).tolist()
        low = [g for g in broken if self.floors_G[g]]
        if low:
            floors = ", ".join(f"{self.names[g]} {self._limit(g)}" for g in low)
            levels = ", ".join(f"{self.names[g]} {self._level(g, excess_G)}" for g in low)
            return (
                f"no mixture was found that satisfies {FLOORS} ({floors}): the nearest is"
                f" predicted to reach {levels}{within}; set floors that trials reach"
            )
        worse = ", ".join(f"{self.names[g]} {self.margins_G[g] + excess_G[g]:.4g}" for g in broken)
        allowed = ", ".join(f"{self.names[g]} {self.margins_G[g]:g}" for g in broken)
        sufficient = ", ".join(self._sufficient_target(g, excess_G[g]) for g in broken)
        return (
            f"no mixture was found that satisfies {SOURCE} ({allowed} worse than "
            f"{self.reference}): the nearest is predicted to be worse by {worse}{within}; allow "
            f"targets: {{{sufficient}}}, or widen the other limits"
        )

    def _sufficient_target(self, place: int, excess: float) -> str:
        """Return the setting of a margin that would satisfy its guardrail."""
        return f"{self.names[place]}: {up(float(self.margins_G[place] + excess))}"

    def _level(self, place: int, excess_G: Array) -> str:
        return f"{self.fixed_G[place] + self.signs_G[place] * excess_G[place]:.4g}"

    def _limit(self, place: int) -> str:
        side = "at most" if self.signs_G[place] > 0 else "at least"
        return f"{side} {self.fixed_G[place]:g}"
