"""Checks of a schedule, as places and messages, for callers that know file and line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

from mixopt.errors import SamplerError, did_you_mean
from mixopt.sampling.rate_phases import PHASES, RATE_SHAPES
from mixopt.sampling.sampler_input import MOST_BATCH
from mixopt.sampling.stage import Stage
from mixopt.system import FieldPlace, dotted, shown_value

MOST_TOKENS = 10**18
MOST_LENGTH = 1 << 31  # tokens of a sequence

Fault = tuple[FieldPlace, str]


class StagedRun(Protocol):
    """What is checked: a Schedule."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in order."""
        ...

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        ...

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence."""
        ...

    @property
    def max_epochs(self) -> float | None:
        """The limit of each domain."""
        ...

    @property
    def inventory(self) -> Mapping[str, int] | None:
        """Distinct tokens of each domain."""
        ...

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        ...

    @property
    def starts(self) -> tuple[int, ...]:
        """First steps of the stages, and the end."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        ...

    def step_tokens(self, stage: Stage) -> int:
        """Return the tokens of one step of a stage."""
        ...

    def domain_tokens(self) -> dict[str, float]:
        """Return the tokens of each domain."""
        ...


class ScheduleFieldError(SamplerError):
    """What is wrong with a schedule, and where."""

    def __init__(self, place: FieldPlace, message: str) -> None:
        """Keep the place, whose line a reader of files knows."""
        super().__init__(f"schedule: {dotted(place)}: {message}")
        self.place, self.message = place, message


def schedule_faults(schedule: StagedRun) -> Iterator[Fault]:
    """Yield what is wrong, from fields to the whole; later checks need that earlier ones pass."""
    if not schedule.stages:
        yield ("stages",), "there is none; a run has at least one"
        return
    yield from _number_fault(("batch",), schedule.batch, MOST_BATCH)
    yield from _number_fault(("sequence_length",), schedule.sequence_length, MOST_LENGTH)
    for k, stage in enumerate(schedule.stages):
        for place, message in _stage_faults(schedule, stage):
            yield ("stages", k, *place), message
    yield from _extent_faults(schedule)
    yield from _limit_faults(schedule)


def epoch_fault(
    schedule: StagedRun, inventory: Mapping[str, int], max_epochs: float | None
) -> str | None:
    """Return which domain is seen more often than `max_epochs`, and which share would do."""
    drawn, total = schedule.domain_tokens(), schedule.tokens
    for name, tokens in drawn.items():
        there = inventory.get(name)
        if there is None:
            near = did_you_mean(name, inventory)
            return f"the inventory does not have domain {name!r}{near}"
        if not there and tokens:
            return f"domain {name!r} has a share and no tokens; set it to 0"
        if max_epochs is None or tokens <= max_epochs * there * (1 + 1e-9):
            continue
        epochs = math.ceil(1000 * tokens / there) / 1000
        share = math.floor(1000 * max_epochs * there / total) / 1000
        return (
            f"domain {name!r}: {tokens / total:.4g} of {total:,} tokens over all stages are"
            f" {epochs:g} epochs of its {there:,}, and max_epochs is {max_epochs:g}. Lower its"
            f" share to {share:g} on average, or allow max_epochs: {epochs:g}"
        )
    return None


def _stage_faults(schedule: StagedRun, stage: Stage) -> Iterator[Fault]:
    if (stage.tokens is None) == (stage.steps is None):
        both = "tokens and steps are both given" if stage.steps is not None else "has no length"
        yield ("tokens",), f"{both}; give one of tokens, steps"
        return
    unit = "tokens" if stage.steps is None else "steps"
    yield from _number_fault((unit,), getattr(stage, unit), MOST_TOKENS)
    if stage.sequence_length is not None:
        yield from _number_fault(("sequence_length",), stage.sequence_length, MOST_LENGTH)
    if stage.batch is not None:
        yield from _number_fault(("batch",), stage.batch, MOST_BATCH)
    for field in ("mixture", "to"):
        mixture = getattr(stage, field)
        if mixture is not None:
            yield from _domain_faults(field, mixture, schedule.domains)
    yield from _phase_faults(schedule, stage)


