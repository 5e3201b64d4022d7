"""Check a whole run directory against its manifest: the library side of `mixopt verify`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from mixopt.errors import MixoptError
from mixopt.run_directory.run import Run
from mixopt.run_directory.step import STEPS, Step
from mixopt.run_directory.step_records import PROPOSAL
from mixopt.sweeps import read_entry
from mixopt.system import Verifier, visible_files

State = Literal["whole", "damaged", "edited", "outdated", "unfinished", "waiting"]


@dataclass(frozen=True)
class CheckedPart:
    """What was found of one part of a directory."""

    name: str
    state: State
    files: int = 0
    bytes: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "part": self.name,
            "state": self.state,
            "files": self.files,
            "bytes": self.bytes,
            "faults": self.faults,
            "fix": self.fix,
        }


def verify_run(run: Run, *, deep: bool = False) -> list[CheckedPart]:
    """Check what each step of a run left."""
    verifier = Verifier(run.path)
    return [_checked(run, step, verifier, deep=deep) for step in STEPS]


def _checked(run: Run, step: Step, verifier: Verifier, *, deep: bool) -> CheckedPart:
    record = run.manifest.steps.get(step.name)
    if record is None:
        return CheckedPart(step.name, "waiting")
    if record.seconds is None:
        faults = dict(_faults_of_trials(run, step))
        state: State = "damaged" if faults else "unfinished"
        count = len(step.trial_files(run.path))
        return CheckedPart(step.name, state, count, 0, faults, _fix(run, step, faults))
    faults = verifier.faults(record.files, deep=deep)
    unknown = {
        path.relative_to(run.path).as_posix()
        for output in step.files
        for path in visible_files(run.path / output)
        if not any(path.is_relative_to(run.path / folder) for folder in step.shared)
    } - record.files.keys()
    faults |= dict.fromkeys(sorted(unknown), "was not written by this step")
    edited = bool(faults) and faults.keys() <= set(step.editable)
    size = sum(file.bytes for file in record.files.values())
    state = "edited" if edited else "damaged" if faults else "whole"
    outdated = run.manifest.outdated(step)
    if state == "whole" and outdated is not None:
        state, faults = "outdated", {step.name: outdated.partition(": ")[2]}
    return CheckedPart(step.name, state, len(record.files), size, faults, _fix(run, step, faults))


def _faults_of_trials(run: Run, step: Step) -> Iterator[tuple[str, str]]:
    """Yield the results of an unfinished step that are damaged, or of another configuration."""
    files = step.trial_files(run.path)
    if not files:
        return
    made_by = run.trial_fingerprint(step.name)
    for path in files:
        try:
            read_entry(path, made_by)
        except MixoptError as error:
            name = path.relative_to(run.path).as_posix()
            yield name, str(error).removeprefix(f"{path}: ")


def _fix(run: Run, step: Step, faults: dict[str, str]) -> str:
    """Return the command that makes a step's broken files again; what is whole is kept."""
    if not faults:
        return ""
    if step.editable and PROPOSAL in faults:
        return run.command("run", "--from", step.name)
    trials = [name for name in faults if step.trains and name.startswith(f"{step.trials}/")]
    again = run.command(step.name)
    return f"rm {' '.join(str(run.path / name) for name in trials)}; {again}" if trials else again
