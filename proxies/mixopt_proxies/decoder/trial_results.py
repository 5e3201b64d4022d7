"""The outcome of a member's training: finished with losses, or diverged with the reason.

Shapes: S steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixopt.routing import ExpertCounts
from mixopt.trials import Losses, Trial, TrialResult


@dataclass(frozen=True)
class MemberCourse:
    """One member's training losses, shape (S,), and its held-out losses; the end is last.

    And what its experts were given, if it has any.
    """

    losses_S: Tensor
    curve: tuple[Losses, ...]
    experts: ExpertCounts | None = None


def result_of(
    trial: Trial, course: MemberCourse, step_tokens: int, parameters: int, seconds: float
) -> TrialResult:
    """Return the result of a trial.

    Args:
        trial: The member's.
        course: What its training left behind.
        step_tokens: Tokens of one member and step.
        parameters: Weights of the member.
        seconds: Its share of the group's time.
    """
    reason = divergence(course, step_tokens)
    finite = tuple(entry for entry in course.curve if _bad_domain(entry) is None)
    return TrialResult(
        trial=trial.name,
        status="finished" if reason is None else "diverged",
        tokens=len(course.losses_S) * step_tokens,
        parameters=parameters,
        seconds=seconds,
        losses=course.curve[-1] if reason is None else None,
        curve=finite,
        reason=reason,
        experts=course.experts if reason is None else None,
    )


def divergence(course: MemberCourse, step_tokens: int) -> str | None:
    """Return why a member counts as diverged, or None."""
    bad = torch.nonzero(~torch.isfinite(course.losses_S)).flatten()
    if len(bad):
        step = int(bad[0])
        loss = float(course.losses_S[step])
        return (
            f"training loss is {loss} in step {step + 1} of {len(course.losses_S)}"
            f" ({step * step_tokens} tokens): lower proxy.options.lr, or clip"
        )
    domain = _bad_domain(course.curve[-1])
    return None if domain is None else f"held-out loss of {domain!r} is not finite at the end"


def _bad_domain(losses: Losses) -> str | None:
    values = (losses.nats_per_token | losses.tasks).items()
    return next((name for name, value in values if not math.isfinite(value)), None)
