"""A plan that was decided: when it holds from, and whether it can.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.online.contract import Plan, Setting
from mixopt.online.stream_steps import StreamSteps
from mixopt.sampling import MixtureSampler
from mixopt.system import Array

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
    def of(cls, plan: Plan, weights_D: Array, *, seen: int, now: int, first: int) -> StandingPlan:
        """Let a plan hold.

        Args:
            plan: What the estimator asks for.
            weights_D: Its weights as they were rounded.
            seen: The last step that the estimator saw.
            now: The step with which it can end at the earliest.
            first: The step from which the plan holds.
        """
        until = seen + plan.steps
        last = first + plan.steps - 1 if plan.held_out else max(until, now)
        weights = tuple(weights_D.tolist())
        return cls(weights, first, last, until, plan.tag, plan.held_out, plan.perturbs)

    @property
    def is_question(self) -> bool:
        """Whether it asks for held-out losses before anything else."""
        return self.held_out and self.last < self.first

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StandingPlan:
        """Return the plan that `dataclasses.asdict` wrote."""
        return cls(**{**content, "weights": tuple(content["weights"])})


def impossible(plan: Plan, setting: Setting, stream: StreamSteps, first: int) -> str | None:
    """Say why a plan cannot hold from a step on, or None."""
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
    samples = min(plan.steps, setting.steps - first + 1) * stream.step_samples
    samples_D = weights_D / stream.lengths_D
    return _beyond_inventory(
        samples_D / samples_D.sum() * samples, stream.sampler, stream.position(first - 1)
    )


def _beyond_inventory(samples_D: Array, sampler: MixtureSampler, position: int) -> str | None:
    limits = sampler.schedule.layout.limits
    if all(limit is None for limit in limits):
        return None
    if sampler.schedule.reach(position) < position:
        return f"the stream ends before sample {position}"
    drawn = sampler.counts(position)
    for (name, count), samples, limit in zip(drawn.items(), samples_D, limits, strict=True):
        if limit is not None and samples > max(limit - count, 0) + _SLACK_ROWS:
            return (
                f"domain {name!r}: it takes {samples:.0f} samples, and {max(limit - count, 0)} are"
                " left (max_epochs)"
            )
    return None
