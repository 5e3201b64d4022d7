"""What each source of a set of microanneals does, by the differences from its control.

Runs are paired by seed. The difference of a source is that of its anneals and the controls, the
mean over seeds with Student's t interval of S - 1 degrees, of 95% for each source alone. That many
sources are compared with one control is allowed for in the p-values: within a target they are
Holm's, so that the chance of calling any useless source of a target better or worse is at most 5%
(Holm, 1979). With one seed there are differences and ranks, and nothing says how sure they are.

Shapes: S seeds, K sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from mixopt.objective import Objective
from mixopt.proposals.validation import FEWEST, LEVEL, Validation, paired_interval
from mixopt.system import Array
from mixopt.trials import Trials

if TYPE_CHECKING:
    from mixopt.config import AnnealsConfig

CONTROL, ANNEAL = (
    "control",
    "anneal_",
)  # the first parts of trials' names (mixopt.trials.first_round)
EffectVerdict = Literal["better", "worse", "not significant", "one seed"]


@dataclass(frozen=True)
class Effect:
    """A source's anneals - the controls, in the unit of the loss: below 0 is better.

    Attributes:
        source: The domain.
        mean: Mean over seeds; its sign is turned where higher is better.
        low: Lower end of the 95% interval of this source alone; None with one seed.
        high: Upper end.
        p: Holm's p-value among the sources of this target; None with one seed.
        seeds: How many pairs there are.
    """

    source: str
    mean: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int

    @property
    def verdict(self) -> EffectVerdict:
        """What can be said of it, all sources of the target considered."""
        if self.p is None:
            return "one seed"
        if self.p > 1.0 - LEVEL:
            return "not significant"
        return "better" if self.mean < 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        interval = None if self.low is None else [self.low, self.high]
        return {
            "mean": self.mean,
            "interval": interval,
            "p_holm": self.p,
            "seeds": self.seeds,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Anneals:
    """The losses of sources' anneals and of their controls.

    Attributes:
        trials: A row for each anneal and control.
        objective: What is minimised.
        sources: The domains that were compared, as they were asked for.
        share: Of the tokens that an anneal took from its source.
        base: Weights of the control.
        seeds: How many pairs each source was to have.
    """

    trials: Trials
    objective: Objective
    sources: tuple[str, ...]
    share: float
    base: Mapping[str, float]
    seeds: int

    @classmethod
    def of(cls, trials: Trials, objective: Objective, config: AnnealsConfig) -> Anneals:
        """Take the anneals and controls out of the trials of a run."""
        table = trials.table.filter(pl.col("role").is_in(["control", "anneal"]))
        own = Trials(table, trials.domains, trials.targets, trials.notes)
        validation = Validation.of(own, objective, None)
        base = validation.mixture(CONTROL)
        sources = tuple(config.sources)
        return cls(validation.trials, objective, sources, config.share, base, config.seeds)

    @property
    def targets(self) -> tuple[str, ...]:
        """The losses that the objective measures."""
        return self.objective.measured

    @property
    def others(self) -> tuple[str, ...]:
        """The losses that it does not measure."""
        return tuple(name for name in self.trials.targets if name not in self.targets)

    @property
    def tokens(self) -> int:
        """Training tokens of all runs, those that did not finish included."""
        return int(self.trials.table["tokens"].fill_null(0).sum())

    def effects(self, target: str | None = None) -> tuple[Effect, ...]:
        """Return the effect of each source, the best first.

        Args:
            target: A loss; the objective when None.

        Returns:
            Effects of the sources of which a seed finished with its control.
        """
        return self._effects[target]

    def ranks(self, target: str | None = None) -> dict[str, int]:
        """Return the place of each source, 1 for the best, by its mean difference."""
        return {one.source: place for place, one in enumerate(self.effects(target), start=1)}

    def effect(self, source: str, target: str | None = None) -> Effect | None:
        """Return one source's effect; None where no pair of it finished."""
        return next((one for one in self.effects(target) if one.source == source), None)

    def largest_cost(self, source: str) -> tuple[str, Effect] | None:
        """Return the loss outside the objective that a source makes worse by most.

        The source's own held-out text is left out. None where no such loss gets worse.
        """
        names = [name for name in self.others if name != source]
        found = [(name, one) for name in names if (one := self.effect(source, name)) is not None]
        worst = max(found, key=lambda pair: pair[1].mean, default=None)
        return None if worst is None or worst[1].mean <= 0 else worst

    def broken(self, source: str, margins: Mapping[str, float]) -> tuple[str, ...]:
        """Name the losses that a source makes worse than its control by more than a margin.

        Args:
            source: The source.
            margins: The most by which a loss may get worse (`constraints.guardrails`).
        """
        found = {name: self.effect(source, name) for name in margins}
        return tuple(
            name for name, one in found.items() if one is not None and one.mean > margins[name]
        )

    def control_loss(self, target: str) -> float:
        """Return the mean loss of the controls; NaN where none finished."""
        return self._validation.mean(CONTROL, target)

    @property
    def problems(self) -> list[str]:
        """What could not be compared, or by fewer pairs than others, a line each."""
        lines = []
        for name in self.sources:
            effect = self.effect(name)
            if effect is None:
                lines.append(f"{name}: no anneal of it finished together with its control")
            elif effect.seeds < self.seeds:
                lines.append(
                    f"{name}: {effect.seeds} of {self.seeds} pairs finished together; its change,"
                    " interval and rank are of those alone"
                )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the effects as plain values, by loss and source, the best first."""
        return {
            "share": self.share,
            "base": {name: weight for name, weight in self.base.items() if weight > 0},
            "unit": self.objective.unit,
            "objective_unit": self.objective.value_unit,
            "targets": list(self.targets),
            "objective": self._by_source(None),
            "losses": {name: self._by_source(name) for name in self.trials.targets},
            "tokens": self.tokens,
            "problems": self.problems,
        }

    def _by_source(self, target: str | None) -> dict[str, dict[str, Any]]:
        return {one.source: one.to_json() for one in self.effects(target)}

    @cached_property
    def _effects(self) -> dict[str | None, tuple[Effect, ...]]:
        every: tuple[str | None, ...] = (None, *self.trials.targets)
        return {target: self._compared(target) for target in every}

    @cached_property
    def _validation(self) -> Validation:
        return Validation(self.trials, self.objective)

    def _compared(self, target: str | None) -> tuple[Effect, ...]:
        found = {name: self.differences(name, target) for name in self.sources}
        paired = {name: values_S for name, values_S in found.items() if len(values_S)}
        chances = holm({name: p_value(values_S) for name, values_S in paired.items()})
        effects = [_effect(name, values_S, chances[name]) for name, values_S in paired.items()]
        return tuple(sorted(effects, key=lambda one: one.mean))

    def differences(self, source: str, target: str | None) -> Array:
        """Return anneal - control of each seed that finished of both, shape (S,)."""
        ours = self._validation.values(f"{ANNEAL}{source}", target)
        theirs = self._validation.values(CONTROL, target)
        sign = -1.0 if target in self.objective.higher else 1.0
        shared = sorted(ours.keys() & theirs.keys())
        return np.array([sign * (ours[seed] - theirs[seed]) for seed in shared])


def p_value(differences_S: Array) -> float | None:
    """Return the two-sided p-value of paired differences by Student's t; None below two."""
    if len(differences_S) < FEWEST:
        return None
    from scipy.special import stdtr

    error = float(differences_S.std(ddof=1)) / math.sqrt(len(differences_S))
    mean = float(differences_S.mean())
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * stdtr(len(differences_S) - 1, -abs(mean) / error))


def holm(chances: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return Holm's p-values of those that have one, by name; each is at least the one before."""
    known = sorted((p, name) for name, p in chances.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(chances)
    highest = 0.0
    for place, (chance, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - place) * chance))
        adjusted[name] = highest
    return adjusted


def _effect(source: str, differences_S: Array, chance: float | None) -> Effect:
    count = len(differences_S)
    if count < FEWEST:
        return Effect(source, float(differences_S[0]), None, None, None, count)
    mean, half = paired_interval(differences_S)
    return Effect(source, mean, mean - half, mean + half, chance, count)
