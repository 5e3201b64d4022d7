"""Microanneals as a run: `mixopt anneal`, and their combination into a mixture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import ConfigError, RunError, did_you_mean
from mixopt.pipeline.pre_check import fold_fault
from mixopt.pipeline.rounds import check_rounds
from mixopt.pipeline.steps import run as run_steps
from mixopt.run_directory import DESIGN, REPORT, SWEEP, Run, load_run
from mixopt.system import Say, silent

if TYPE_CHECKING:
    from mixopt.config import Config, DesignConfig

PROPORTIONS = "constraints.proportions.base"
# Fields of a design that are kept beside the anneals: of all mixtures, and of later rounds alone.
LIMITS = ("minimum", "max_usage", "max_weights")
CHOICE = ("acquisition", "acquisition_regressor", "stop_gain")


@dataclass(frozen=True)
class AnnealAsked:
    """What microanneals are asked for; what is None is as CONFIG or the run has it."""

    sources: tuple[str, ...] | None = None
    share: float | None = None
    seeds: int | None = None
    base: Path | None = None
    rounds: tuple[int, ...] = ()

    def overrides(
        self, config: Config, recorded: DesignConfig | None = None, *, combine: bool = False
    ) -> list[str]:
        """Return the fields that it sets, as overrides of a configuration."""
        design = config.design if config.design.anneals is not None else recorded
        before = None if design is None else design.anneals
        known = {} if before is None else before.model_dump(mode="json")
        anneals = {**known, **self._fields()}
        self._check(anneals, list(config.corpus.domains))
        own = _later(config.design) if combine else ()
        later = self.rounds or own or _later(recorded)
        given = {"method": "anneals", "anneals": anneals, **_kept(config.design, LIMITS)}
        if later:
            given["rounds"] = [1 + len(anneals["sources"]), *later]
            given |= _kept(config.design, CHOICE)
        return [
            f"design={json.dumps(given)}",
            f"validate.baselines={json.dumps(_baselines(config))}",
            *_base_overrides(config, anneals),
        ]

    def _check(self, anneals: Mapping[str, Any], domains: Sequence[str]) -> None:
        sources = anneals.get("sources")
        if not sources:
            raise ConfigError("anneal: give the candidate sources: --sources a,b,c")
        for name in sources:
            if name not in domains:
                near = did_you_mean(name, domains)
                raise ConfigError(f"anneal --sources: unknown domain {name!r}{near}")
            if sources.count(name) > 1:
                raise ConfigError(f"anneal --sources: {name!r} is given twice")
            if isinstance(anneals.get("base"), dict) and anneals["base"].get(name, 0) > 0:
                weight = anneals["base"][name]
                raise ConfigError(
                    f"anneal --sources: {name!r} has a weight of {weight:g} in the base; leave it"
                    " out of one of them"
                )
        if not set(domains) - set(sources):
            raise ConfigError("anneal --sources: every domain is a source; the base needs one")
        if self.share is not None and not 0 < self.share < 1:
            raise ConfigError(f"anneal --share {self.share:g}: should be above 0 and below 1")
        if self.seeds is not None and self.seeds < 1:
            raise ConfigError(f"anneal --seeds {self.seeds}: should be 1 or more; 3 is usual")

    def _fields(self) -> dict[str, Any]:
        found = {
            "sources": None if self.sources is None else list(self.sources),
            "share": self.share,
            "seeds": self.seeds,
            "base": None if self.base is None else _weights(self.base),
        }
        return {name: value for name, value in found.items() if value is not None}


def anneal(
    config: str | Path,
    out: str | Path,
    asked: AnnealAsked,
    *,
    combine: bool = False,
    overrides: Sequence[str] = (),
    retry_failed: bool = False,
    trust: bool = False,
    say: Say = silent,
) -> Run:
    """Train each candidate source at a fixed share against a control; finished trials are kept.

    Args:
        config: An experiment's YAML file, or the record of a run of microanneals.
        out: The run directory.
        asked: Sources, share, seeds and base.
        combine: Continue with the later rounds, the fit of the sources' shares, the proposal, its
            validation and the page.
        overrides: `a.b=value` each, over the file and what is asked.
        retry_failed: Train trials again that failed or diverged before.
        trust: As of `mixopt.pipeline.run`.
        say: Called with a line about what happens.

    Returns:
        The run; `run.anneals` is what each source does. A record whose anneals are trained, with
        nothing asked of it, is only looked at.

    Raises:
        ConfigError: A source, share or base that cannot be right.
        InfeasibleError: A source has too few tokens for its share.
        RunError: The directory is that of another command.
    """
    config, out = Path(config), Path(out)
    looked_at = not (combine or overrides or retry_failed) and asked == AnnealAsked()
    if looked_at and (done := _trained(config, out)) is not None:
        return done
    before = _recorded(out)
    if asked.rounds and not combine:
        raise ConfigError("anneal: --rounds come after the anneals: add --combine")
    trusted = trust or not _is_record(config, out)  # a user's own file may name others
    first, last = _parted(overrides)
    given = _config(config, first, trusted)
    settings = [*first, *asked.overrides(given, before, combine=combine), *last]
    if combine:
        combined = _config(config, settings, trusted)
        _check_folds(combined)
        check_rounds(out, combined.design.planned_rounds[1:])
    run = run_steps(
        config,
        out,
        overrides=settings,
        retry_failed=retry_failed,
        until=(REPORT if combine else SWEEP).name,
        trust=trust,
        say=say,
    )
    _say_what_is_missing(run, say)
    _write_page(run)
    return run


def combining(run: Run) -> str | None:
    """Return the options of `mixopt anneal` that combine a run's anneals, such as `--combine`."""
    from mixopt.trials import LEAST_MIXTURES

    mixtures = run.config.design.first_round
    if mixtures < LEAST_MIXTURES:
        return None
    few = fold_fault(run.config, mixtures) is not None
    return "--combine" + f" --set fit.folds={mixtures}" * few


