"""Forecast what a schedule draws of each domain, stage by stage, and exhaustion.

It is counted on the order of samples itself. Where the sequence length changes, a domain has other
rows, and continues as in a job: what was drawn of it counts, and it begins a new epoch.

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
        phase: Of the learning rate; None where the schedule has none.
        start: Its first step.
        steps: Its length.
        tokens: The same in tokens.
        sequence_length: Tokens of a sequence.
        drawn: Tokens of each domain.
        epochs: How often each domain has been seen by its end.
    """

    name: str
    phase: str | None
    start: int
    steps: int
    tokens: int
    sequence_length: int
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
    counts, runs_out = _StageCounts(chosen, sizes).counted()
    stages: list[StageDraw] = []
    so_far = np.zeros(len(sizes), np.int64)
    for k, stage in enumerate(chosen.stages):
        drawn = counts[k] * chosen.length_of(stage)
        so_far = so_far + drawn
        stages.append(
            StageDraw(
                name=stage.name or str(k),
                phase=stage.phase,
                start=chosen.starts[k],
                steps=chosen.starts[k + 1] - chosen.starts[k],
                tokens=chosen.stage_tokens(k),
                sequence_length=chosen.length_of(stage),
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


class _StageCounts:
    """Counts the samples of a schedule, one sampler for each sequence length after another."""

    def __init__(self, schedule: Schedule, sizes: Mapping[str, int]) -> None:
        self._schedule, self._sizes = schedule, sizes
        self._runs_out: dict[str, RunOut] = {}
        self._tokens = np.zeros(len(sizes), np.int64)  # of each domain before the present span

    def counted(self) -> tuple[list[IntArray], dict[str, RunOut]]:
        """Return the samples of each domain in each stage, and what runs out."""
        schedule, found = self._schedule, list[IntArray]()
        sizes = schedule.batch_sizes
        state: dict[str, Any] | None = None
        for start, stop, length in schedule.spans:
            sampler = self._sampler(length)
            if state is not None:
                sampler.load_state_dict(state, map_domains={})
            ends = [at for at in schedule.starts if start <= at <= stop]
            counts = [sampler.order.planned_counts(sizes.samples_before(at)) for at in ends]
            found += [after - before for before, after in itertools.pairwise(counts)]
            self._note_what_runs_out(sampler, length, counts[0], counts[-1], stop)
            self._tokens = self._tokens + (counts[-1] - counts[0]) * length
            state = sampler.state_at(sizes.units_before(stop))
        return found, self._runs_out

    def _sampler(self, length: int) -> MixtureSampler:
        schedule = self._schedule
        rows = {name: tokens // length for name, tokens in self._sizes.items()}
        first, *_ = entries = schedule.unit_entries
        unit = schedule.batch_sizes.unit
        return MixtureSampler(
            rows, first[1], batch_size=unit, rank=0, world_size=1, schedule=entries
        )

    def _note_what_runs_out(
        self, sampler: MixtureSampler, length: int, before: IntArray, after: IntArray, stop: int
    ) -> None:
        schedule = self._schedule
        for d, (name, size) in enumerate(self._sizes.items()):
            left = max((size - int(self._tokens[d])) // length, 1)
            if name in self._runs_out or before[d] + left > after[d]:
                continue
            end = schedule.batch_sizes.samples_before(stop)
            drawn = sampler.order.when_drawn(d, int(before[d]) + left, end)
            assert drawn is not None, "it was counted"
            step = schedule.batch_sizes.step_of(drawn - 1)
            tokens = schedule.tokens_before(step + 1)
            self._runs_out[name] = RunOut(step, tokens, schedule.stage_at(step))
