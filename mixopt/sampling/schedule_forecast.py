"""Forecast what a schedule draws of each domain, stage by stage, and exhaustion.

It is counted on the order of samples itself.

Shapes: D domains.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.sampling.forecast import corpus_inventory
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
    """When the last new row of a domain is drawn.

    Attributes:
        step: The step, counted from 0.
        tokens: Of the run after it.
        stage: The number of the stage.
    """

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
        runs_out: When a domain runs out; one that does not is not there.
    """

    schedule: Schedule
    inventory: Mapping[str, int]
    stages: tuple[StageDraw, ...]
    runs_out: Mapping[str, RunOut]

    @property
    def drawn(self) -> dict[str, int]:
        """Tokens of each domain over all stages."""
        names = self.schedule.domains
        return {name: sum(stage.drawn[name] for stage in self.stages) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values, for `--json`."""
        schedule = self.schedule
        return {
            "steps": schedule.steps,
            "tokens": schedule.tokens,
            "asked_tokens": schedule.asked_tokens,
            "batch": schedule.batch,
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
    schedule: str | Path | Schedule,
    *,
    corpus: str | Path | None = None,
    inventory: Mapping[str, int] | None = None,
) -> ScheduleForecast:
    """Count what a schedule draws (`mixopt simulate SCHEDULE`).

    Args:
        schedule: The schedule, or its file.
        corpus: A prepared corpus, whose sizes count; by default the folder `corpus` beside the
            file where the schedule has no inventory.
        inventory: Distinct tokens of each domain, in place of a corpus.

    Raises:
        SamplerError: The schedule cannot be right, sizes are not known, or a domain has a share
            and not even one sequence.
    """
    beside = Path() if isinstance(schedule, Schedule) else Path(schedule).parent
    chosen = schedule if isinstance(schedule, Schedule) else Schedule.from_file(schedule)
    sizes = _sizes(chosen, inventory, corpus, beside)
    chosen.check_epochs(sizes)
    counts, runs_out = _counted(chosen, sizes)
    stages: list[StageDraw] = []
    so_far = np.zeros(len(sizes), np.int64)
    for k, stage in enumerate(chosen.stages):
        drawn = counts[k] * chosen.sequence_length
        so_far = so_far + drawn
        stages.append(
            StageDraw(
                name=stage.name or str(k),
                start=chosen.starts[k],
                steps=chosen.starts[k + 1] - chosen.starts[k],
                tokens=chosen.stage_tokens(k),
                drawn=dict(zip(sizes, drawn.tolist(), strict=True)),
                epochs={
                    name: tokens / max(sizes[name], 1)
                    for name, tokens in zip(sizes, so_far.tolist(), strict=True)
                },
            )
        )
    return ScheduleForecast(chosen, sizes, tuple(stages), runs_out)


def _sizes(
    schedule: Schedule,
    inventory: Mapping[str, int] | None,
    corpus: str | Path | None,
    beside: Path,
) -> dict[str, int]:
    found = inventory if corpus is None else corpus_inventory(Path(corpus))
    if found is None:
        found = schedule.inventory
    if found is None:
        if not (beside / "corpus" / "index.json").exists():
            raise SamplerError(
                "schedule: sizes of the domains are not known: give inventory: in the schedule,"
                " --inventory FILE or --corpus DIR"
            )
        found = corpus_inventory(beside / "corpus")
    schedule.check_epochs(found)
    return {name: found[name] for name in schedule.domains}


def _counted(
    schedule: Schedule, sizes: Mapping[str, int]
) -> tuple[list[IntArray], dict[str, RunOut]]:
    """Return the samples of each domain in each stage, and what runs out."""
    rows = {name: tokens // schedule.sequence_length for name, tokens in sizes.items()}
    sampler = MixtureSampler(rows, rank=0, world_size=1, schedule=schedule)
    counts = [sampler.order.planned_counts(start * schedule.batch) for start in schedule.starts]
    runs_out: dict[str, RunOut] = {}
    for d, name in enumerate(sizes):
        if counts[-1][d] < max(rows[name], 1):
            continue
        drawn = sampler.order.when_drawn(d, max(rows[name], 1), schedule.steps * schedule.batch)
        assert drawn is not None, "it was counted"
        step = (drawn - 1) // schedule.batch
        tokens = (step + 1) * schedule.step_tokens
        runs_out[name] = RunOut(step, tokens, schedule.stage_at(step))
    return [after - before for before, after in itertools.pairwise(counts)], runs_out
