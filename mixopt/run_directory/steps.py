"""The steps of a run in order: dependencies, outputs and fingerprints."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import RunError, did_you_mean
from mixopt.sweeps import WORK, trial_paths

START_FILE = "start.json"  # start checkpoint of trials (mixopt.run_directory.trial_records)
RECOMMENDATION = "recommendation.yaml"
PROPOSAL = "proposal.yaml"
LATER_PROPOSALS = "later_proposals"

FORMAT = "mixopt/1"
PATIENCE = ("timeout", "retries")  # of a command proxy
READING = ("result", "losses", "unit")  # how a command's results are read
_SIZES = ("tokens", "bytes")
_TEXT = ("environment", "path", "data_files", "mixed")  # fields of a source with text


@dataclass(frozen=True)
class Step:
    """One step of a run; files and folders are relative to the run directory.

    Attributes:
        name: Its name on the command line and in `steps.json`.
        sections: Sections of the configuration that it depends on, beside those of earlier steps;
            `sizes` are the stated sizes of domains in `corpus`.
        outputs: Files and folders that it writes.
        optional: Files and folders that it may write.
        trials: Folder with a file for each of its trials; None if it trains nothing.
        experts: Table of its trials' experts, if they have any; among `optional`.
        artifacts: Patterns of the files for its parent run in MLflow; without any, it has no parent
            run.
    """

    name: str
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    trials: str | None = None
    experts: str | None = None
    artifacts: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """All files and folders that it may write."""
        return self.outputs + self.optional

    @property
    def checked(self) -> tuple[str, ...]:
        """Files to hash whenever its output is used."""
        return tuple(name for name in self.files if name not in ("corpus", self.trials))

    @property
    def shared(self) -> tuple[str, ...]:
        """Folders of tasks on other hosts, which may still write after the step has ended."""
        if not self.trains:
            return ()
        return (f"{self.trials}/{WORK}",)

    @property
    def trains(self) -> bool:
        """Whether it trains trials."""
        return self.trials is not None

    @property
    def acts(self) -> bool:
        """Whether it reads outside the directory or trains, which needs trust."""
        return self.trains or self.name == "prepare"

    def trial_folder(self, directory: Path) -> Path:
        """Return the folder of its trials in a run directory."""
        assert self.trials is not None, f"{self.name} trains nothing"
        return directory / self.trials

    def trial_files(self, directory: Path) -> list[Path]:
        """Return the files of its trials in a run directory; empty if it trains nothing."""
        if not self.trains:
            return []
        return trial_paths(self.trial_folder(directory))

    def experts_file(self, directory: Path) -> Path:
        """Return the path of its table of experts in a run directory."""
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
    ("proxy", "sweep.stop"),
    ("trials", "trials.parquet"),
    trials="trials",
    optional=(START_FILE, "experts.parquet"),
    experts="experts.parquet",
    artifacts=(
        "config.yaml",
        "design.parquet",
        "trials.parquet",
        "experts.parquet",
        "trials/attempts.jsonl",
        "fit/fit.json",
        "fit/report.parquet",
        "fit/held_out.parquet",
        PROPOSAL,
        "figures/*.svg",
        "report.html",
        RECOMMENDATION,
    ),
)
FIT = Step("fit", ("fit", "objective", "families"), ("fit",))
PROPOSE = Step("propose", ("propose",), (PROPOSAL,))
VALIDATE = Step(
    "validate",
    ("validate",),
    ("validation", "validation.parquet", RECOMMENDATION),
    optional=(LATER_PROPOSALS, "validation_experts.parquet"),
    trials="validation",
    experts="validation_experts.parquet",
    artifacts=(
        RECOMMENDATION,
        f"{LATER_PROPOSALS}/*.yaml",
        "validation.parquet",
        "validation_experts.parquet",
        "validation/attempts.jsonl",
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
    """Return the steps before a step."""
    return STEPS[: STEPS.index(step)]


def steps_until(step: Step) -> tuple[Step, ...]:
    """Return a step and all earlier steps."""
    return STEPS[: STEPS.index(step) + 1]


def steps_from(step: Step) -> tuple[Step, ...]:
    """Return a step and all later steps."""
    return STEPS[STEPS.index(step) :]


def step_fingerprints(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprint of each step for a configuration as plain values.

    A step's fingerprint is a hash of its sections and of the fingerprint of the step before.
    """
    fingerprints: dict[str, str] = {}
    fingerprint = FORMAT
    sections = _by_section(content)
    for step in STEPS:
        values = {section: _section(sections, section) for section in step.sections}
        if values.get("sweep.stop", "other step") is None:
            del values["sweep.stop"]  # trials are those of runs that do not have the field
        text = fingerprint + json.dumps(values, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        fingerprints[step.name] = fingerprint
    return fingerprints


def step_differences(
    step: Step, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields that change a step's fingerprint, with both values."""
    sections: tuple[str, ...] = ()
    for needed in steps_until(step):
        sections += needed.sections
    for name, recorded, current in differences(_by_section(before), _by_section(now)):
        if name.startswith(sections):
            yield _field(name), recorded, current


def _field(name: str) -> str:
    """Return the field of the configuration that a field of `_by_section` comes from."""
    section, _, rest = name.partition(".")
    if section == "families":
        return f"tasks.sets.{rest}.family"
    if section == "sizes":
        return f"corpus.domains.{rest}"
    return name


def differences(before: Any, now: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Return the differing fields of two configurations, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        changes: list[tuple[str, Any, Any]] = []
        for key in dict.fromkeys([*now, *before]):
            inner = f"{name}.{key}" if name else str(key)
            changes += differences(before.get(key), now.get(key), inner)
        return changes
    if before == now:
        return []
    recorded = "absent" if before is None else before
    current = "absent" if now is None else now
    return [(name, recorded, current)]


def _by_section(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration split into sections by dependent steps.

    Stated sizes of domains become `sizes`, families of tasks `families`; patience is left out.
    """
    sections = dict(content)
    proxy = content.get("proxy")
    if isinstance(proxy, dict):
        sections["proxy"] = _proxy(proxy)
    domains = _sections(content, "corpus.domains")
    if domains:
        prepared = {name: _prepared(domain) for name, domain in domains.items()}
        sections["corpus"] = {**content["corpus"], "domains": prepared}
        sections["sizes"] = {name: _only(domain, _SIZES) for name, domain in domains.items()}
    sets = _sections(content, "tasks.sets")
    if sets:
        scored = {name: _without(task, ["family"]) for name, task in sets.items()}
        sections["tasks"] = {**content["tasks"], "sets": scored}
        sections["families"] = {
            name: task["family"] for name, task in sets.items() if task.get("family")
        }
    return sections


def _prepared(domain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields that preparation depends on: the size only of a domain without text."""
    has_text = any(domain.get(name) is not None for name in _TEXT)
    return _without(domain, _SIZES) if has_text else domain


def _proxy(proxy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the proxy that its trials depend on."""
    values = _without(proxy, PATIENCE)
    # The curve does not affect the results of trials.
    values["eval_every"] = values.get("eval_every") or 0
    if _section(values, "options.start_hash") is not None:
        values.pop("from", None)  # a moved checkpoint is the same
    return values


def _without(values: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in fields}


def _only(values: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in fields if name in values}


def _section(content: Any, place: str) -> Any:
    for part in place.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _sections(content: Any, place: str) -> dict[str, dict[str, Any]]:
    """Return the sections of a mapping by name; empty for anything else."""
    section = _section(content, place)
    if isinstance(section, dict) and all(isinstance(value, dict) for value in section.values()):
        return section
    return {}
