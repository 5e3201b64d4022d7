"""`steps.json`: outputs of each step with their hashes; and the present state of each step."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mixopt.corpus import Corpus, corpus_hash
from mixopt.errors import MixoptError, RunError
from mixopt.run_directory.steps import (
    DESIGN,
    PROPOSAL,
    PROPOSE,
    READING,
    SWEEP,
    Step,
    step_differences,
    step_fingerprints,
    step_named,
    steps_before,
    steps_from,
)
from mixopt.sweeps import FILES, read_entry, trial_fingerprint
from mixopt.system import (
    FileRecord,
    FileShape,
    Verifier,
    below,
    file_mark,
    file_record,
    folder_files,
    folder_records,
    is_in_use,
    read_sealed,
    read_yaml,
    write_sealed,
)

NAME = "steps.json"
RECORD = "config.yaml"
State = Literal["whole", "damaged", "edited", "outdated", "unfinished", "waiting"]


class StepRecord(FileShape):
    """Record of a step."""

    fingerprint: str
    seconds: float | None = Field(ge=0)
    files: dict[str, FileRecord] = {}  # noqa: RUF012 (pydantic copies it)
    proposal: FileRecord | None = None


class _StepsShape(FileShape):
    format: Literal["mixopt-steps/1"] = "mixopt-steps/1"
    steps: dict[str, StepRecord]


@dataclass(frozen=True)
class CheckedPart:
    """State of one part of a directory: a step, a checkpoint, a configuration."""

    name: str
    state: State
    files: int = 0
    bytes: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values = dict(vars(self))
        return {"part": values.pop("name"), **values}


class StepLog:
    """Records of a run's steps, checked against files and configuration."""

    def __init__(self, path: Path, content: Mapping[str, Any], command: Callable[..., str]) -> None:
        """Store directory, configuration, and a function that returns commands; reads nothing."""
        self.path = path
        self._content = content
        self._command = command
        self._records: dict[str, StepRecord] = {}
        self._mark_of_records: Any = None
        self._verifier = Verifier(path)

    @property
    def records(self) -> dict[str, StepRecord]:
        """Records of started and finished steps, by name."""
        try:
            mark = file_mark((self.path / NAME).stat())
        except OSError:
            return {}
        if mark != self._mark_of_records:  # another process may change it
            self._records = read_steps(self.path)
            self._mark_of_records = mark
        return self._records

    @property
    def seconds(self) -> dict[str, float]:
        """Duration of each finished step."""
        return {
            name: record.seconds
            for name, record in self.records.items()
            if record.seconds is not None
        }

    def fingerprint(self, step: str) -> str:
        """Return the fingerprint of a step under this configuration."""
        return step_fingerprints(self._content)[step]

    def trial_fingerprint(self, step: str) -> str:
        """Return the fingerprint of a step's trials: a hash of configuration and corpus."""
        return trial_fingerprint(self.fingerprint(step), corpus_hash(self.path / "corpus"))

    def state(self, step: str, *, all_files: bool = False, deep: bool = False) -> CheckedPart:
        """Return the state of a step, for `status`, `run`, `export` and `verify`.

        `all_files` checks all files, also trials of an unfinished step, and not only those that
        readers open; `deep` hashes files again even if verified before.
        """
        record = self.records.get(step)
        if record is None:
            return CheckedPart(step, "waiting")
        if record.seconds is None:
            return self._unfinished_state(step_named(step), all_files)
        return self._finished_state(step_named(step), record, all_files, deep)

    def _unfinished_state(self, step: Step, all_files: bool) -> CheckedPart:
        faults = dict(self._faults_of_trials(step)) if all_files else {}
        return CheckedPart(
            step.name,
            "damaged" if faults else "unfinished",
            files=len(step.trial_files(self.path)),
            faults=faults,
            fix=self._fix(step, faults),
        )

    def _finished_state(
        self, step: Step, record: StepRecord, all_files: bool, deep: bool
    ) -> CheckedPart:
        chosen = record.files if all_files else self._used(step, record)
        faults = self._verifier.faults(chosen, deep=deep)
        faults |= self._missing_trials(step, record, all_files)
        state: State = "whole"
        if faults:
            state = "edited" if faults.keys() <= {PROPOSAL} else "damaged"
        elif self._is_of_another_proposal(record):
            state = "outdated"
            faults = {step.name: f"is for another mixture than {PROPOSAL}, which has changed"}
        return CheckedPart(
            step.name,
            state,
            files=len(record.files),
            bytes=sum(file.bytes for file in record.files.values()),
            faults=faults,
            fix=self._fix(step, faults),
        )

    def _is_of_another_proposal(self, record: StepRecord) -> bool:
        proposal = record.proposal
        return proposal is not None and self._verifier.fault(PROPOSAL, proposal) is not None

    def standing(self, step: str) -> tuple[str, str]:
        """Return a step's state as in `mixopt status`, and its fault."""
        if self.is_done(step):
            return "done", ""
        state = self.state(step).state
        fault = self.fault(step)
        if fault is not None:
            return state, fault
        if state != "unfinished":
            return "waiting", ""
        return ("running", "") if is_in_use(self.path) else ("interrupted", "")

    def fault(self, step: str) -> str | None:
        """Return the fault of a finished step's output; None if it is undamaged."""
        part = self.state(step)
        if part.state not in ("damaged", "outdated"):
            return None
        faults = [f"{self.path / name}: {fault}" for name, fault in part.faults.items()]
        return faults[0]

    def is_done(self, step: str) -> bool:
        """Return whether a step's output is undamaged and belongs to this configuration."""
        checked_step = step_named(step)
        record = self.records.get(step)
        if record is None or not self._has_output(checked_step, record):
            return False
        if record.fingerprint != self.fingerprint(step):
            raise RunError(self._stale(checked_step))
        return self.state(step).state in ("whole", "edited")

    def require(self, step: str) -> None:
        """Raise RunError unless an earlier step is done and its output undamaged."""
        if not self.is_done(step):
            why = self.fault(step) or f"{self.path}: '{step}' is not done yet"
            raise RunError(f"{why}: {self._command(until=step)}")

    def check_before(self, step: str) -> None:
        """Check the inputs of a step before it runs."""
        next_step = step_named(step)
        is_done = [self.is_done(earlier.name) for earlier in steps_before(next_step)]
        if next_step.trains and all(is_done):
            Corpus.open(self.path / "corpus")

    def begin(self, step: str) -> None:
        """Record the start of a step, so that another configuration cannot resume its trials."""
        record = self.records.get(step)
        fingerprint = self.fingerprint(step)
        if record is not None and record.fingerprint != fingerprint:
            self.discard(step)
        self._note(step, StepRecord(fingerprint=fingerprint, seconds=None))

    def end(self, step: str, seconds: float) -> None:
        """Record the end of a step, its outputs, and the rounds that a sweep adds to the design."""
        ended_step = step_named(step)
        design = self.records.get(DESIGN.name)
        if ended_step is SWEEP and design is not None:
            files = folder_records(self.path, DESIGN.files)
            self._note(DESIGN.name, design.model_copy(update={"files": files}))
        proposal = None
        if PROPOSE in steps_before(ended_step):
            proposal = file_record(self.path / PROPOSAL)
        record = StepRecord(
            fingerprint=self.fingerprint(step),
            seconds=round(seconds, 3),
            files=folder_records(self.path, ended_step.files, without=ended_step.shared),
            proposal=proposal,
        )
        self._note(step, record)

    def discard(
        self, first: str, *, keep: Sequence[str] = (), only: bool = False, files: bool = True
    ) -> None:
        """Delete a step's outputs, and those of later steps unless `only`.

        File names in `keep` are kept; without `files`, so are the files of a user's own trainer.
        """
        first_step = step_named(first)
        later = (first_step,) if only else steps_from(first_step)
        records = dict(self.records)
        if records:
            for step in later:
                records.pop(step.name, None)
            write_steps(self.path, records)
        kept_folder = None if files else FILES
        for step in later:
            for name in step.files:
                if Path(name).name not in keep:
                    _delete(self.path / name, keep=kept_folder)

    @property
    def differs_only_in_reading(self) -> bool:
        """Whether the record differs only in how a trainer's results are read."""
        if not (self.path / RECORD).exists():
            return False
        before = read_yaml(self.path / RECORD, error=RunError)
        changed = [name for name, _, _ in step_differences(SWEEP, before, self._content)]
        reading = tuple(f"proxy.{name}" for name in READING)
        return bool(changed) and all(name.startswith(reading) for name in changed)

    def _used(self, step: Step, record: StepRecord) -> dict[str, FileRecord]:
        """Return the files to hash whenever a step's output is used."""
        sweep = self.records.get(SWEEP.name)
        names = set(step.checked)
        if sweep is not None and sweep.seconds is None:  # it may change the design now
            names -= set(DESIGN.outputs)
        return {name: file for name, file in record.files.items() if name.split("/")[0] in names}

    def _missing_trials(self, step: Step, record: StepRecord, all_files: bool) -> dict[str, str]:
        """Return the missing trials of a step; with `all_files`, its unknown files instead."""
        if all_files:
            present = set(folder_files(self.path, step.files, without=step.shared))
            unknown = sorted(present - record.files.keys())
            return dict.fromkeys(unknown, "was not written by this step")
        if not step.trains:
            return {}
        missing = [name for name in record.files if not below(self.path, name).exists()]
        return dict.fromkeys(missing, "is missing")

    def _faults_of_trials(self, step: Step) -> Iterator[tuple[str, str]]:
        """Yield results of an unfinished step that are damaged or of another configuration."""
        files = step.trial_files(self.path)
        fingerprint = self.trial_fingerprint(step.name) if files else ""
        for path in files:
            try:
                read_entry(path, fingerprint)
            except MixoptError as error:
                name = path.relative_to(self.path).as_posix()
                yield name, str(error).removeprefix(f"{path}: ")

    def _fix(self, step: Step, faults: Mapping[str, str]) -> str:
        """Return the command that repairs a step's damaged files and keeps the others."""
        if not faults:
            return ""
        if step is PROPOSE:
            return self._command("--from", step.name)
        command = self._command(until=step.name)
        if not step.trains:
            return command
        trials = [str(self.path / name) for name in faults if name.startswith(f"{step.trials}/")]
        return f"rm {' '.join(trials)}; {command}" if trials else command

    def _has_output(self, step: Step, record: StepRecord) -> bool:
        if record.seconds is None:
            return any(step.trial_files(self.path))
        return all((self.path / name).exists() for name in step.outputs)

    def _stale(self, step: Step) -> str:
        before = read_yaml(self.path / RECORD, error=RunError)
        changed = step_differences(step, before, self._content)
        field, recorded, current = next(changed, ("a field", "one value", "another"))
        return (
            f"{self.path}: '{step.name}' was made from another configuration: {field} is"
            f" {recorded} there and {current} here; use another --out, or redo it with:"
            f" {self._command('--from', step.name)}"
        )

    def _note(self, step: str, record: StepRecord) -> None:
        write_steps(self.path, {**self.records, step: record})


def read_steps(directory: Path) -> dict[str, StepRecord]:
    """Read the records of a run's steps, by name."""
    hint = "restore it from a copy, or make the run again in another folder"
    shape: _StepsShape = read_sealed(directory / NAME, _StepsShape, hint=hint)
    for record in shape.steps.values():
        for name in record.files:
            below(directory, name)
    return shape.steps


def write_steps(directory: Path, steps: Mapping[str, StepRecord]) -> None:
    """Write the records of a run's steps atomically."""
    write_sealed(directory / NAME, _StepsShape(steps=dict(steps)).model_dump(mode="json"))


def _delete(output: Path, *, keep: str | None) -> None:
    """Delete a file or folder, or all entries of a folder but one, without following links."""
    if not output.is_dir() or output.is_symlink():
        output.unlink(missing_ok=True)
    elif keep is None or not (output / keep).is_dir():
        shutil.rmtree(output)
    else:
        for path in output.iterdir():
            if path.name != keep:
                _delete(path, keep=None)
