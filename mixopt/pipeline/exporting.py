"""A run's mixture in a trainer's form, and as a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.config import read_inventory
from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, SamplerError, did_you_mean
from mixopt.exports import export_mixture, export_schedule
from mixopt.mixture import Mixture
from mixopt.pipeline.from_fit import (
    Parts,
    known_inventory,
    parts_in,
    parts_of,
    spread_out,
    spread_samples,
    spread_sizes,
)
from mixopt.run_directory import Run, load_run
from mixopt.sampling import (
    Schedule,
    ScheduleForecast,
    Stage,
    at_least,
    is_schedule,
    simulate_schedule,
)
from mixopt.system import __version__, read_yaml


@dataclass(frozen=True)
class ExportAsked:
    """What an export is asked for; what is None is as a run has it."""

    inventory: Path | None = None
    tokens: int | None = None
    paths: Path | None = None
    sample_tokens: str | None = None


def export_from(
    source: str | Path, to: str, *, asked: ExportAsked | None = None, trust: bool = False
) -> str:
    """Export the mixture of a file or of a run (mixopt.exports.export_mixture)."""
    asked = asked or ExportAsked()
    mixture, known = known_mixture(Path(source), asked, trust)
    known.pop("max_epochs", None)
    return export_mixture(mixture, to, **{**known, **_given(asked, mixture.domains)})


def export_schedule_from(
    source: str | Path,
    to: str,
    *,
    asked: ExportAsked | None = None,
    steps_per_stage: int | None = None,
) -> dict[str, str]:
    """Export the schedule of a file (mixopt.exports.export_schedule)."""
    asked = asked or ExportAsked()
    if asked.tokens is not None:
        raise ConfigError("export: --tokens is for mixtures; a schedule has its own length")
    schedule = Schedule.from_file(source)
    given = _given(asked, schedule.domains)
    return export_schedule(schedule, to, steps_per_stage=steps_per_stage, **given)


def simulate_from(
    source: str | Path,
    *,
    batches: int | None = None,
    batch_size: int | None = None,
    length: int | None = None,
    corpus: str | Path | None = None,
    inventory: Path | None = None,
    max_epochs: float | None = None,
    trust: bool = False,
) -> ScheduleForecast:
    """Count what a job draws: on the schedule of a file, or on the mixture of a file or a run.

    Args:
        source: A schedule, a mixture, a run directory or a file in one.
        batches: Global batches of the job, for a mixture.
        batch_size: Samples of a global batch; 256 by default.
        length: Tokens of a sample; 2048 by default.
        corpus: A prepared corpus whose tokens are the sizes.
        inventory: A file of sizes, which counts before all others.
        max_epochs: Most epochs of a domain, for a mixture.
        trust: Whether the run directory is trusted.
    """
    path, asked = Path(source), ExportAsked(inventory=inventory)
    stated = {"--batches": batches, "--batch-size": batch_size, "--length": length}
    if path.is_file() and is_schedule(path):
        for name, given in {**stated, "--max-epochs": max_epochs}.items():
            if given is not None:
                raise ConfigError(f"simulate: {name} is set in the schedule; leave it out")
        schedule = Schedule.from_file(path)
        sizes = schedule.inventory or _known(path.parent, schedule.domains, trust).get("inventory")
    elif batches is None:
        raise ConfigError(
            "simulate: a mixture needs --batches N, the length of the job in global batches"
        )
    else:
        mixture, known = known_mixture(path, asked, trust)
        stage = Stage(mixture, steps=at_least(1, "batches", batches), name="mixture")
        schedule = Schedule((stage,), batch=batch_size or 256, sequence_length=length or 2048)
        sizes = known.get("inventory")
    if inventory is not None:
        sizes = read_inventory(inventory, schedule.domains)
    elif corpus is not None:
        sizes = Corpus.open(corpus, verify=False).inventory
    if sizes is None:
        raise SamplerError(
            "sizes of the domains are not known: give --inventory FILE, --corpus DIR or, of a"
            " schedule, inventory:"
        )
    return simulate_schedule(schedule, sizes, max_epochs=max_epochs)


def known_mixture(source: Path, asked: ExportAsked, trust: bool) -> tuple[Mixture, dict[str, Any]]:
    """Return the mixture of a file or a run, and what the run knows, also of a file in it."""
    if source.is_dir():
        run = load_run(source, trust=trust)
        mixture, parts, folder = run.outcome.result.mixture, parts_of(run), source
    else:
        mixture, parts, folder = Mixture.from_file(source), parts_in(source), source.parent
    known = _known(folder, mixture.domains, trust, with_sizes=asked.inventory is None)
    return spread_out(mixture, parts), known


def _known(
    folder: Path, domains: Sequence[str], trust: bool, *, with_sizes: bool = True
) -> dict[str, Any]:
    """Return what a run or a prepared corpus knows of a job on its domains.

    Sizes are those that are stated; those of a sample stand for a domain that states none.
    """
    has_corpus = (folder / "corpus" / "index.json").exists()
    if not (folder / "config.yaml").exists():
        corpus = Corpus.open(folder / "corpus", verify=False) if has_corpus else None
        return {} if corpus is None else {"inventory": corpus.inventory}
    run = load_run(folder, trust=trust)
    parts = parts_of(run)
    known: dict[str, Any] = {
        "tokens": run.config.propose.target_tokens,
        "max_epochs": run.config.constraints.max_epochs,
    }
    if with_sizes:
        known["inventory"] = _sizes(run, domains, parts, trust)
    if has_corpus:
        known["sample_tokens"] = spread_samples(run, parts)
    return known


def _sizes(run: Run, domains: Sequence[str], parts: Parts, trust: bool) -> dict[str, Any] | None:
    """Return tokens by domain; of a run without its corpus, those that are stated."""
    if not (run.path / "corpus").exists():
        sources = run.config.corpus.sources
        return {name: one.tokens for name, one in sources.items() if one.tokens is not None}
    sizes = known_inventory(run.path, None, domains, trust)
    return None if sizes is None else spread_sizes(run, sizes, parts)


def _given(asked: ExportAsked, domains: Sequence[str] | None) -> dict[str, Any]:
    """Return what is asked for, read."""
    found: dict[str, Any] = {}
    if asked.inventory is not None:
        names = domains or _names(asked.inventory)
        found["inventory"] = read_inventory(asked.inventory, names)
    if asked.tokens is not None:
        found["tokens"] = asked.tokens
    if asked.paths is not None:
        found["paths"] = _by_domain(asked.paths, domains, "a path, or a list of paths,")
    if asked.sample_tokens is not None:
        found["sample_tokens"] = _samples(asked.sample_tokens, domains)
    return found


def _samples(given: str, domains: Sequence[str] | None) -> Any:
    try:
        return float(given)
    except ValueError:
        return _by_domain(Path(given), domains, "the mean tokens of a sample")


def _names(file: Path) -> list[str]:
    return list(_by_domain(file, None, "a number of tokens"))


def _by_domain(file: Path, domains: Sequence[str] | None, what: str) -> Mapping[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file}: expected {what} for each domain, one line each")
    for name in content:
        if domains is not None and name not in domains:
            raise ConfigError(f"{file}: unknown domain {name!r}{did_you_mean(str(name), domains)}")
    return {str(name): value for name, value in content.items()}


ONE_STAGE = "main:rest"
_FORM = "expected NAME:LENGTH, NAME:LENGTH:MIXTURE or NAME:LENGTH:to:MIXTURE"


def schedule_from(
    source: str | Path,
    *,
    tokens: int | None = None,
    batch: int = 1024,
    sequence_length: int = 4096,
    stages: str = ONE_STAGE,
    max_epochs: float | None = None,
    inventory: Path | None = None,
    trust: bool = False,
) -> Schedule:
    """Return a schedule of a run's recommendation, or of a mixture in a file."""
    asked = ExportAsked(inventory=inventory, tokens=tokens)
    mixture, known = known_mixture(Path(source), asked, trust)
    whole = known.get("tokens") if tokens is None else tokens
    if whole is None:
        raise ConfigError("schedule: the length of the run is missing; give --tokens, such as 1e12")
    sizes = known.get("inventory")
    if inventory is not None:
        sizes = read_inventory(inventory, mixture.domains)
    return Schedule(
        stages=tuple(_Stages(whole, mixture, trust).read(stages)),
        batch=batch,
        sequence_length=sequence_length,
        max_epochs=known.get("max_epochs") if max_epochs is None else max_epochs,
        inventory=None if sizes is None else {name: sizes[name] for name in mixture.domains},
        provenance={
            "mixopt": __version__,
            "source": Path(source).name,
            "mixture": mixture.fingerprint,
        },
    )