def _later(design: DesignConfig | None) -> tuple[int, ...]:
    """Return the mixtures of rounds after microanneals."""
    return () if design is None or design.anneals is None else design.planned_rounds[1:]


def _parted(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part overrides into those before what is asked, and those of later rounds, after it."""
    names = tuple(f"design.{name}" for name in CHOICE)
    last = [one for one in overrides if one.partition("=")[0].strip() in names]
    return [one for one in overrides if one not in last], last


def _kept(design: DesignConfig, fields: Sequence[str]) -> dict[str, Any]:
    """Return those of some fields of a design that are given, as plain values."""
    return design.model_dump(mode="json", include=set(fields) & design.model_fields_set)


def _weights(path: Path) -> dict[str, float]:
    """Read a base's weights."""
    from mixopt.mixture import Mixture

    return dict(Mixture.from_file(path))


def _baselines(config: Config) -> list[Any]:
    """Return the baselines of a validation, with the control among them."""
    validation = config.validation
    if "baselines" not in validation.model_fields_set:
        return ["control", "natural", "best_trial"]
    given = [one.model_dump(mode="json", exclude_none=True) for one in validation.baselines]
    return given if any(one["name"] == "control" for one in given) else [*given, "control"]


def _base_overrides(config: Config, anneals: Mapping[str, Any]) -> list[str]:
    """Keep the base in one piece where it is of several domains."""
    parts = [name for name in config.corpus.domains if name not in anneals["sources"]]
    if len(parts) < 2:
        return []
    base = anneals.get("base", "natural")
    if not isinstance(base, dict):
        return [f"{PROPORTIONS}={json.dumps(parts)}"]
    weights = {name: base.get(name, 0.0) for name in parts}
    return [f"{PROPORTIONS}={json.dumps({'domains': parts, 'weights': weights})}"]


def _is_record(config: Path, out: Path) -> bool:
    """Tell whether a configuration is the run directory's own record, which may be foreign."""
    return config.resolve() == (out / "config.yaml").resolve()


def _trained(config: Path, out: Path) -> Run | None:
    """Return the run that a record is of, where its anneals are trained; nothing is run."""
    if not _is_record(config, out):
        return None
    run = load_run(out)
    return run if run.config.design.anneals is not None and run.is_done(SWEEP.name) else None


def _recorded(out: Path) -> DesignConfig | None:
    """Return the design of the microanneals that a directory has; None where it has nothing."""
    if not (out / "config.yaml").is_file():
        return None
    run = load_run(out)
    design = run.config.design
    if design.anneals is not None:
        return design
    if DESIGN.name in run.manifest.steps:
        raise RunError(
            f"{out}: is a run of mixtures (design.method: {design.method or 'dirichlet'}), not of"
            " microanneals; use another --out"
        )
    return None


def _config(config: Path, settings: Sequence[str], trust: bool) -> Config:
    from mixopt.config import load_config

    return load_config(config, settings, trust=trust)


def _check_folds(config: Config) -> None:
    """Check that a fit has enough mixtures."""
    from mixopt.trials import LEAST_MIXTURES

    sources = config.design.first_round - 1
    if config.design.trials < LEAST_MIXTURES:  # later rounds included
        few = "1 source is" if sources == 1 else f"{sources} sources are"
        raise ConfigError(
            f"anneal --combine: {few} too few to combine: give at least {LEAST_MIXTURES - 1}, or"
            f" --rounds; a fit needs {LEAST_MIXTURES} mixtures, the control among them"
        )
    if fold_fault(config, config.design.first_round) is not None:
        raise ConfigError(
            f"fit.folds: {config.fit.folds} folds need as many mixtures, and {sources} sources with"
            f" their control have {sources + 1}; add sources, or --set fit.folds={sources + 1}"
        )


def _say_what_is_missing(run: Run, say: Say) -> None:
    asked = run.config.design.anneals
    if asked is not None and asked.seeds < 2:
        say("anneal: one seed has no interval: repeat with --seeds 3 and another --out to get one")


def _write_page(run: Run) -> None:
    from mixopt.reporting import write_anneals

    write_anneals(run)
