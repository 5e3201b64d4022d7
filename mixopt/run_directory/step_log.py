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

NAME, RECORD = "steps.json", "config.yaml"
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
        return {"part" if name == "name" else name: value for name, value in vars(self).items()}


class StepLog:
    """Records of a run's steps, checked against files and configuration."""

    def __init__(self, path: Path, content: Mapping[str, Any], command: Callable[..., str]) -> None:
        """Store directory, configuration, and a function that returns commands; reads nothing."""
        self.path = path
        self._content = content
        self._command = command
        self._read: tuple[Any, dict[str, StepRecord]] = (None, {})
        self._verifier = Verifier(path)

    @property
    def records(self) -> dict[str, StepRecord]:
        """Records of started and finished steps, by name."""
        try:
            mark = file_mark((self.path / NAME).stat())
        except OSError:
            return {}
        if self._read[0] != mark:  # another process may change it
            self._read = (mark, read_steps(self.path))
        return self._read[1]

    @property
    def seconds(self) -> dict[str, float]:
        """Duration of each finished step."""
        return {n: r.seconds for n, r in self.records.items() if r.seconds is not None}

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
        checked_step, record = step_named(step), self.records.get(step)
        if record is None:
            return CheckedPart(step, "waiting")
        state: State = "whole"
        if record.seconds is None:
            files, size = len(checked_step.trial_files(self.path)), 0
            faults = dict(self._faults_of_trials(checked_step)) if all_files else {}
            state = "damaged" if faults else "unfinished"
        else:
            files, size = len(record.files), sum(file.bytes for file in record.files.values())
            chosen = record.files if all_files else self._used(checked_step, record)
            used = record.proposal
            faults = self._verifier.faults(chosen, deep=deep)
            faults |= self._missing_trials(checked_step, record, all_files)
            if faults:
                state = "edited" if faults.keys() <= {PROPOSAL} else "damaged"
            elif used is not None and self._verifier.fault(PROPOSAL, used) is not None:
                fault = f"is for another mixture than {PROPOSAL}, which has changed"
                state, faults = "outdated", {step: fault}
        return CheckedPart(step, state, files, size, faults, self._fix(checked_step, faults))

    def standing(self, step: str) -> tuple[str, str]:
        """Return a step's state as in `mixopt status`, and its fault."""
        if self.is_done(step):
            return "done", ""
        part, fault = self.state(step), self.fault(step)
        if fault is None and part.state == "unfinished":
            return ("running" if is_in_use(self.path) else "interrupted"), ""
        return ("waiting" if fault is None else part.state), fault or ""

    def fault(self, step: str) -> str | None:
        """Return the fault of a finished step's output; None if it is undamaged."""
        part = self.state(step)
        if part.state not in ("damaged", "outdated"):
            return None
        name, fault = next(iter(part.faults.items()))
        return f"{self.path / name}: {fault}"

    def is_done(self, step: str) -> bool:
        """Return whether a step's output is undamaged and belongs to this configuration."""
        record, checked_step = self.records.get(step), step_named(step)
        if record is None or not self._holds(checked_step, record):
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
        record, fingerprint = self.records.get(step), self.fingerprint(step)
        if record is not None and record.fingerprint != fingerprint:
            self.discard(step)
        self._note(step, StepRecord(fingerprint=fingerprint, seconds=None))

    def end(self, step: str, seconds: float) -> None:
        """Record the end of a step, its outputs, and the rounds that a sweep adds to the design."""
        ended, design = step_named(step), self.records.get(DESIGN.name)
        if ended is SWEEP and design is not None:
            files = folder_records(self.path, DESIGN.files)
            self._note(DESIGN.name, design.model_copy(update={"files": files}))
        uses_proposal = PROPOSE in steps_before(ended)
        record = StepRecord(
            fingerprint=self.fingerprint(step),
            seconds=round(seconds, 3),
            files=folder_records(self.path, ended.files, without=ended.shared),
            proposal=file_record(self.path / PROPOSAL) if uses_proposal else None,
        )
        self._note(step, record)

    def discard(
        self, first: str, *, keep: Sequence[str] = (), only: bool = False, files: bool = True
    ) -> None:
        """Delete a step's outputs, and those of later steps unless `only`.

        Names in `keep` are kept, and without `files` also files of an own trainer.
        """
        first_step = step_named(first)
        later = (first_step,) if only else steps_from(first_step)
        names = [step.name for step in later]
        if records := self.records:
            write_steps(self.path, {n: record for n, record in records.items() if n not in names})
        for name in [name for step in later for name in step.files]:
            if Path(name).name not in keep:
                _delete(self.path / name, keep=None if files else FILES)

    @property
    def only_reads_otherwise(self) -> bool:
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
        # An unfinished sweep may change the design now.
        in_work = DESIGN.outputs if sweep is not None and sweep.seconds is None else ()
        names = set(step.checked) - set(in_work)
        return {name: file for name, file in record.files.items() if name.split("/")[0] in names}

    def _missing_trials(self, step: Step, record: StepRecord, all_files: bool) -> dict[str, str]:
        """Return the missing trials of a step; with `all_files`, also unknown ones."""
        if not all_files:
            names = record.files if step.trains else ()
            return {n: "is missing" for n in names if not below(self.path, n).exists()}
        present = set(folder_files(self.path, step.files, without=step.shared))
        return dict.fromkeys(sorted(present - record.files.keys()), "was not written by this step")

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
        of_trials = [n for n in faults if step.trains and n.startswith(f"{step.trials}/")]
        rm = f"rm {' '.join(str(self.path / name) for name in of_trials)}; " if of_trials else ""
        return f"{rm}{self._command(until=step.name)}"

    def _holds(self, step: Step, record: StepRecord) -> bool:
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
