"""The present plan: rounded shares, steps, and feasibility.

Losses computed on different numbers of ranks differ in their last digits, and so do an estimator's
shares. Planned shares are therefore rounded to multiples of 1/10,000 (finer if the reference
mixture has shares below 1/1000), which removes the difference except in rare ties.

Shapes: D domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from mixopt.errors import EstimatorError, SamplerError
from mixopt.loading import MixtureLoader
from mixopt.online.contract import Lengths, Plan, Setting, lengths_of
from mixopt.sampling import MixtureSampler
from mixopt.system import Array, StateFields

_MIN_UNITS = 10_000  # in a share of 1
_MAX_UNITS = 1_000_000_000  # in a share of 1
_UNITS_OF_SMALLEST = 10  # minimum units in the smallest share of the reference mixture
_FRACTION_DIGITS = 2  # of a unit; fractions that differ by less count as equal
_BOUND_TOLERANCE = 1e-6  # how far a planned share may be outside its bounds
_ROUNDING = 1e-6  # how far the sum of weights may be from 1
_SLACK_ROWS = 2  # possible deviation of a prefix of the stream from its share


@dataclass(frozen=True)
class StandingPlan:
    """The plan in effect from a step on, the same on every rank.

    A plan of n steps ends n steps after the last observation before it, so that the pace of plans
    does not depend on prefetching. A plan that ends in an evaluation ends n steps after its weights
    take effect, so that n steps on its weights are evaluated.
    """

    weights: tuple[float, ...]  # share of each domain, rounded
    first: int  # the optimiser step at which it takes effect
    last: int  # the step after which the next plan is requested
    until: int  # its last step as the estimator counts, from its last observation
    why: str  # the estimator's tag
    held_out: bool  # whether held-out text is evaluated after the last step
    perturbs: bool  # whether the weights only serve measurement

    @classmethod
    def of(cls, plan: Plan, setting: Setting, observed: int, *, now: int, first: int) -> Self:
        """Return a plan that takes effect at a step."""
        until = observed + plan.steps
        last = max(until, now)
        if plan.held_out:
            last = first + plan.steps - 1
        shares_D = rounded_shares(
            plan.weights_D, setting.reference_D, setting.lower_D, setting.upper_D
        )
        return cls(
            weights=tuple(shares_D.tolist()),
            first=first,
            last=last,
            until=until,
            why=plan.tag,
            held_out=plan.held_out,
            perturbs=plan.perturbs,
        )

    @classmethod
    def reference(cls, setting: Setting) -> Self:
        """Return the initial plan of the run, which has no end."""
        return cls(
            weights=tuple(setting.reference_D.tolist()),
            first=1,
            last=0,
            until=0,
            why="start",
            held_out=False,
            perturbs=False,
        )

    @classmethod
    def read(cls, state: StateFields, domains: int) -> Self:
        """Return the plan of a state."""
        weights = state.numbers("weights", domains, minimum=0, maximum=1 + _ROUNDING)
        if abs(sum(weights) - 1) > _ROUNDING:
            raise EstimatorError(f"{state.where}: weights: add up to {sum(weights):.6g}, not 1")
        return cls(
            weights=tuple(weights),
            first=state.whole("first"),
            last=state.whole("last"),
            until=state.whole("until"),
            why=state.text("why"),
            held_out=state.flag("held_out"),
            perturbs=state.flag("perturbs"),
        )

    def named(self, setting: Setting) -> dict[str, float]:
        """Return the weights by domain."""
        return dict(zip(setting.domains, self.weights, strict=True))

    @property
    def is_evaluation(self) -> bool:
        """Whether it only requests held-out losses."""
        return self.held_out and self.last < self.first


class StreamSteps:
    """Optimiser steps on a stream: the first batch of each, and consumed tokens.

    They follow from the sampler, and do not depend on rank or prefetching.
    """

    def __init__(
        self, mixture: MixtureLoader | MixtureSampler, accumulation: int, tokens_per_sample: Lengths
    ) -> None:
        self.mixture = mixture
        self.sampler = mixture.sampler if isinstance(mixture, MixtureLoader) else mixture
        self.lengths_D = lengths_of(tokens_per_sample, self.sampler.domains)
        self._accumulation = accumulation
        self._step_samples = self.sampler.batch_size * accumulation
        self._lag = 0
        if isinstance(mixture, MixtureLoader):
            self._lag = -(-mixture.workers * mixture.prefetch // accumulation)
        self.begin()

    def begin(self) -> None:
        """Start step 1 at the sampler's next batch."""
        self.mixture.accumulate(self._accumulation)
        self._base = self.sampler.batch * self.sampler.batch_size
        self._counts = self.sampler.counts(self.sampler.batch)

    def position(self, step: int) -> int:
        """Return the position in the stream after a number of steps."""
        return self._base + step * self._step_samples

    def batch(self, step: int) -> int:
        """Return the first global batch of a step; steps count from 1."""
        return self.position(step - 1) // self.sampler.batch_size

    def lag(self, step: int) -> int:
        """Return the number of steps after `step` whose batches are already fetched."""
        if self.sampler is self.mixture:  # observed prefetching of a DataLoader
            samples = self.sampler.batch * self.sampler.batch_size - self._base
            self._lag = max(self._lag, -(-samples // self._step_samples) - step)
        return self._lag

    def check(self, step: int) -> None:
        """Check that the number of received batches agrees with the steps."""
        received = self.sampler.batch
        expected = self.batch(step + 1)
        if received == expected or (self.sampler is self.mixture and received > expected):
            return
        raise EstimatorError(
            f"after step {step} the loop is at batch {received}, with accumulation="
            f"{self._accumulation} it is at {expected}: call step() once per optimiser step, and"
            " load the states of loader and driver from one checkpoint"
        )

    def set_weights(self, step: int, weights: Mapping[str, float]) -> None:
        """Set weights from the first batch of a step on."""
        try:
            self.mixture.set_weights(weights, self.batch(step))
        except SamplerError as error:
            raise EstimatorError(
                f"{error}; call start() before the first batch is asked for"
            ) from error

    def take_tokens(self, step: int) -> Array:
        """Return the tokens of each domain since the last call, shape (D,)."""
        counts = self.sampler.counts(self.batch(step + 1))
        counts_D = [counts[name] - self._counts[name] for name in self.sampler.domains]
        self._counts = counts
        return np.array(counts_D, np.float64) * self.lengths_D

    def state_dict(self) -> dict[str, Any]:
        """Return the start of the steps, and the consumed tokens at the last call."""
        return {
            "base": self._base,
            "step_samples": self._step_samples,
            "lag": self._lag,
            "counts": self._counts,
        }

    def load(self, state: StateFields) -> None:
        """Resume from a state."""
        counts = state.part("counts")
        samples = state.whole("step_samples", 1)
        if set(counts.content) != set(self.sampler.domains):
            state.refuse("counts", "not of the domains")
        if samples != self._step_samples:
            raise EstimatorError(
                f"a step had {samples} samples, here it has {self._step_samples}: keep"
                " batch_size x accumulation unchanged"
            )
        self._counts = {name: counts.whole(name) for name in counts.content}
        self._base = state.whole("base")
        self._lag = max(self._lag, state.whole("lag"))


def why_impossible(
    plan: Plan, setting: Setting, stream: StreamSteps, first: int, *, evaluates: bool
) -> str | None:
    """Return why a plan cannot take effect at a step, or None."""
    if plan.held_out and not evaluates:
        return "it requests held-out losses, but DriverOptions(evaluate=) is missing"
    weights_D = plan.weights_D
    if weights_D.shape != setting.lower_D.shape:
        return f"{len(weights_D)} weights for {len(setting.domains)} domains"
    is_outside_D = weights_D < setting.lower_D - _BOUND_TOLERANCE
    is_outside_D |= weights_D > setting.upper_D + _BOUND_TOLERANCE
    if is_outside_D.any():
        d = int(np.argmax(is_outside_D))
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
    for name, samples, limit in zip(drawn, samples_D, limits, strict=True):
        if limit is None:
            continue
        remaining = max(limit - drawn[name], 0)
        if samples > remaining + _SLACK_ROWS:
            return (
                f"domain {name!r}: it takes {samples:.0f} samples, but only "
                f"{remaining} are left (max_epochs)"
            )
    return None


def rounded_shares(weights_D: Array, reference_D: Array, lower_D: Array, upper_D: Array) -> Array:
    """Round shares to integer units that add up to 1, within the bounds."""
    units = _MIN_UNITS
    smallest = reference_D[reference_D > 0].min()
    while units * smallest < _UNITS_OF_SMALLEST and units < _MAX_UNITS:
        units *= 10
    units_D = np.floor(weights_D * units)
    fractions_D = np.round(weights_D * units - units_D, _FRACTION_DIGITS)
    missing = units - int(units_D.sum())
    units_D[np.argsort(-fractions_D, kind="stable")[:missing]] += 1
    shares_D = units_D / units
    within_D = np.clip(shares_D, lower_D, upper_D)
    if (within_D == shares_D).all():
        return np.asarray(shares_D)
    # Distribute the remainder over shares with room, at most one unit each.
    remainder = 1.0 - within_D.sum()
    bound_D = upper_D if remainder > 0 else lower_D
    room_D = np.clip(bound_D - within_D, -1 / units, 1 / units)
    room_D = np.where(weights_D > 0, room_D, 0.0)
    return np.asarray(within_D + room_D * (remainder / (room_D.sum() or 1.0)))