class _Stages:
    """Reads the stages of one schedule."""

    def __init__(self, tokens: int, first: Mixture, trust: bool) -> None:
        self._tokens, self._mixture, self._trust = tokens, first, trust

    def read(self, text: str) -> list[Stage]:
        """Return the stages, whose lengths add up."""
        parts = [part.split(":", 2) for part in text.split(",")]
        lengths = self._lengths([part[1] if len(part) > 1 else "" for part in parts])
        return [self._stage(part, length) for part, length in zip(parts, lengths, strict=True)]

    def _stage(self, part: Sequence[str], tokens: int) -> Stage:
        first, to = self._mixture, None
        if len(part) == 3:
            name = part[2].removeprefix("to:")
            if not name:
                raise ConfigError(f"--stages: {':'.join(part)!r}: {_FORM}")
            given, _ = known_mixture(Path(name), ExportAsked(), self._trust)
            to = given if part[2].startswith("to:") else None
            first = self._mixture if to is not None else given
        self._mixture = first if to is None else to
        return Stage(mixture=first, to=to, tokens=tokens, name=part[0].strip())

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        given = [None if text.strip() == "rest" else self._length(text) for text in texts]
        left = self._tokens - sum(length for length in given if length is not None)
        if given.count(None) > 1:
            raise ConfigError("--stages: 'rest' is given twice; only one stage can take the rest")
        if None in given and left <= 0:
            raise ConfigError(
                f"--stages: the others use all {self._tokens:,} tokens; nothing is left for 'rest'"
            )
        if None not in given and left:
            what = "a gap" if left > 0 else "an overlap"
            raise ConfigError(
                f"--stages: the sum is {self._tokens - left:,} of {self._tokens:,} tokens, {what}"
                f" of {abs(left):,}; set one length to 'rest'"
            )
        return [left if length is None else length for length in given]

    def _length(self, text: str) -> int:
        part = text.strip().removesuffix("%")
        try:
            number = float(part)
        except ValueError:
            raise ConfigError(f"--stages: {text!r} is not a length; {_FORM}") from None
        tokens = self._tokens * number / 100 if text.strip().endswith("%") else number
        if not 1 <= tokens <= 1e18:
            raise ConfigError(f"--stages: {text!r} is less than one token")
        return round(tokens)
