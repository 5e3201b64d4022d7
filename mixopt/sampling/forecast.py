"""Forecast what a job draws of each domain: realised shares, epochs, and exhaustion.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.sampler import MixtureSampler
from mixopt.sampling.sampler_input import Policy, at_least
from mixopt.sampling.sampler_log import LogEntry
from mixopt.system import check_name, check_seal, inside, read_json, shown_name


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
        asked: Global batches asked for.
        domains: What is drawn of each domain.
        log: The weights over time, and the domains that reach max_epochs.
    """

    batches: int
    asked: int
    domains: tuple[DomainDraw, ...]
    log: tuple[LogEntry, ...]


def simulate(
    mixture: Mapping[str, float],
    rows: Mapping[str, int],
    *,
    batches: int,
    batch_size: int,
    max_epochs: float | None = None,
    exhausted: Policy | None = None,
) -> Simulation:
    """Count what a job would draw, without drawing it.

    Args:
        mixture: Share of each domain.
        rows: Samples that each has.
        batches: Global batches, >= 1.
        batch_size: Samples of a global batch.
        max_epochs: As for MixtureSampler.
        exhausted: As for MixtureSampler.

    Returns:
        The counts, exact.
    """
    asked = at_least(1, "batches", batches)
    sampler = MixtureSampler(
        rows,
        mixture,
        batch_size=batch_size,
        rank=0,
        world_size=1,
        max_epochs=max_epochs,
        exhausted=exhausted,
    )
    end = sampler.order.reach(asked * batch_size) // batch_size
    sampler.received(end)
    drawn = sampler.counts()
    domains = [
        DomainDraw(
            domain=name,
            weight=sampler.log[0].mixture[name],
            samples=drawn[name],
            share=drawn[name] / max(end * batch_size, 1),
            rows=rows[name],
            epochs=drawn[name] / rows[name] if rows[name] else 0.0,
            runs_out=_runs_out(sampler, d, rows[name], end * batch_size),
        )
        for d, name in enumerate(sampler.domains)
    ]
    return Simulation(end, asked, tuple(domains), tuple(sampler.log))


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
    folder = Path(corpus) if corpus is not None else path.parent / "corpus"
    rows = {name: tokens // length for name, tokens in corpus_inventory(folder).items()}
    return simulate(
        mixture,
        rows,
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
    if simulation.batches < simulation.asked:
        lines.append(
            f"the stream ends after {simulation.batches:,} of {simulation.asked:,} batches"
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


def _runs_out(sampler: MixtureSampler, domain: int, rows: int, stop: int) -> int | None:
    if not rows:
        return None
    after = sampler.order.when_drawn(domain, rows, stop)
    return None if after is None else (after - 1) // sampler.batch_size


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
    return {name: _tokens(folder, check_name(name, where, SamplerError)) for name in names}


def _tokens(folder: Path, name: str) -> int:
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
        mend = "prepare the corpus again: mixopt prepare CONFIG --out DIR"
        check_seal(content, str(path), mend=mend, error=SamplerError)
    return content
