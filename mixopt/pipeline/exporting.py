"""A run's mixture in a trainer's form, and as a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.config import read_inventory
from mixopt.errors import ConfigError, did_you_mean
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
from mixopt.sampling import Schedule, Stage
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


def known_mixture(source: Path, asked: ExportAsked, trust: bool) -> tuple[Mixture, dict[str, Any]]:
    """Return the mixture of a file or a run, and what the run knows."""
    if not source.is_dir():
        return spread_out(Mixture.from_file(source), parts_in(source)), {}
    run = load_run(source, trust=trust)
    mixture = run.outcome.result.mixture
    known: dict[str, Any] = {
        "tokens": run.config.propose.target_tokens,
        "max_epochs": run.config.constraints.max_epochs,
    }
    parts = parts_of(run)
    if asked.inventory is None:
        known["inventory"] = _sizes(run, mixture.domains, parts, trust)
    if (source / "corpus").exists():
        known["sample_tokens"] = spread_samples(run, parts)
    return spread_out(mixture, parts), known


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
