"""Forecast the samples that a job draws from each domain, counted on the order of samples.

Shapes: D domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixopt.sampling.sampler import MixtureSampler
from mixopt.sampling.schedule import Schedule
from mixopt.system import PlainDict


@dataclass(frozen=True)
class StageDraw:
    """The draws of one stage.

    Attributes:
        name: Name of the stage, or its number.
        start: First step.
        steps: Length in steps.
        tokens: Length in tokens.
        drawn: Tokens drawn from each domain.
        epochs: Epochs of each domain from the start of the run to the end of the stage.
    """

    name: str
    start: int
    steps: int
    tokens: int
    drawn: Mapping[str, int]
    epochs: Mapping[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """Each domain's share of the drawn tokens."""
        return {name: tokens / self.tokens for name, tokens in self.drawn.items()}


class RunOut(NamedTuple):
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
        stages: The draws of each stage.
        runs_out: When the last new row of a domain is drawn; without domains that have more.
    """

    schedule: Schedule
    inventory: Mapping[str, int]
    stages: tuple[StageDraw, ...]
    runs_out: Mapping[str, RunOut]

    @property
    def drawn(self) -> dict[str, int]:
        """Tokens of each domain over all stages."""
        tokens = dict.fromkeys(self.inventory, 0)
        for stage in self.stages:
            for name in tokens:
                tokens[name] += stage.drawn[name]
        return tokens

    def to_json(self) -> PlainDict:
        """Return the forecast as plain values, for `--json`."""
        schedule = self.schedule
        return {
            "steps": schedule.steps,
            "tokens": schedule.tokens,
            "asked_tokens": schedule.asked_tokens,
            "batch": schedule.batch,
            "stages": [vars(stage) | {"share": stage.shares} for stage in self.stages],
            "domains": [self._domain_row(name, tokens) for name, tokens in self.drawn.items()],
        }

    def _domain_row(self, name: str, tokens: int) -> PlainDict:
        run_out = self.runs_out.get(name)
        return {
            "domain": name,
            "tokens": tokens,
            "inventory": self.inventory[name],
            "epochs": self.stages[-1].epochs[name],
            "runs_out": run_out._asdict() if run_out else None,
        }


def simulate_schedule(schedule: Schedule, inventory: Mapping[str, int]) -> ScheduleForecast:
    """Count the draws of a schedule.

    Args:
        schedule: The schedule, with its batch and sequence length.
        inventory: Distinct tokens of each domain.

    Raises:
        SamplerError: A domain without a size, or more epochs than the schedule allows.

    Examples:
        >>> from mixopt.sampling import Schedule, Stage
        >>> stage = Stage(mixopt.Mixture({"code": 0.25, "prose": 0.75}), steps=10)
        >>> schedule = Schedule((stage,), batch=8, sequence_length=100)
        >>> simulate_schedule(schedule, {"code": 10_000, "prose": 3_000}).drawn
        {'code': 2000, 'prose': 6000}
    """
    schedule.check_epochs(inventory)
    sizes = {name: inventory[name] for name in schedule.domains}
    names = schedule.domains
    length = schedule.sequence_length
    rows = {name: tokens // length for name, tokens in sizes.items()}
    rows_D = np.maximum(list(rows.values()), 1)
    order = MixtureSampler(rows, rank=0, world_size=1, schedule=schedule).order
    counts_D = order.start.counts_D
    stages: list[StageDraw] = []
    runs_out: dict[str, RunOut] = {}
    for k, stage in enumerate(schedule.stages):
        start = schedule.starts[k]
        stop = schedule.starts[k + 1]
        before_D = counts_D
        for step in range(start, stop):
            place = order.place(step + 1)
            assert place is not None  # a stream without limits does not end
            counts_D = place.counts_D
            for d in np.flatnonzero(counts_D >= rows_D).tolist():
                run_out = RunOut(step, (step + 1) * schedule.step_tokens, k)
                runs_out.setdefault(names[d], run_out)
        drawn_D = (counts_D - before_D) * length
        epochs_D = counts_D * length / np.maximum(list(sizes.values()), 1)
        stages.append(
            StageDraw(
                name=stage.name or str(k),
                start=start,
                steps=stop - start,
                tokens=schedule.stage_tokens(k),
                drawn=dict(zip(names, drawn_D.tolist(), strict=True)),
                epochs=dict(zip(names, epochs_D.tolist(), strict=True)),
            )
        )
    return ScheduleForecast(schedule, sizes, tuple(stages), runs_out)
