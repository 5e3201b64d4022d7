"""Export a mixture from a file or from a run, with what the run knows of its domains.

A run gives its recommendation, or its proposal where nothing is validated; with it the inventory,
the length of the full run, and the mean tokens of a document of what was prepared. What is asked
for counts before what the run knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.config import read_inventory
from mixopt.errors import ConfigError, did_you_mean
from mixopt.exports import export_mixture, export_schedule
from mixopt.mixture import Mixture
from mixopt.pipeline.from_fit import known_inventory
from mixopt.pipeline.mixed_parts import (
    Parts,
    parts_in,
    parts_of,
    spread_out,
    spread_samples,
    spread_sizes,
)
from mixopt.run_directory import PROPOSE, VALIDATE, Run, load_run
from mixopt.sampling import Schedule
from mixopt.system import read_yaml


@dataclass(frozen=True)
class ExportAsked:
    """What an export is asked for; what is None is as a run has it.

    Attributes:
        inventory: A YAML file of distinct tokens by domain.
        tokens: Length of the full run.
        paths: A YAML file with a path, or several, of each domain.
        sample_tokens: A YAML file of mean tokens of a sample by domain, or one number for all.
    """

    inventory: Path | None = None
    tokens: int | None = None
    paths: Path | None = None
    sample_tokens: str | None = None


def export_from(
    source: str | Path, to: str, *, asked: ExportAsked | None = None, trust: bool = False
) -> str:
    """Export the mixture of a file or of a run (mixopt.exports.export_mixture).

    Args:
        source: YAML of a mixture, a proposal or a recommendation; or a run directory.
        to: The tool.
        asked: What is known of the domains.
        trust: Whether a run directory is trusted (`load_run`).

    Raises:
        ConfigError: An unknown tool, a file that cannot be read, or what the unit needs is unknown.
        RunError: The run has no proposal yet.
    """
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
    """Export the schedule of a file (mixopt.exports.export_schedule).

    Args:
        source: The schedule.
        to: The tool.
        asked: What is known of the domains; the schedule has the length of the run.
        steps_per_stage: Into how many constant steps a linear stage is divided.

    Raises:
        ConfigError: What `export_schedule` refuses, or a length of the run is given.
        SamplerError: The schedule cannot be right.
    """
    asked = asked or ExportAsked()
    if asked.tokens is not None:
        raise ConfigError("export: --tokens is for mixtures; a schedule has its own length")
    schedule = Schedule.from_file(source)
    given = _given(asked, schedule.domains)
    return export_schedule(schedule, to, steps_per_stage=steps_per_stage, **given)


def known_mixture(source: Path, asked: ExportAsked, trust: bool) -> tuple[Mixture, dict[str, Any]]:
    """Return the mixture of a file or a run, and what the run knows.

    Args:
        source: YAML of a mixture, or a run directory.
        asked: What need not be looked up.
        trust: Whether a run directory is trusted.

    Returns:
        The mixture, with its parts in the place of a mixed domain; of a run also `tokens`,
        `max_epochs`, `inventory` and `sample_tokens`, where known.
    """
    if not source.is_dir():
        return spread_out(Mixture.from_file(source), parts_in(source)), {}
    run = load_run(source, trust=trust)
    decided = run.is_done(VALIDATE.name)
    if not decided:
        run.require(PROPOSE.name)
    mixture = (run.recommendation if decided else run.proposal).mixture
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