def _domain_faults(
    field: str, given: Mapping[str, float], here: tuple[str, ...]
) -> Iterator[Fault]:
    for name in given:
        if name not in here:
            near = did_you_mean(name, here)
            yield (field, name), f"domain {name!r} is not one of the first stage's{near}"
    for name in here:
        if name not in given:
            what = f"domain {name!r} of the first stage has no weight; give it one, 0 is allowed"
            yield (field,), what


def _phase_faults(schedule: StagedRun, stage: Stage) -> Iterator[Fault]:
    if (stage.phase is None) != (schedule.stages[0].phase is None):
        if stage.phase is None:
            yield ("phase",), "is missing, and the first stage has one; give all of them one"
        else:
            yield ("phase",), "is given, and the first stage has none; give all or none of them one"
    if stage.phase is not None and stage.phase not in PHASES:
        near = did_you_mean(str(stage.phase), PHASES)
        yield ("phase",), f"{shown_value(stage.phase)} is not a phase{near}"
    if stage.shape is not None:
        if stage.shape not in RATE_SHAPES:
            near = did_you_mean(str(stage.shape), RATE_SHAPES)
            yield ("shape",), f"{shown_value(stage.shape)} is not a shape{near}"
        if stage.phase in {None, "stable"}:
            yield ("shape",), "goes with phase: warmup, decay or anneal"
    if stage.lr_end is not None:
        if stage.phase not in {"decay", "anneal"}:
            yield ("lr_end",), "goes with phase: decay or anneal"
        if not 0 <= stage.lr_end <= 1:
            yield ("lr_end",), f"{stage.lr_end:g} is not a fraction of the peak, from 0 to 1"


def _extent_faults(schedule: StagedRun) -> Iterator[Fault]:
    """Find stages of no batch, and stated starts with a gap or an overlap before them."""
    asked = 0
    for k, stage in enumerate(schedule.stages):
        size = schedule.step_tokens(stage)
        here = schedule.starts[k]
        if schedule.starts[k + 1] <= here:
            message = f"{stage.tokens:,} are not a whole number of batches, of {size:,} tokens each"
            yield ("stages", k, "tokens"), message
        unit, before = ("tokens", asked) if stage.steps is None else ("steps", here)
        if stage.start is not None and stage.start != before:
            what = "a gap" if stage.start > before else "an overlap"
            apart = abs(stage.start - before)
            message = f"{stage.start:,} {unit}, and the stages before it have {before:,}: {what} of"
            yield ("stages", k, "start"), f"{message} {apart:,}"
        asked += stage.tokens if stage.tokens is not None else (stage.steps or 0) * size
    if asked > MOST_TOKENS:
        yield ("stages",), f"{asked:,} tokens in all; at most {MOST_TOKENS:,}"


def _limit_faults(schedule: StagedRun) -> Iterator[Fault]:
    most = schedule.max_epochs
    if most is not None and not 0 < most < math.inf:
        yield ("max_epochs",), f"{most:g} is not above 0"
    if schedule.inventory is None:
        return
    for name, tokens in schedule.inventory.items():
        if name not in schedule.domains:
            near = did_you_mean(name, schedule.domains)
            yield ("inventory", name), f"domain {name!r} is in no stage{near}"
        if tokens < 0:
            yield ("inventory", name), f"{tokens:,} is not a number of tokens"
    fault = epoch_fault(schedule, schedule.inventory, most)
    if fault is not None:
        yield ("stages",), fault


def _number_fault(place: FieldPlace, value: int, most: int) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        yield place, f"{shown_value(value)} is not a whole number from 1 to {most:,}"
