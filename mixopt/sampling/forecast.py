"""Forecast what a job draws of each domain, counted on the order of samples itself.

Shapes: D domains.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.sampler import LogEntry, MixtureSampler
from mixopt.sampling.sampler_input import Policy, at_least
from mixopt.sampling.schedule import Schedule
from mixopt.system import IntArray, check_name, check_seal, inside, read_json, shown_name


@dataclass(frozen=True)
class DomainDraw:
    """What is drawn of one domain.

    Attributes:
        domain: Its name.
        weight: Its share in the mixture.
        samples: How often it is drawn.
        share: Its share of what is drawn.
        rows: Samples it has.
        epochs: How often it is drawn through.
        runs_out: The batch in which its last new row is drawn; None where that does not happen.
    """

    domain: str
    weight: float
    samples: int
    share: float
    rows: int
    epochs: float
    runs_out: int | None


@dataclass(frozen=True)
class Simulation:
    """What a job would draw.

    Attributes:
        batches: Global batches available, at most those requested.
        requested: Global batches requested.
        domains: What is drawn of each domain.
        log: The weights over time, and the domains that reach max_epochs.
    """

    batches: int
    requested: int
    domains: tuple[DomainDraw, ...]
    log: tuple[LogEntry, ...]


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


def simulate(
    mixture: Mapping[str, float],
    rows: Mapping[str, int],
    *,
    batches: int,
    batch_size: int,
    max_epochs: float | None = None,
    exhausted: Policy | None = None,
) -> Simulation:
    """Count what a job would draw, exactly.

    Args:
        mixture: Share of each domain.
        rows: Samples that each has.
        batches: Global batches, >= 1.
        batch_size: Samples of a global batch.
        max_epochs: As for MixtureSampler.
        exhausted: As for MixtureSampler.
    """
    at_least(1, "batches", batches)
    sampler = MixtureSampler(
        rows,
        mixture,
        batch_size=batch_size,
        rank=0,
        world_size=1,
        max_epochs=max_epochs,
        exhausted=exhausted,
    )
    (counts_D,), runs_out = _counted(sampler, [batches])
    end = int(counts_D.sum()) // batch_size
    sampler.received(end)
    domains = [
        DomainDraw(
            domain=name,
            weight=sampler.log[0].mixture[name],
            samples=drawn,
            share=drawn / max(end * batch_size, 1),
            rows=rows[name],
            epochs=drawn / rows[name] if rows[name] else 0.0,
            runs_out=runs_out.get(name),
        )
        for name, drawn in zip(sampler.domains, counts_D.tolist(), strict=True)
    ]
    return Simulation(end, batches, tuple(domains), tuple(sampler.log))


def simulate_proposal(
    proposal: str | Path,
    *,
    batches: int,
    batch_size: int = 256,
    length: int = 2048,
    corpus: str | Path | None = None,
    max_epochs: float | None = None,
    exhausted: Policy | None = None,
) -> Simulation:
    """Simulate a job on the mixture of a file (`mixopt simulate PROPOSAL --batches N`).

    Args:
        proposal: A mixture or proposal in YAML.
        batches: Global batches, >= 1.
        batch_size: Samples of a global batch.
        length: Tokens of a sample.
        corpus: The prepared corpus; by default the folder `corpus` beside the proposal.
        max_epochs: As for MixtureSampler.
        exhausted: As for MixtureSampler.

    Raises:
        MixtureError: The file is not a mixture of the corpus's domains.
        SamplerError: There is no corpus.
    """
    path = Path(proposal)
    mixture = Mixture.from_file(path)
    sizes = corpus_inventory(Path(corpus) if corpus is not None else path.parent / "corpus")
    return simulate(
        mixture,
        {name: tokens // length for name, tokens in sizes.items()},
        batches=batches,
        batch_size=batch_size,
        max_epochs=max_epochs,
        exhausted=exhausted,
    )


def simulation_lines(simulation: Simulation) -> list[str]:
    """Return a table for a terminal."""
    width = max(len("domain"), *(len(one.domain) for one in simulation.domains))
    lines = [f"{'domain':<{width}}   weight   drawn        samples     epochs   runs out in batch"]
    for one in simulation.domains:
        out = "-" if one.runs_out is None else f"{one.runs_out:,}"
        lines.append(
            f"{one.domain:<{width}}  {one.weight:7.3%}  {one.share:8.4%}  {one.samples:11,}"
            f"  {one.epochs:9.3f}   {out:>17}"
        )
    if simulation.batches < simulation.requested:
        lines.append(
            f"the stream ends after {simulation.batches:,} of {simulation.requested:,} batches"
        )
    lines += [f"batch {e.batch:,}: {e.reason}" for e in simulation.log if e.reason[:3] == "exh"]
    return lines


def simulation_json(simulation: Simulation) -> dict[str, Any]:
    """Return the same as plain values, for `--json`."""
    return {
        "batches": simulation.batches,
        "domains": [vars(one) for one in simulation.domains],
        "log": [
            {"batch": e.batch, "reason": e.reason, "weights": dict(e.mixture)}
            for e in simulation.log
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
    rows = {name: tokens // chosen.sequence_length for name, tokens in sizes.items()}
    sampler = MixtureSampler(rows, rank=0, world_size=1, schedule=chosen)
    counts, runs_out = _counted(sampler, chosen.starts)
    stages = [
        StageDraw(
            name=stage.name or str(k),
            start=chosen.starts[k],
            steps=chosen.starts[k + 1] - chosen.starts[k],
            tokens=chosen.stage_tokens(k),
            drawn=_tokens(after_D - before_D, chosen),
            epochs={
                name: tokens / max(sizes[name], 1)
                for name, tokens in _tokens(after_D, chosen).items()
            },
        )
        for (k, stage), (before_D, after_D) in zip(
            enumerate(chosen.stages), itertools.pairwise(counts), strict=True
        )
    ]
    out = {
        name: RunOut(step, (step + 1) * chosen.step_tokens, chosen.stage_at(step))
        for name, step in runs_out.items()
    }
    return ScheduleForecast(chosen, sizes, tuple(stages), out)


def _tokens(counts_D: IntArray, schedule: Schedule) -> dict[str, int]:
    tokens_D = counts_D * schedule.sequence_length
    return dict(zip(schedule.domains, tokens_D.tolist(), strict=True))


def _counted(sampler: MixtureSampler, ends: Sequence[int]) -> tuple[list[IntArray], dict[str, int]]:
    """Return the samples of each domain before batches, and in which batch a domain runs out.

    Of a stream that ends before a batch the counts at its end.
    """
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
    """Return the tokens to train on of each domain of a prepared corpus.

    Raises:
        SamplerError: There is no corpus, or its indices cannot be read.
    """
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
