"""The steps of a run, in order: dependencies, outputs, records and fingerprints of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import RunError, did_you_mean
from mixopt.run_directory.start_record import START_FILE
from mixopt.sweeps import WORK, trial_paths


@dataclass(frozen=True)
class Step:
    """One step of a run; files and folders are relative to the run directory.

    Attributes:
        name: What it is called on the command line and in `steps.json`.
        sections: Sections of the configuration that it depends on, beside those of the steps
            before it; `sizes` are what `corpus` states of whole domains.
        outputs: Files and folders that it leaves.
        trials: Folder in which each of its trials has a file; None where it trains nothing.
        optional: Files and folders that it leaves where there is something to say.
        experts: Table of what the experts of its trials were given, left where they have experts
            (mixopt.run_directory.expert_table).
        artifacts: Patterns of the files that its parent run in MLflow has; a step without any has
            no parent run.
        rewrites: Files of an earlier step that it changes while it runs.
        editable: Outputs that a person may edit; they are then no longer the step's.
        completes_records: Whether it leaves files for the parent runs of the steps before it.
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
    completes_records: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that it may leave."""
        experts = () if self.experts is None else (self.experts,)
        return (*self.outputs, *self.optional, *experts)

    @property
    def checked(self) -> tuple[str, ...]:
        """What is hashed whenever its output is used."""
        own = ("corpus", self.trials)
        return tuple(name for name in self.files if name not in (*own, *self.editable))

    @property
    def shared(self) -> tuple[str, ...]:
        """Folders where tasks on other hosts write: they may do so after the step has ended."""
        return (f"{self.trials}/{WORK}",) if self.trains else ()

    @property
    def trains(self) -> bool:
        """Whether it trains trials."""
        return self.trials is not None

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


RECOMMENDATION = "recommendation.yaml"
LATER_PROPOSALS = "later_proposals"

PREPARE = Step("prepare", ("seed", "corpus", "evaluation", "tasks"), ("corpus",))
DESIGN = Step(
    "design", ("sizes", "design", "constraints", "propose.target_tokens"), ("design.parquet",)
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
        "config.yaml",
        "design.parquet",
        "trials.parquet",
        "experts.parquet",
        "trials/attempts.jsonl",
        "fit/fit.json",
        "fit/report.parquet",
        "fit/held_out.parquet",
        "proposal.yaml",
        "figures/[!v]*.svg",
        "figures/[!v]*.png",
        "report.html",
        RECOMMENDATION,
    ),
)
FIT = Step("fit", ("fit", "objective", "families"), ("fit",))
PROPOSE = Step(
    "propose",
    ("propose",),
    ("proposal.yaml",),
    editable=("proposal.yaml",),
)
VALIDATE = Step(
    "validate",
    ("validate",),
    ("validation", "validation.parquet", RECOMMENDATION),
    optional=(LATER_PROPOSALS,),
    trials="validation",
    experts="validation_experts.parquet",
    artifacts=(
        RECOMMENDATION,
        f"{LATER_PROPOSALS}/*.yaml",
        "validation.parquet",
        "validation_experts.parquet",
        "validation/attempts.jsonl",
        "figures/v*.svg",
        "figures/v*.png",
    ),
)
REPORT = Step("report", ("name",), ("report.html", "figures"), completes_records=True)

STEPS: tuple[Step, ...] = (PREPARE, DESIGN, SWEEP, FIT, PROPOSE, VALIDATE, REPORT)


# Commands that read what is elsewhere, connect or train: a directory's own record alone does not.
ACTING = (PREPARE.name, SWEEP.name, VALIDATE.name, "run")


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
SIZES, TASKS, FAMILIES = "sizes", "tasks", "families"
PATIENCE = ("timeout", "retries")  # of a command that trains the trials
CURVE = "eval_every"
START, START_HASH = "from", "from_hash"  # what trials begin with
READING = ("result", "losses", "unit")  # how its results are read


def step_fingerprints(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprint of each step, by name, of a configuration as plain values."""
    found: dict[str, str] = {}
    before, parted = FORMAT, _parted(content)
    for step in STEPS:
        values = {section: _section(parted, section.split(".")) for section in step.sections}
        if SIZES in values and not any((values[SIZES] or {}).values()):  # none are stated
            del values[SIZES]
        for absent in (TASKS, FAMILIES):
            if not values.get(absent, absent):  # there are none
                del values[absent]
        text = before + json.dumps(values, sort_keys=True)
        before = found[step.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def step_differences(
    step: Step, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields, with both values, that give a step another fingerprint."""
    sections = tuple(name for one in (*steps_before(step), step) for name in one.sections)
    found = differences(_parted(before), _parted(now))
    return (
        (_as_written(name), there, here) for name, there, here in found if name.startswith(sections)
    )


def _as_written(name: str) -> str:
    """Return the field of the YAML that is meant by one of the parted sections."""
    section, _, rest = name.partition(".")
    if section == FAMILIES:
        return f"{TASKS}.sets.{rest}.family"
    return f"corpus.domains.{rest}" if section == SIZES else name


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return the fields in which two configurations differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[tuple[str, Any, Any]] = []
        for key in [*now, *(key for key in before if key not in now)]:
            inner = f"{name}.{key}" if name else str(key)
            found += differences(before.get(key), now.get(key), inner)
        return found
    return [] if before == now else [(name, _short(before), _short(now))]


def _parted(content: Mapping[str, Any]) -> dict[str, Any]:
    """Move stated sizes and families of tasks to sections of their own; leave patience out."""
    return _with_families_apart(_with_sizes_apart(content))


def _with_families_apart(content: dict[str, Any]) -> dict[str, Any]:
    tasks = content.get(TASKS)
    sets = tasks.get("sets") if isinstance(tasks, dict) else None
    if not isinstance(tasks, dict) or not isinstance(sets, dict):
        return content
    named = {name: one for name, one in sets.items() if isinstance(one, dict)}
    families = {name: one["family"] for name, one in named.items() if one.get("family")}
    rest = {name: {k: v for k, v in one.items() if k != "family"} for name, one in named.items()}
    return {**content, TASKS: {**tasks, "sets": {**sets, **rest}}, FAMILIES: families}


def _with_sizes_apart(content: Mapping[str, Any]) -> dict[str, Any]:
    """Move the sizes that are stated of domains out of `corpus`; leave patience out."""
    proxy = content.get("proxy")
    if isinstance(proxy, dict):
        kept = {name: value for name, value in proxy.items() if name not in PATIENCE}
        if kept.get(CURVE) is None:
            kept[CURVE] = 0  # results of trials are those of evaluating at the end alone
        if kept.get(START_HASH) is not None:
            kept.pop(START, None)  # a checkpoint that was moved is the same one
        content = {**content, "proxy": kept}
    corpus = content.get("corpus")
    domains = corpus.get("domains") if isinstance(corpus, dict) else None
    if not isinstance(corpus, dict) or not isinstance(domains, dict):
        return dict(content)
    if not all(isinstance(source, dict) for source in domains.values()):
        return dict(content)
    sizes = {name: _picked(source, stated=True) for name, source in domains.items()}
    # Of a domain without text the size is all that is prepared.
    rest = {
        name: _picked(source, stated=False) if _has_text(source) else source
        for name, source in domains.items()
    }
    return {**content, "corpus": {**corpus, "domains": rest}, SIZES: sizes}


def _picked(source: dict[str, Any], *, stated: bool) -> dict[str, Any]:
    return {k: value for k, value in source.items() if (k in ("tokens", "bytes")) == stated}


def _has_text(source: dict[str, Any]) -> bool:
    return any(
        source.get(name) is not None for name in ("environment", "path", "data_files", "mixed")
    )


def _section(content: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _short(value: Any) -> Any:
    return "absent" if value is None else value
