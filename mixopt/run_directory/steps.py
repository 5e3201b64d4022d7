"""The steps of a run, in order: what each depends on and leaves, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import RunError, did_you_mean
from mixopt.sweeps import WORK, trial_paths

START_FILE = "start.json"  # what trials begin with (mixopt.run_directory.trial_records)
RECOMMENDATION = "recommendation.yaml"
PROPOSAL = "proposal.yaml"
LATER_PROPOSALS = "later_proposals"


@dataclass(frozen=True)
class Step:
    """One step of a run; files and folders are relative to the run directory.

    Attributes:
        name: What it is called on the command line and in `steps.json`.
        sections: Sections of the configuration that it depends on, beside those of the steps
            before it; `sizes` are what `corpus` states of whole domains.
        outputs: Files and folders that it leaves.
        optional: Files and folders that it leaves where there is something to say.
        trials: Folder in which each of its trials has a file; None where it trains nothing.
        experts: Table of what the experts of its trials were given, left where they have experts.
        artifacts: Patterns of the files that its parent run in MLflow has; a step without any has
            no parent run.
        rewrites: Files of an earlier step that it changes while it runs.
        editable: Outputs that a person may edit; they are then no longer the step's.
    """

    name: str
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    trials: str | None = None
    experts: str | None = None
    artifacts: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    editable: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that it may leave."""
        experts = () if self.experts is None else (self.experts,)
        return (*self.outputs, *self.optional, *experts)

    @property
    def checked(self) -> tuple[str, ...]:
        """What is hashed whenever its output is used."""
        return tuple(n for n in self.files if n not in ("corpus", self.trials, *self.editable))

    @property
    def shared(self) -> tuple[str, ...]:
        """Folders where tasks on other hosts write: they may do so after the step has ended."""
        return (f"{self.trials}/{WORK}",) if self.trains else ()

    @property
    def trains(self) -> bool:
        """Whether it trains trials."""
        return self.trials is not None

    @property
    def acts(self) -> bool:
        """Whether it reads what is elsewhere or trains; a directory's own record alone does not."""
        return self.trains or self.name == "prepare"

    def trial_folder(self, directory: Path) -> Path:
        """Return where its trials have their files in a run directory."""
        assert self.trials is not None, f"{self.name} trains nothing"
        return directory / self.trials

    def trial_files(self, directory: Path) -> list[Path]:
        """Return the files of its trials in a run directory; none where it trains nothing."""
        return trial_paths(self.trial_folder(directory)) if self.trains else []

    def experts_file(self, directory: Path) -> Path:
        """Return where the table of its experts is in a run directory, if its trials have some."""
        assert self.experts is not None, f"{self.name} trains nothing"
        return directory / self.experts


PREPARE = Step("prepare", ("seed", "corpus", "evaluation", "tasks"), ("corpus",))
DESIGN = Step(
    "design",
    ("sizes", "design", "constraints", "propose.target_tokens"),
    ("design.parquet",),
    optional=("carried.parquet",),
)
SWEEP = Step(
    "sweep",
    ("proxy",),
    ("trials", "trials.parquet"),
    trials="trials",
    optional=(START_FILE,),
    experts="experts.parquet",
    rewrites=("design.parquet",),
    artifacts=(
        *("config.yaml", "design.parquet", "trials.parquet", "experts.parquet"),
        *("trials/attempts.jsonl", "fit/fit.json", "fit/report.parquet", "fit/held_out.parquet"),
        *(PROPOSAL, "figures/*.svg", "report.html", RECOMMENDATION),
    ),
)
FIT = Step("fit", ("fit", "objective", "families"), ("fit",))
PROPOSE = Step("propose", ("propose",), (PROPOSAL,), editable=(PROPOSAL,))
VALIDATE = Step(
    "validate",
    ("validate",),
    ("validation", "validation.parquet", RECOMMENDATION),
    optional=(LATER_PROPOSALS,),
    trials="validation",
    experts="validation_experts.parquet",
    artifacts=(
        *(RECOMMENDATION, f"{LATER_PROPOSALS}/*.yaml", "validation.parquet"),
        *("validation_experts.parquet", "validation/attempts.jsonl"),
    ),
)
REPORT = Step("report", ("name",), ("report.html", "figures"))

