"""Schedule: mixtures by stage, with learning-rate phase and sequence length beside them.

A stage has a length in tokens or in steps, and a mixture that is constant or goes to another one
linearly. Stages follow each other without a gap. Lengths become whole batches once: a stage ends
with the batch whose end is nearest to the tokens asked for up to there, so that what is rounded
does not add up over stages.

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
from typing import Any, NamedTuple

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture, largest_shares
from mixopt.sampling.batch_sizes import BatchSizes
from mixopt.sampling.rate_phases import (
    DECAY_END,
    RateStage,
    joined_phases,
    rate_level,
)
from mixopt.sampling.schedule_checks import ScheduleFieldError, epoch_fault, schedule_faults
from mixopt.sampling.schedule_fields import FORMAT, ScheduleFields, write_schedule
from mixopt.sampling.stage import Stage
from mixopt.system import html_table, short_count

ScheduleEntry = tuple[int, Mixture] | tuple[int, Mixture, int, Mixture]


class LengthSpan(NamedTuple):
    """Neighbouring stages of one sequence length: batches [start, stop)."""

    start: int
    stop: int
    sequence_length: int


@dataclass(frozen=True)
class Schedule:
    """The stages of a run; one that exists is valid.

    Attributes:
        stages: In order.
        batch: Sequences of a step, over all ranks, where a stage says nothing else.
        sequence_length: Tokens predicted of a sequence, where a stage says nothing else.
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
        """Check it as a whole.

        Raises:
            SamplerError: A stage that cannot be, stages of other domains, a gap or an overlap, or
                a domain that would be seen more often than `max_epochs`.
        """
        for place, message in schedule_faults(self):
            raise ScheduleFieldError(place, message)

    @classmethod
    def from_file(cls, path: str | Path) -> Schedule:
        """Read a schedule (`mixopt.sampling.schedule_fields`).

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
        try:
            return cls(**fields.values())
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

    def _repr_html_(self) -> str:
        """Show its stages as a table in a notebook."""
        rows = []
        for k, stage in enumerate(self.stages):
            shares = largest_shares(stage.mixture)
            if stage.to is not None:
                shares += f" \N{RIGHTWARDS ARROW} {largest_shares(stage.to)}"
            begins, tokens = f"{self.starts[k]:,}", short_count(self.stage_tokens(k))
            rows.append((stage.name or str(k + 1), begins, tokens, stage.phase or "", shares))
        columns = ("stage", "from step", "tokens", "learning rate", "largest shares")
        caption = f"{self.steps:,} steps, {short_count(self.tokens)} tokens"
        return html_table(caption, columns, rows, texts=[3, 4], what="stages")

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return self.stages[0].mixture.domains

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first step of each stage, and at the end that after the last."""
        ends, asked, given = [0], 0, 0
        for stage in self.stages:
            size = self.step_tokens(stage)
            if stage.steps is None:
                asked += stage.tokens or 0
                steps = (2 * (asked - given) + size) // (2 * size)
            else:
                steps, asked = stage.steps, asked + stage.steps * size
            given += steps * size
            ends.append(ends[-1] + steps)
        return tuple(ends)

    @property
    def steps(self) -> int:
        """Global batches of the whole run."""
        return self.starts[-1]

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return sum(self.stage_tokens(k) for k in range(len(self.stages)))

    @property
    def asked_tokens(self) -> int:
        """Tokens of the whole run before rounding to whole batches."""
        return sum(
            stage.tokens
            if stage.tokens is not None
            else (stage.steps or 0) * self.step_tokens(stage)
            for stage in self.stages
        )

    def length_of(self, stage: Stage) -> int:
        """Return the sequence length of a stage."""
        return stage.sequence_length or self.sequence_length

    def batch_of(self, stage: Stage) -> int:
        """Return the sequences of a step of a stage."""
        return stage.batch or self.batch

    def step_tokens(self, stage: Stage) -> int:
        """Return the tokens of one step of a stage."""
        return self.batch_of(stage) * self.length_of(stage)

    @cached_property
    def batch_sizes(self) -> BatchSizes:
        """The sequences of each step."""
        return BatchSizes.of(
            [
                (stop - start, self.batch_of(stage))
                for stage, (start, stop) in zip(self.stages, self._extents(), strict=True)
            ]
        )

    def stage_tokens(self, k: int) -> int:
        """Return the tokens of a stage, in whole batches."""
        return (self.starts[k + 1] - self.starts[k]) * self.step_tokens(self.stages[k])

    def stage_at(self, step: int) -> int:
        """Return the number of the stage that a step is in; the last one after the end."""
        return min(bisect_right(self.starts, step), len(self.stages)) - 1

    def tokens_before(self, step: int) -> int:
        """Return the tokens of the steps before a step."""
        k = self.stage_at(step)
        before = sum(self.stage_tokens(earlier) for earlier in range(k))
        return before + (step - self.starts[k]) * self.step_tokens(self.stages[k])

    @property
    def entries(self) -> list[ScheduleEntry]:
        """Entries for MixtureSampler: first step and mixture, and the ends of linear stages."""
        found: list[ScheduleEntry] = []
        for stage, (start, stop) in zip(self.stages, self._extents(), strict=True):
            if stage.to is None or stage.to == stage.mixture:
                found.append((start, stage.mixture))
            else:
                found.append((start, stage.mixture, stop, stage.to.over(self.domains)))
        return [(one[0], one[1].over(self.domains), *one[2:]) for one in found]

    @property
    def unit_entries(self) -> list[ScheduleEntry]:
        """The same by unit batches (mixopt.sampling.batch_sizes), where stages differ in batch."""
        units = self.batch_sizes.units_before
        return [
            (units(one[0]), one[1], units(one[2]), one[3])
            if len(one) == 4
            else (units(one[0]), one[1])
            for one in self.entries
        ]

    def entries_from(self, step: int) -> list[ScheduleEntry]:
        """Return the entries from a step on; the first begins there."""
        later = [entry for entry in self.entries if entry[0] > step]
        holds = [entry for entry in self.entries if entry[0] <= step][-1]
        if holds[0] == step or len(holds) == 2:
            return [(step, *holds[1:]), *later]
        start, first, stop, last = holds
        part = min((step - start) / (stop - start), 1.0)
        here = Mixture({name: w + part * (last[name] - w) for name, w in first.items()})
        return [(step, here, stop, last) if step < stop else (step, last), *later]

    @property
    def spans(self) -> list[LengthSpan]:
        """The extents of one sequence length, in order."""
        found: list[LengthSpan] = []
        for stage, (start, stop) in zip(self.stages, self._extents(), strict=True):
            length = self.length_of(stage)
            if found and found[-1].sequence_length == length:
                found[-1] = found[-1]._replace(stop=stop)
            else:
                found.append(LengthSpan(start, stop, length))
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
        fault = epoch_fault(self, inventory, self.max_epochs if max_epochs is None else max_epochs)
        if fault is not None:
            raise SamplerError(f"schedule: {fault}")

    @cached_property
    def _phases(self) -> list[RateStage]:
        return joined_phases(
            [
                RateStage(start, stop, stage.phase, stage.shape or "linear", stage.lr_end)
                for stage, (start, stop) in zip(self.stages, self._extents(), strict=True)
                if stage.phase is not None
            ]
        )

    @property
    def has_phases(self) -> bool:
        """Whether the stages define learning-rate phases."""
        return self.stages[0].phase is not None

    def rate_level(self, step: int, decay_end: float = DECAY_END) -> float:
        """Return the learning rate of a step as a fraction of its peak; 1 without phases.

        Args:
            step: From 0.
            decay_end: Where a decay ends that says nothing of it.
        """
        return rate_level(step, self._phases, decay_end)

    def _extents(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.starts[1:], strict=False)
