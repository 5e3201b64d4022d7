"""A plan that was decided: its shares as they are rounded, when it holds from, and whether it can.

Losses that were computed on other numbers of ranks differ in their last digits, and so do the
shares that an estimator makes of them. Planned shares are therefore multiples of 1/10,000 (finer
where the reference mixture has shares below 1/1000), which all but always takes the difference
out: it remains where a share falls between two multiples to within that difference.

Shapes: D domains.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixopt.errors import EstimatorError
from mixopt.online.contract import Plan, Setting
from mixopt.online.stream_steps import StreamSteps
from mixopt.sampling import MixtureSampler
from mixopt.system import Array, IntArray, StateFields

_COARSEST = 10_000
_FINEST = 1_000_000_000
_UNITS_OF_A_SHARE = 10  # the least share of the reference mixture is at least so many units
_EVEN = 2  # digits of a unit to which fractions count as even
_ROUNDING = 1e-6  # by which weights may miss 1
_SLACK_ROWS = 2  # by which a prefix of the stream may be off its share


@dataclass(frozen=True)
class StandingPlan:
    """What holds from one step on, the same on every rank.

    A plan of n steps ends n steps after the last that the estimator saw before it made it, so
    that plans keep their pace whatever the lead is. One that ends in an evaluation ends n steps
    after it began to hold, so that it is n steps of its weights that are evaluated.

    Attributes:
        weights: Share of each domain, rounded.
        first: The optimiser step from which it holds.
        last: The step after which the next is asked for; it holds on until that does.
        until: Its last step as the estimator counts, from the last that it saw.
        why: The estimator's tag.
        held_out: Whether held-out text is evaluated after the last step.
        perturbs: Whether the weights are there to learn from.
    """

    weights: tuple[float, ...]
    first: int
    last: int
    until: int
    why: str
    held_out: bool
    perturbs: bool

    @classmethod
    def of(cls, plan: Plan, setting: Setting, *, seen: int, now: int, first: int) -> StandingPlan:
        """Let a plan hold."""
        until = seen + plan.steps
        last = first + plan.steps - 1 if plan.held_out else max(until, now)
        shares_D = rounded_shares(
            plan.weights_D, setting.reference_D, setting.lower_D, setting.upper_D
        )
        weights = tuple(shares_D.tolist())
        return cls(weights, first, last, until, plan.tag, plan.held_out, plan.perturbs)

    @classmethod
    def reference(cls, setting: Setting) -> StandingPlan:
        """Return the plan that the run starts from; it never ends by itself."""
        weights = tuple(setting.reference_D.tolist())
        return cls(weights, 1, last=0, until=0, why="start", held_out=False, perturbs=False)

    def named(self, setting: Setting) -> dict[str, float]:
        """Return the weights by domain."""
        return dict(zip(setting.domains, self.weights, strict=True))

    @property
    def is_question(self) -> bool:
        """Whether it asks for held-out losses before anything else."""
        return self.held_out and self.last < self.first

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StandingPlan:
        """Return the plan that `dataclasses.asdict` wrote."""
        return cls.from_fields(StateFields(content, "a plan", EstimatorError), None)

    @classmethod
    def from_fields(cls, fields: StateFields, domains: int | None) -> StandingPlan:
        """Return the plan of a state."""
        weights = fields.numbers("weights", domains, least=0, most=1 + _ROUNDING)
        if abs(sum(weights) - 1) > _ROUNDING:
            raise EstimatorError(f"{fields.where}: weights: add up to {sum(weights):.6g}, not 1")
        return cls(
            weights=tuple(weights),
            first=fields.whole("first"),
            last=fields.whole("last"),
            until=fields.whole("until"),
            why=fields.text("why"),
            held_out=fields.flag("held_out"),
            perturbs=fields.flag("perturbs"),
        )


def impossible(
    plan: Plan, setting: Setting, stream: StreamSteps, first: int, *, evaluates: bool
) -> str | None:
    """Say why a plan cannot hold from a step on, or None."""
    if plan.held_out and not evaluates:
        return "it requests held-out losses, but DriverOptions(evaluate=) is missing"
    weights_D = plan.weights_D
    if weights_D.shape != setting.lower_D.shape:
        return f"{len(weights_D)} weights for {len(setting.domains)} domains"
    outside_D = (weights_D < setting.lower_D - 1e-6) | (weights_D > setting.upper_D + 1e-6)
    if outside_D.any():
        d = int(np.argmax(outside_D))
        return (
            f"domain {setting.domains[d]!r}: a share of {weights_D[d]:.4g} is outside its bounds"
            f" {setting.lower_D[d]:.4g} to {setting.upper_D[d]:.4g}"
        )
    start = stream.position(first - 1)
    samples = stream.position(min(first - 1 + plan.steps, setting.steps)) - start
    samples_D = weights_D / stream.lengths_D
    samples_D = samples_D / samples_D.sum() * samples
    return _beyond_inventory(samples_D, stream.sampler, stream.batch(first))


def _beyond_inventory(samples_D: Array, sampler: MixtureSampler, batch: int) -> str | None:
    limits = sampler.order.layout.limits
    if all(limit is None for limit in limits):
        return None
    if sampler.order.place(batch) is None:
        return f"the stream ends before batch {batch}"
    drawn = sampler.counts(batch)
    for (name, count), samples, limit in zip(drawn.items(), samples_D, limits, strict=True):
        if limit is not None and samples > max(limit - count, 0) + _SLACK_ROWS:
            return (
                f"domain {name!r}: it takes {samples:.0f} samples, but only "
                f"{max(limit - count, 0)} are left (max_epochs)"
            )
    return None


def rounded_shares(weights_D: Array, reference_D: Array, lower_D: Array, upper_D: Array) -> Array:
    """Round shares to whole units that add up to 1 and keep to the bounds."""
    unit = _COARSEST
    while unit * reference_D[reference_D > 0].min() < _UNITS_OF_A_SHARE and unit < _FINEST:
        unit *= 10
    while unit < _FINEST:
        least_D = np.ceil(lower_D * unit - 1e-6).astype(np.int64)
        most_D = np.floor(np.minimum(upper_D, 1.0) * unit + 1e-6).astype(np.int64)
        if (least_D <= most_D).all() and least_D.sum() <= unit <= most_D.sum():
            return np.asarray(_whole_units(weights_D, unit, least_D, most_D) / unit)
        unit *= 10
    least_D = np.floor(lower_D * unit).astype(np.int64)
    most_D = np.ceil(upper_D * unit).astype(np.int64)
    return np.asarray(_whole_units(weights_D, unit, least_D, most_D) / unit)


def _whole_units(weights_D: Array, unit: int, least_D: IntArray, most_D: IntArray) -> IntArray:
    exact_D = np.clip(weights_D * unit, least_D, most_D)
    units_D = np.floor(exact_D).astype(np.int64)
    fractions = np.round(exact_D - units_D, _EVEN).tolist()
    order = sorted(range(len(fractions)), key=lambda d: (-fractions[d], d))
    missing = unit - int(units_D.sum())
    while missing:
        step = 1 if missing > 0 else -1
        for d in order if step > 0 else order[::-1]:
            if missing and least_D[d] <= units_D[d] + step <= most_D[d]:
                units_D[d] += step
                missing -= step
    return units_D


@dataclass(frozen=True)
class Cost:
    """Counts since the start of the run; times are those of rank 0.

    Attributes:
        evaluations: How often held-out text was evaluated.
        evaluation_tokens: Tokens of it, over all ranks.
        evaluation_seconds: Time spent in it.
        perturbed_steps: Optimiser steps on weights that were there to learn from.
        perturbed_tokens: Tokens of those steps, at the mean length of the reference mixture.
        perturbed_seconds: Time of those steps.
    """

    evaluations: int = 0
    evaluation_tokens: int = 0
    evaluation_seconds: float = 0.0
    perturbed_steps: int = 0
    perturbed_tokens: int = 0
    perturbed_seconds: float = 0.0


class CostMeter:
    """Adds to the cost; a lap is the time since the last."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.cost = Cost()
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since this was last asked."""
        before, self._since = self._since, time.perf_counter()
        return self._since - before

    def add_perturbed(self, tokens: int, seconds: float) -> None:
        """Count a step on weights that perturb."""
        self.cost = replace(
            self.cost,
            perturbed_steps=self.cost.perturbed_steps + 1,
            perturbed_tokens=self.cost.perturbed_tokens + tokens,
            perturbed_seconds=self.cost.perturbed_seconds + seconds,
        )

    def add_evaluation(self, tokens: int, seconds: float) -> None:
        """Count an evaluation."""
        self.cost = replace(
            self.cost,
            evaluations=self.cost.evaluations + 1,
            evaluation_tokens=self.cost.evaluation_tokens + tokens,
            evaluation_seconds=self.cost.evaluation_seconds + seconds,
        )