STEPS: tuple[Step, ...] = (PREPARE, DESIGN, SWEEP, FIT, PROPOSE, VALIDATE, REPORT)


def step_named(name: str) -> Step:
    """Return the step of that name."""
    names = [step.name for step in STEPS]
    if name not in names:
        raise RunError(f"no such step: {name!r}{did_you_mean(name, names)}")
    return STEPS[names.index(name)]


def steps_before(step: Step) -> tuple[Step, ...]:
    """Return the steps that come before one."""
    return STEPS[: STEPS.index(step)]


def steps_from(step: Step) -> tuple[Step, ...]:
    """Return a step and those that come after it."""
    return STEPS[STEPS.index(step) :]


FORMAT = "mixopt/1"
PATIENCE = ("timeout", "retries")  # of a command that trains the trials
READING = ("result", "losses", "unit")  # how its results are read
_SIZES = ("tokens", "bytes")
_TEXT = ("environment", "path", "data_files", "mixed")  # fields of a source that has some


def step_fingerprints(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprint of each step, by name, of a configuration as plain values."""
    fingerprints: dict[str, str] = {}
    before, parted = FORMAT, _parted(content)
    for step in STEPS:
        values = {section: _section(parted, section) for section in step.sections}
        text = before + json.dumps(values, sort_keys=True)
        before = fingerprints[step.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return fingerprints


def step_differences(
    step: Step, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields, with both values, that give a step another fingerprint."""
    sections = tuple(name for one in (*steps_before(step), step) for name in one.sections)
    for name, there, here in differences(_parted(before), _parted(now)):
        section, _, rest = name.partition(".")
        written = {"families": f"tasks.sets.{rest}.family", "sizes": f"corpus.domains.{rest}"}
        if name.startswith(sections):
            yield written.get(section, name), there, here


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return the fields in which two configurations differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        changes: list[tuple[str, Any, Any]] = []
        for key in dict.fromkeys([*now, *before]):
            inner = f"{name}.{key}" if name else str(key)
            changes += differences(before.get(key), now.get(key), inner)
        return changes
    there, here = ("absent" if value is None else value for value in (before, now))
    return [] if before == now else [(name, there, here)]


def _parted(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with a section each for what other steps depend on than its own.

    Stated sizes of domains become `sizes`, families of tasks `families`; patience is left out. Of a
    domain without text the size is all that is prepared, and stays.
    """
    parted = dict(content)
    if isinstance(content.get("proxy"), dict):
        parted["proxy"] = _proxy(content["proxy"])
    if domains := _sections(content, "corpus.domains"):
        own = {n: any(one.get(name) is not None for name in _TEXT) for n, one in domains.items()}
        rest = {n: _without(one, *_SIZES) if own[n] else one for n, one in domains.items()}
        sizes = {n: {f: one[f] for f in _SIZES if f in one} for n, one in domains.items()}
        parted |= {"corpus": {**content["corpus"], "domains": rest}, "sizes": sizes}
    if sets := _sections(content, "tasks.sets"):
        rest = {name: _without(one, "family") for name, one in sets.items()}
        families = {name: one["family"] for name, one in sets.items() if one.get("family")}
        parted |= {"tasks": {**content["tasks"], "sets": rest}, "families": families}
    return parted


def _proxy(proxy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the proxy that its trials depend on."""
    values = _without(proxy, *PATIENCE)
    # Results of trials are those of evaluating at the end alone.
    values["eval_every"] = values.get("eval_every") or 0
    if _section(values, "options.start_hash") is not None:
        values.pop("from", None)  # a checkpoint that was moved is the same one
    return values


def _without(values: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in fields}


def _section(content: Any, place: str) -> Any:
    for part in place.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _sections(content: Any, place: str) -> dict[str, dict[str, Any]]:
    """Return the sections of a place by name; none where it has something else."""
    section = _section(content, place)
    if isinstance(section, dict) and all(isinstance(one, dict) for one in section.values()):
        return section
    return {}
