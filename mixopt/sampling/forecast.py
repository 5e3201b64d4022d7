"""Forecast what a job draws of each domain, counted on the order of samples itself.

Shapes: D domains.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.sampler import MixtureSampler
from mixopt.sampling.sampler_input import at_least
from mixopt.sampling.schedule import Schedule, Stage
from mixopt.system import IntArray, check_name, check_seal, inside, read_json, shown_name


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


def simulate_proposal(
    proposal: str | Path,
    *,
    batches: int,
    batch_size: int = 256,
    length: int = 2048,
    corpus: str | Path | None = None,
    max_epochs: float | None = None,
) -> ScheduleForecast:
    """Count what a job on the mixture of a file draws (`mixopt simulate PROPOSAL --batches N`)."""
    path = Path(proposal)
    mixture = Mixture.from_file(path)
    sizes = corpus_inventory(Path(corpus) if corpus is not None else path.parent / "corpus")
    stage = Stage(mixture, steps=at_least(1, "batches", batches), name="mixture")
    schedule = Schedule((stage,), batch=batch_size, sequence_length=length)
    return _forecast(schedule, sizes, max_epochs)


def simulate_schedule(
    schedule: str | Path | Schedule,
    *,
    corpus: str | Path | None = None,
    inventory: Mapping[str, int] | None = None,
) -> ScheduleForecast:
    """Count what a schedule draws (`mixopt simulate SCHEDULE`)."""
    beside = Path() if isinstance(schedule, Schedule) else Path(schedule).parent
    chosen = schedule if isinstance(schedule, Schedule) else Schedule.from_file(schedule)
    sizes = _sizes(chosen, inventory, corpus, beside)
    return _forecast(chosen, sizes, None)


def _forecast(
    schedule: Schedule, sizes: Mapping[str, int], max_epochs: float | None
) -> ScheduleForecast:
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
    place, found, out = sampler.order.start, list[IntArray](), dict[str, int]()
    for end in ends:
        while place.window < end:
            after = sampler.order.place(place.window + 1)
            if after is None:
                break
            place = after
            for d, drawn in enumerate(place.counts_D.tolist()):
                if rows[d] and drawn >= rows[d]:
                    out.setdefault(sampler.domains[d], place.window - 1)
        found.append(place.counts_D)
    return found, out


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


def corpus_inventory(folder: Path) -> dict[str, int]:
    """Return the tokens to train on of each domain of a prepared corpus."""
    missing = SamplerError(f"{folder}: no corpus; give its folder, --corpus DIR")
    index = _index(folder, missing=lambda: missing)
    names = index.get("domains")
    if not isinstance(names, list):
        raise SamplerError(f"{folder / 'index.json'}: domains: expected a list of names")
    where = f"{folder / 'index.json'}: domain"
    return {name: _domain_tokens(folder, check_name(name, where, SamplerError)) for name in names}


def _domain_tokens(folder: Path, name: str) -> int:
    shards = inside(folder, f"{name}/train", SamplerError)
    tokens = _index(shards).get("tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens <= 1 << 60:
        shown = shown_name(tokens)
        raise SamplerError(f"{shards / 'index.json'}: tokens: {shown} is not a number of tokens")
    return tokens


def _index(folder: Path, missing: Callable[[], Exception] | None = None) -> dict[str, Any]:
    """Read the index of a corpus or of shards; one that somebody wrote by hand has no seal."""
    path = folder / "index.json"
    content = read_json(path, error=SamplerError, missing=missing)
    if not isinstance(content, dict):
        raise SamplerError(f"{path}: expected fields, got {type(content).__name__}")
    if "sha256" in content or str(content.get("format", "/1")).rpartition("/")[2] != "1":
        hint = "prepare the corpus again: mixopt prepare CONFIG --out DIR"
        check_seal(content, str(path), mend=hint, error=SamplerError)
    return content
