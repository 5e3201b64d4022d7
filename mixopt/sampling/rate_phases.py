"""The learning rate over the phases of a schedule: warm-up, stable, decay, anneal.

A level is the learning rate as a part of its peak. Each phase begins at the level at which the one
before it ended: `warmup` rises to 1, `stable` stays, `decay` falls to a tenth and `anneal` to 0
unless an end is given. Neighbouring stages of one phase are one phase, so that a decay may go over
several mixtures. `warmup` and a `decay` by a cosine are what is usually called the cosine
schedule; `warmup`, `stable` and `decay` are WSD. Curves that have a name of their own
(mixopt.sampling.rate_curves) are made of these phases, and of `inverse_sqrt`, which no schedule
file has: it falls with the square root of the steps since the first.

Steps count from 0. The borders of a phase may lie inside a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

Phase = Literal["warmup", "stable", "decay", "anneal"]
RatePhase = Phase | Literal["inverse_sqrt"]
RateShape = Literal["linear", "cosine", "sqrt"]
PHASES: tuple[Phase, ...] = ("warmup", "stable", "decay", "anneal")
RATE_SHAPES: tuple[RateShape, ...] = ("linear", "cosine", "sqrt")
DECAY_END = 0.1

# How much of the way is left, from 1 to 0, by the part of a phase that is done.
_LEFT: Mapping[RateShape, Callable[[float], float]] = {
    "linear": lambda part: 1 - part,
    "cosine": lambda part: 0.5 * (1 + math.cos(math.pi * part)),
    "sqrt": lambda part: 1 - math.sqrt(part),
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

    start: float
    stop: float
    phase: RatePhase
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


def rate_level(
    step: int, phases: Sequence[RateStage], decay_end: float = DECAY_END, peak: float = 1.0
) -> float:
    """Return the learning rate of a step.

    Args:
        step: From 0; after the last phase its end holds.
        phases: As `joined_phases` returns them.
        decay_end: The level at which a decay ends that says none.
        peak: The level at the end of a warm-up; levels are in its unit.
    """
    level = 0.0 if phases and phases[0].phase == "warmup" else peak
    for phase in phases:
        if step < phase.stop:
            return _within(step, phase, level, decay_end, peak)
        level = _end(phase, level, decay_end, peak)
    return level


def _within(step: int, phase: RateStage, level: float, decay_end: float, peak: float) -> float:
    if phase.phase == "warmup":
        return _risen(step, phase, level, peak)
    if phase.phase == "inverse_sqrt":
        return _fallen(step, phase, level)
    end = _end(phase, level, decay_end, peak)
    left = _LEFT[phase.shape]((step - phase.start) / (phase.stop - phase.start))
    return end + (level - end) * left


def _risen(step: int, phase: RateStage, level: float, peak: float) -> float:
    """Return the rate in a warm-up, whose first step moves; a decay's first has the peak."""
    done, whole = step - phase.start + 1, math.floor(phase.stop - phase.start) + 1
    if phase.shape == "linear":
        return level + (peak - level) * done / whole
    return peak - (peak - level) * _LEFT[phase.shape](done / whole)


def _end(phase: RateStage, level: float, decay_end: float, peak: float) -> float:
    if phase.phase == "stable":
        return level
    if phase.phase == "warmup":
        return peak
    if phase.phase == "inverse_sqrt":
        return _fallen(phase.stop, phase, level)
    given = decay_end if phase.phase == "decay" else 0.0
    return min(level, given) if phase.end is None else phase.end


def _fallen(step: float, phase: RateStage, level: float) -> float:
    return max(level * math.sqrt(phase.start / step), phase.end or 0.0)
