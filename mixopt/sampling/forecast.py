"""Forecast what a job draws of each domain, counted on the order of samples itself.

Shapes: D domains.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.sampling.sampler import MixtureSampler
from mixopt.sampling.schedule import Schedule
from mixopt.system import IntArray


@dataclass(frozen=True)
class StageDraw:
    """What is drawn in one stage.

    Attributes:
        name: Of the stage, or its number.
        start: Its first step.
        steps: Its length.
        tokens: The same in tokens.
        drawn: Tokens of each domain.
        epochs: How often each domain has been seen by its end.
    """

    name: str
    start: int
    steps: int
    tokens: int
    drawn: Mapping[str, int]
    epochs: Mapping[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """Each domain's share of the tokens that are drawn."""
        return {name: tokens / self.tokens for name, tokens in self.drawn.items()}


@dataclass(frozen=True)
class RunOut:
    """When the last new row of a domain is drawn: step (from 0), tokens after it, stage."""

    step: int
    tokens: int
    stage: int


@dataclass(frozen=True)
class ScheduleForecast:
    """The draws of a schedule.

    Attributes:
        schedule: The schedule.
        inventory: Distinct tokens of each domain.
        stages: What is drawn in each stage.
        runs_out: When the last new row of a domain is drawn; one that has more is not there.
        exhausted: In which step a domain reaches its most epochs.
        end: Steps that the text is enough for, at most those of the schedule.
    """

    schedule: Schedule
    inventory: Mapping[str, int]
    stages: tuple[StageDraw, ...]
    runs_out: Mapping[str, RunOut]
    exhausted: Mapping[str, int]
    end: int

    @property
    def drawn(self) -> dict[str, int]:
        """Tokens of each domain over all stages."""
        names = self.inventory
        return {name: sum(stage.drawn[name] for stage in self.stages) for name in names}

    @property
    def notes(self) -> list[str]:
        """What happens to domains that reach their most epochs, in lines."""
        lines = [f"step {step:,}: {name} is exhausted" for name, step in self.exhausted.items()]
        if self.end < self.schedule.steps:
            lines.append(f"the text ends after {self.end:,} of {self.schedule.steps:,} steps")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values, for `--json`."""
        schedule = self.schedule
        return {
            "steps": schedule.steps,
            "tokens": schedule.tokens,
            "asked_tokens": schedule.asked_tokens,
            "batch": schedule.batch,
            "end": self.end,
            "exhausted": dict(self.exhausted),
            "stages": [{**vars(one), "share": one.shares} for one in self.stages],
            "domains": [
                {
                    "domain": name,
                    "tokens": tokens,
                    "inventory": self.inventory[name],
                    "epochs": self.stages[-1].epochs[name],
                    "runs_out": vars(self.runs_out[name]) if name in self.runs_out else None,
                }
                for name, tokens in self.drawn.items()
            ],
        }


def simulate_schedule(
    schedule: Schedule, inventory: Mapping[str, int], *, max_epochs: float | None = None
) -> ScheduleForecast:
    """Count what a schedule draws.

    Args:
        schedule: Its batch and its sequence length count.
        inventory: Distinct tokens of each domain.
        max_epochs: How often a domain is drawn through before its share goes to the others; the
            schedule's own limit is checked instead.

    Raises:
        SamplerError: A domain without a size, or more epochs than the schedule allows.

    Example:
        >>> from mixopt.sampling import Schedule, Stage
        >>> stage = Stage(mixopt.Mixture({"code": 0.25, "prose": 0.75}), steps=10)
        >>> schedule = Schedule((stage,), batch=8, sequence_length=100)
        >>> simulate_schedule(schedule, {"code": 10_000, "prose": 3_000}).drawn
        {'code': 2000, 'prose': 6000}
    """
    schedule.check_epochs(inventory)
    sizes = {name: inventory[name] for name in schedule.domains}
    rows = {name: tokens // schedule.sequence_length for name, tokens in sizes.items()}
    sampler = MixtureSampler(rows, rank=0, world_size=1, schedule=schedule, max_epochs=max_epochs)
    counts, runs_out = _counted(sampler, schedule.starts)
    names, stages = sampler.domains, list[StageDraw]()
    for k, (before_D, after_D) in enumerate(itertools.pairwise(counts)):
        epochs_D = after_D * schedule.sequence_length / np.maximum(list(sizes.values()), 1)
        drawn_D = (after_D - before_D) * schedule.sequence_length
        stages.append(
            StageDraw(
                name=schedule.stages[k].name or str(k),
                start=schedule.starts[k],
                steps=schedule.starts[k + 1] - schedule.starts[k],
                tokens=schedule.stage_tokens(k),
                drawn=dict(zip(names, drawn_D.tolist(), strict=True)),
                epochs=dict(zip(names, epochs_D.tolist(), strict=True)),
            )
        )
    out = {
        name: RunOut(step, (step + 1) * schedule.step_tokens, schedule.stage_at(step))
        for name, step in runs_out.items()
    }
    end = int(counts[-1].sum()) // schedule.batch
    sampler.received(end)
    exhausted = {
        entry.reason.removeprefix("exhausted: "): entry.batch
        for entry in sampler.log
        if entry.reason.startswith("exhausted: ")
    }
    return ScheduleForecast(schedule, sizes, tuple(stages), out, exhausted, end)


def _counted(sampler: MixtureSampler, ends: Sequence[int]) -> tuple[list[IntArray], dict[str, int]]:
    """Return the samples of each domain before batches, and in which batch a domain runs out."""
    rows = list(sampler.sizes.values())
    place, at_ends, runs_out = sampler.order.start, list[IntArray](), dict[str, int]()
    for end in ends:
        while place.window < end:
            after = sampler.order.place(place.window + 1)
            if after is None:
                break
            place = after
            for d, drawn in enumerate(place.counts_D.tolist()):
                if rows[d] and drawn >= rows[d]:
                    runs_out.setdefault(sampler.domains[d], place.window - 1)
        at_ends.append(place.counts_D)
    return at_ends, runs_out
