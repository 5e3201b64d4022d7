"""Schedule: mixtures by stage, each constant or going linearly to another one.

Stages follow each other without a gap; a length is in tokens or in steps. Lengths become whole
batches once: a stage ends with the batch whose end is nearest to the tokens given up to there, so
that what is rounded does not add up over stages.

A step is a global batch. Tokens are those that are predicted: sequences times sequence length.
Shapes: D domains.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mixopt.errors import SamplerError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.sampling.sampler_input import MAX_BATCH
from mixopt.sampling.schedule_file import (
    FORMAT,
    STAGE_FIELDS,
    ScheduleFieldError,
    ScheduleFields,
    write_schedule,
)
from mixopt.system import FieldPlace, short_count, shown_value

MAX_TOKENS = 10**18
MAX_LENGTH = 1 << 31  # tokens of a sequence

ScheduleEntry = tuple[int, Mixture] | tuple[int, Mixture, int, Mixture]
Fault = tuple[FieldPlace, str]


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        mixture: Share of the tokens of each domain, at its beginning.
        tokens: Its length; or `steps`.
        steps: Its length in global batches.
        to: The mixture at its end, which is gone to linearly; None where it is constant.
        name: What people call it.
        start: Tokens before it, or steps where its length is in steps, to be checked; None where
            that is not stated.
    """

    mixture: Mixture
    tokens: int | None = None
    steps: int | None = None
    to: Mixture | None = None
    name: str | None = None
    start: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the stage as plain values; what is None is left out."""
        content = {name: getattr(self, name) for name in STAGE_FIELDS}
        content["mixture"] = dict(self.mixture)
        content["to"] = None if self.to is None else dict(self.to)
        return {name: value for name, value in content.items() if value is not None}


@dataclass(frozen=True)
class Schedule:
    """The stages of a run; one that exists is valid.

    Attributes:
        stages: In order.
        batch: Sequences of a step, over all ranks.
        sequence_length: Tokens predicted of a sequence.
        max_epochs: How often a domain may be seen over all stages; None for any.
        inventory: Distinct tokens of each domain; None where that is not stated.
        provenance: What it was made from.
    """

    stages: tuple[Stage, ...]
    batch: int
    sequence_length: int
    max_epochs: float | None = None
    inventory: Mapping[str, int] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Check it as a whole."""
        for place, message in self._faults():
            raise ScheduleFieldError(place, message)

    @classmethod
    def from_file(cls, path: str | Path) -> Schedule:
        """Read a schedule (`docs/schedules.md` lists the fields).

        Raises:
            SamplerError: It cannot be right; one line with file, line and field.
        """
        return cls._of(ScheduleFields.of_file(Path(path)))

    @classmethod
    def from_content(cls, content: object, where: str, folder: str | Path = ".") -> Schedule:
        """Return the schedule given by plain values, as in a file.

        Args:
            content: The values.
            where: What messages begin with.
            folder: Where files are that it names.

        Raises:
            SamplerError: A field cannot be right.
        """
        return cls._of(ScheduleFields(content, where, Path(folder), {}))

    @classmethod
    def _of(cls, fields: ScheduleFields) -> Schedule:
        values = fields.values()
        try:
            stages = tuple(Stage(**stage) for stage in values.pop("stages"))
            return cls(stages=stages, **values)
        except ScheduleFieldError as fault:
            raise fields.mistake(fault.place, fault.message) from None

    def to_file(self, path: str | Path) -> None:
        """Write the schedule as YAML that `from_file` reads."""
        write_schedule(self.to_json(), Path(path))

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as plain values, in the order of the file."""
        content = {
            "format": FORMAT,
            "batch": self.batch,
            "sequence_length": self.sequence_length,
            "max_epochs": self.max_epochs,
            "inventory": None if self.inventory is None else dict(self.inventory),
            "stages": [stage.to_json() for stage in self.stages],
            "provenance": dict(self.provenance) or None,
        }
        return {name: value for name, value in content.items() if value is not None}

    def __repr__(self) -> str:
        """Count its stages, domains, steps and tokens."""
        length = f"{self.steps:,} steps, {short_count(self.tokens)} tokens"
        return f"Schedule({len(self.stages)} stages, {len(self.domains)} domains: {length})"

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return self.stages[0].mixture.domains

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first step of each stage, and at the end that after the last."""
        ends, given = [0], 0
        for stage in self.stages:
            given += self._given(stage)
            if stage.steps is None:
                size = self.step_tokens
                ends.append((2 * given + size) // (2 * size))
            else:
                ends.append(ends[-1] + stage.steps)
        return tuple(ends)

    @property
    def steps(self) -> int:
        """Global batches of the whole run."""
        return self.starts[-1]

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.batch * self.sequence_length

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.step_tokens

    @property
    def asked_tokens(self) -> int:
        """Tokens of the whole run before rounding to whole batches."""
        return sum(self._given(stage) for stage in self.stages)

    def stage_tokens(self, k: int) -> int:
        """Return the tokens of a stage, in whole batches."""
        return (self.starts[k + 1] - self.starts[k]) * self.step_tokens

    def stage_at(self, step: int) -> int:
        """Return the number of the stage that a step is in; the last one after the end."""
        return min(bisect_right(self.starts, step), len(self.stages)) - 1

    @property
    def entries(self) -> list[ScheduleEntry]:
        """Entries for MixtureSampler: first step and mixture, and the ends of linear stages."""
        found: list[ScheduleEntry] = []
        for k, stage in enumerate(self.stages):
            first = stage.mixture.over(self.domains)
            if stage.to is None or stage.to == stage.mixture:
                found.append((self.starts[k], first))
            else:
                last = stage.to.over(self.domains)
                found.append((self.starts[k], first, self.starts[k + 1], last))
        return found

    def mixture_at(self, step: int) -> Mixture:
        """Return the mixture of a step; of a linear stage that in the middle of the step."""
        k = self.stage_at(step)
        stage, start, stop = self.stages[k], self.starts[k], self.starts[k + 1]
        if stage.to is None:
            return stage.mixture
        part = min((step - start + 0.5) / (stop - start), 1.0)
        return Mixture({n: w + part * (stage.to[n] - w) for n, w in stage.mixture.items()})

    def domain_tokens(self) -> dict[str, float]:
        """Return the tokens of each domain over all stages."""
        parts: dict[str, list[float]] = {name: [] for name in self.domains}
        for k, stage in enumerate(self.stages):
            tokens, last = self.stage_tokens(k), stage.to or stage.mixture
            for name, found in parts.items():
                found.append(tokens * 0.5 * (stage.mixture[name] + last[name]))
        return {name: math.fsum(found) for name, found in parts.items()}

    def check_epochs(self, inventory: Mapping[str, int], max_epochs: float | None = None) -> None:
        """Check that no domain exceeds its allowed epochs over all stages.

        Args:
            inventory: Distinct tokens of each domain.
            max_epochs: The limit; the schedule's own where not given.

        Raises:
            SamplerError: Domain, epochs, the share that would do; or a domain without tokens.
        """
        fault = self._epoch_fault(inventory, self.max_epochs if max_epochs is None else max_epochs)
        if fault is not None:
            raise SamplerError(f"schedule: {fault}")

    def _given(self, stage: Stage) -> int:
        if stage.tokens is not None:
            return stage.tokens
        return (stage.steps or 0) * self.step_tokens

    def _faults(self) -> Iterator[Fault]:
        """Yield what is wrong, from fields to the whole; later checks need that earlier pass."""
        if not self.stages:
            yield ("stages",), "there is none; a run has at least one"
            return
        yield from _number_fault(("batch",), self.batch, MAX_BATCH)
        yield from _number_fault(("sequence_length",), self.sequence_length, MAX_LENGTH)
        for k, stage in enumerate(self.stages):
            for place, message in _stage_faults(stage, self.domains):
                yield ("stages", k, *place), message
        yield from self._extent_faults()
        yield from self._limit_faults()

    def _extent_faults(self) -> Iterator[Fault]:
        """Find stages of no batch, and stated starts with a gap or an overlap before them."""
        given = 0
        for k, stage in enumerate(self.stages):
            here = self.starts[k]
            if self.starts[k + 1] <= here:
                size = f"{self.step_tokens:,} tokens each"
                message = f"{stage.tokens:,} are not a whole number of batches, of {size}"
                yield ("stages", k, "tokens"), message
            unit, before = ("tokens", given) if stage.steps is None else ("steps", here)
            if stage.start is not None and stage.start != before:
                what = "a gap" if stage.start > before else "an overlap"
                message = f"{stage.start:,} {unit}, and the stages before it have {before:,}"
                yield ("stages", k, "start"), f"{message}: {what} of {abs(stage.start - before):,}"
            given += self._given(stage)
        if given > MAX_TOKENS:
            yield ("stages",), f"{given:,} tokens in all; at most {MAX_TOKENS:,}"

    def _limit_faults(self) -> Iterator[Fault]:
        most = self.max_epochs
        if most is not None and not 0 < most < math.inf:
            yield ("max_epochs",), f"{most:g} is not above 0"
        if self.inventory is None:
            return
        for name, tokens in self.inventory.items():
            if name not in self.domains:
                near = did_you_mean(name, self.domains)
                yield ("inventory", name), f"domain {name!r} is in no stage{near}"
            if tokens < 0:
                yield ("inventory", name), f"{tokens:,} is not a number of tokens"
        fault = self._epoch_fault(self.inventory, most)
        if fault is not None:
            yield ("stages",), fault

    def _epoch_fault(self, inventory: Mapping[str, int], max_epochs: float | None) -> str | None:
        """Return which domain is seen more often than `max_epochs`, and which share would do."""
        total = self.tokens
        for name, tokens in self.domain_tokens().items():
            size = inventory.get(name)
            if size is None:
                near = did_you_mean(name, inventory)
                return f"the inventory does not have domain {name!r}{near}"
            if not size and tokens:
                return f"domain {name!r} has a share and no tokens; set it to 0"
            if max_epochs is None or tokens <= max_epochs * size * (1 + 1e-9):
                continue
            epochs = math.ceil(1000 * tokens / size) / 1000
            share = math.floor(1000 * max_epochs * size / total) / 1000
            return (
                f"domain {name!r}: {tokens / total:.4g} of {total:,} tokens over all stages are"
                f" {epochs:g} epochs of its {size:,}, and max_epochs is {max_epochs:g}. Lower its"
                f" share to {share:g} on average, or allow max_epochs: {epochs:g}"
            )
        return None


def _stage_faults(stage: Stage, domains: tuple[str, ...]) -> Iterator[Fault]:
    if (stage.tokens is None) == (stage.steps is None):
        both = "tokens and steps are both given" if stage.steps is not None else "has no length"
        yield ("tokens",), f"{both}; give one of tokens, steps"
        return
    unit = "tokens" if stage.steps is None else "steps"
    yield from _number_fault((unit,), getattr(stage, unit), MAX_TOKENS)
    for name, mixture in (("mixture", stage.mixture), ("to", stage.to)):
        for domain in mixture or ():
            if domain not in domains:
                near = did_you_mean(domain, domains)
                message = f"domain {domain!r} is not one of the first stage's{near}"
                yield (name, domain), message
        for domain in domains:
            if mixture is not None and domain not in mixture:
                message = f"domain {domain!r} of the first stage has no weight; give it one"
                yield (name,), f"{message}, 0 is allowed"


def _number_fault(place: FieldPlace, value: Any, most: int) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        yield place, f"{shown_value(value)} is not a whole number from 1 to {most:,}"
