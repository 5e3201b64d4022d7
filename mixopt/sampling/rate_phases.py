"""The learning rate over the phases of a schedule: warm-up, stable, decay, anneal.

A level is the learning rate as a part of its peak. Each phase begins at the level at which the one
before it ended: `warmup` rises to 1, `stable` stays, `decay` falls to a tenth and `anneal` to 0
unless an end is given. Neighbouring stages of one phase are one phase, so that a decay may go over
several mixtures. `warmup` and a `decay` by a cosine are what is usually called the cosine
schedule; `warmup`, `stable` and `decay` are WSD.

Steps count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

Phase = Literal["warmup", "stable", "decay", "anneal"]
RateShape = Literal["linear", "cosine", "sqrt"]
PHASES: tuple[Phase, ...] = ("warmup", "stable", "decay", "anneal")
RATE_SHAPES: tuple[RateShape, ...] = ("linear", "cosine", "sqrt")
DECAY_END = 0.1

# How far a phase has come, from 0 to 1, by the part of it that is done.
_DONE: Mapping[RateShape, Callable[[float], float]] = {
    "linear": lambda part: part,
    "cosine": lambda part: 0.5 * (1 - math.cos(math.pi * part)),
    "sqrt": math.sqrt,
}


class RateStage(NamedTuple):
    """What a stage says of the learning rate.

    Attributes:
        start: Its first step.
        stop: The step after its last.
        phase: What the learning rate does.
        shape: How it gets there.
        end: The level at its end; None for what its phase has.
    """

    start: int
    stop: int
    phase: Phase
    shape: RateShape
    end: float | None


def joined_phases(stages: Sequence[RateStage]) -> list[RateStage]:
    """Return the phases: neighbouring stages of one phase, none of which ends it, are one."""
    found: list[RateStage] = []
    for stage in stages:
        last = found[-1] if found else None
        if last and last.end is None and last[2:4] == stage[2:4]:
            found[-1] = stage._replace(start=last.start)
        else:
            found.append(stage)
    return found


def rate_level(step: int, phases: Sequence[RateStage], decay_end: float = DECAY_END) -> float:
    """Return the learning rate of a step as a part of its peak.

    Args:
        step: From 0; after the last phase its end holds.
        phases: As `joined_phases` returns them.
        decay_end: The level at which a decay ends that says none.
    """
    level = 0.0 if phases and phases[0].phase == "warmup" else 1.0
    for phase in phases:
        end = _end(phase, level, decay_end)
        if step < phase.stop:
            return level + (end - level) * _DONE[phase.shape](_part(step, phase))
        level = end
    return level


def _end(phase: RateStage, level: float, decay_end: float) -> float:
    if phase.phase == "stable":
        return level
    if phase.phase == "warmup":
        return 1.0
    given = decay_end if phase.phase == "decay" else 0.0
    return min(level, given) if phase.end is None else phase.end


def _part(step: int, phase: RateStage) -> float:
    """Return how much of a phase is done: a warm-up's first step moves, a decay's is the peak's."""
    if phase.phase == "warmup":
        return (step - phase.start + 1) / (phase.stop - phase.start + 1)
    return (step - phase.start) / (phase.stop - phase.start)
