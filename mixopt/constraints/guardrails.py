"""Guardrails: no evaluation domain may be predicted much worse than with a reference mixture.

The objective's directions define "worse". Both sides are predictions of the same regressor, so that
its systematic errors cancel. The exception is `base`, the checkpoint that all trials start from:
its losses are measured, and the guardrails limit forgetting. A floor is the worst predicted value
allowed for a loss or metric, independent of the reference. Guardrails apply to a proposal, and only
a search can find whether they are satisfiable: they limit predictions, not weights.

Shapes: N mixtures, D domains, M losses, G guarded evaluation domains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from mixopt.constraints.limits import BROKEN, up
from mixopt.errors import ConfigError
from mixopt.objective import Objective
from mixopt.system import Array, BoolArray, one_value

Reference = Literal["natural", "uniform", "best_trial", "base"]
BASE: Reference = "base"
SOURCE = "constraints.guardrails"
FLOORS = "constraints.floors"
FLOOR = "the floor"
NOISE: Literal["noise"] = "noise"  # a margin: the variation from a run's seed and its questions
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
        objective: The objective whose G losses are guarded (`on`); None: not known yet.
        reference_D: Weights of the reference mixture, shape (D,); None: not known yet.
    """

    reference: Reference
    margin: float | Literal["noise"] | None = None
    targets: Mapping[str, float | Literal["noise"]] = field(default_factory=dict)
    experts: bool = False
    base: Mapping[str, float] | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    objective: Objective | None = None
    reference_D: Array | None = field(default=None, compare=False)

    def on(self, objective: Objective, reference_D: Array) -> Self:
        """Return the guardrails on the losses of an objective.

        Raises:
            ConfigError: A loss of the reference checkpoint is unknown.
        """
        base = self.base or {}
        for name in self.margins(objective.evaluation):
            if self.reference == BASE and name not in base:
                raise ConfigError(
                    f"{SOURCE}.reference: base: the loss of the checkpoint on {name!r} is"
                    " unknown; a sweep with proxy: {name: continued} measures it"
                )
        return replace(self, objective=objective, reference_D=reference_D)

    @property
    def sources(self) -> list[str]:
        """The fields that set a guardrail or a floor."""
        is_guarded = self.margin is not None or bool(self.targets) or self.experts
        sources: list[str] = []
        if is_guarded:
            sources.append(SOURCE)
        if self.floors:
            sources.append(FLOORS)
        return sources

    @property
    def described(self) -> list[tuple[str, str]]:
        """Each limit in a few words, and its field."""
        margins = dict(self.targets)
        if self.margin is not None:
            margins["every other loss"] = self.margin
        lines: list[tuple[str, str]] = []
        for name, margin in margins.items():
            lines.append((f"{name} at most {margin} worse than {self.reference}", SOURCE))
        if self.experts:
            lines.append(("experts do not collapse", SOURCE))
        for name, bound in self.floors.items():
            lines.append((f"{name}: floor {bound:g}", FLOORS))
        return lines

    @property
    def mixture(self) -> str:
        """Name of the mixture for reference predictions; `natural` if the reference is `base`."""
        return "natural" if self.reference == BASE else self.reference

    def margins(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the margin of each guarded evaluation domain, in the order of `evaluation`."""
        is_given = self.reference == BASE and set(self.targets) == set(self.base or {})
        field = "reference" if is_given else "targets"
        targets = one_value(self.targets, evaluation, f"{SOURCE}.{field}", "evaluation domain")
        margins: dict[str, float] = {}
        for name in evaluation:
            margin = targets.get(name, self.margin)
            if margin == NOISE:
                margins[name] = self.noise.get(name, 0.0)
            elif margin is not None:
                margins[name] = float(margin)
        return margins

    @property
    def has_noise(self) -> bool:
        """Whether any margin is the noise of the loss."""
        return self.margin == NOISE or NOISE in self.targets.values()

    def floors_of(self, evaluation: Sequence[str]) -> dict[str, float]:
        """Return the floor of each evaluation domain that has one, in the order of `evaluation`."""
        return one_value(self.floors, evaluation, FLOORS, "evaluation domain")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The guarded losses, then those with floors."""
        return (*self._margins, *self._floors)

    @cached_property
    def columns(self) -> list[int]:
        """The positions of the guarded losses among those of the objective."""
        return [self._objective.evaluation.index(name) for name in self.names]

    @cached_property
    def signs_G(self) -> Array:
        """1 if lower is better, -1 if higher is better."""
        return self._objective.signs[self.columns]

    @cached_property
    def margins_G(self) -> Array:
        """The allowed excess of each loss, in its unit."""
        floors = np.zeros(len(self._floors))
        return np.concatenate([list(self._margins.values()), floors])

    @cached_property
    def fixed_G(self) -> Array:
        """A checkpoint's losses, and floors, metrics negated; nan for predicted references."""
        fixed = [np.nan] * len(self._margins)
        if self.reference == BASE:
            base = self.base or {}
            fixed = [base[name] for name in self._margins]
        values_G = np.array(fixed + list(self._floors.values()))
        return np.asarray(self.signs_G * values_G)

    @cached_property
    def floors_G(self) -> BoolArray:
        """Whether each is a floor."""
        return np.arange(len(self.names)) >= len(self._margins)

    def compared(self, predict: Callable[[Array], Array]) -> Array:
        """Return the reference value of each guarded loss, shape (G,)."""
        if not np.isnan(self.fixed_G).any():
            return self.fixed_G
        assert self.reference_D is not None
        reference_G = predict(self.reference_D[None])[0][self.columns]
        return np.where(np.isnan(self.fixed_G), reference_G, self.fixed_G)

    def excess(self, losses_NM: Array, compared_G: Array) -> Array:
        """Return how far each loss exceeds its margin, shape (N, G); < 0 within the margin."""
        return losses_NM[:, self.columns] - compared_G - self.margins_G

    def binding(self, excess_G: Array) -> list[str]:
        """Name the active guardrails: `loss of law <= that of natural + 0.01 (constraints...)`."""
        near_G = np.abs(excess_G) <= np.maximum(NEAR * self.margins_G, MIN_MARGIN)
        return [self._text(g) for g in np.flatnonzero(near_G).tolist()]

    def refusals(self, excess_G: Array) -> list[str]:
        """Return one line for each guardrail that a mixture violates, with the amount."""
        return [self._refusal(g, excess_G) for g in np.flatnonzero(excess_G > BROKEN).tolist()]

    def conflict(self, excess_G: Array, limits: Sequence[str]) -> str:
        """Return the message that no allowed mixture satisfies the guardrails, with a fix.

        Args:
            excess_G: Excess of each at the mixture with the smallest largest excess.
            limits: Limits that are active there.
        """
        within = f", within {'; '.join(limits)}" if limits else ""
        broken = np.flatnonzero(excess_G > BROKEN).tolist()
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

    @cached_property
    def _objective(self) -> Objective:
        assert self.objective is not None, "guardrails apply to an objective: call `on`"
        return self.objective

    @cached_property
    def _margins(self) -> dict[str, float]:
        return self.margins(self._objective.evaluation)

    @cached_property
    def _floors(self) -> dict[str, float]:
        return self.floors_of(self._objective.evaluation)

    def _text(self, place: int) -> str:
        """Return a guardrail in a few words, with its field."""
        name = self.names[place]
        is_loss = self.signs_G[place] > 0
        sign = "<=" if is_loss else ">="
        if self.floors_G[place]:
            return f"{name} {sign} {self._stated(place):g} ({FLOORS})"
        label = f"loss of {name}" if is_loss else name
        text = f"{label} {sign} that of {self.reference}"
        margin = self.margins_G[place]
        if margin and is_loss:
            text += f" + {margin:.3g}"
        elif margin:
            text += f" - {margin:.3g}"
        return f"{text} ({SOURCE})"

    def _refusal(self, place: int, excess_G: Array) -> str:
        """Return by how much a guardrail is violated, and what would allow it."""
        name = self.names[place]
        if self.floors_G[place]:
            return (
                f"{name}: predicted to be {self._level(place, excess_G)};"
                f" {FLOORS} requires {self._limit(place)}"
            )
        margin = self.margins_G[place]
        return (
            f"{name}: predicted to be {margin + excess_G[place]:.4g} worse"
            f" than with {self.reference}; {SOURCE} allows {margin:g}; allow"
            f" targets: {{{self._sufficient_target(place, excess_G[place])}}}"
        )

    def _sufficient_target(self, place: int, excess: float) -> str:
        """Return the setting of a margin that would satisfy its guardrail."""
        return f"{self.names[place]}: {up(float(self.margins_G[place] + excess))}"

    def _level(self, place: int, excess_G: Array) -> str:
        return f"{self._stated(place) + self.signs_G[place] * excess_G[place]:.4g}"

    def _limit(self, place: int) -> str:
        side = "at most" if self.signs_G[place] > 0 else "at least"
        return f"{side} {self._stated(place):g}"

    def _stated(self, place: int) -> float:
        """Return a fixed value as the user states it."""
        return float(self.signs_G[place] * self.fixed_G[place])
