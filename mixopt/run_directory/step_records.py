"""`steps.json`: the steps that are started or finished, and the output of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import Field

from mixopt.errors import RunError
from mixopt.run_directory.step import PROPOSE, STEPS, Step, steps_before
from mixopt.system import (
    FileRecord,
    FileShape,
    Verifier,
    below,
    file_record,
    folder_records,
    read_json,
    read_sealed,
    write_sealed,
)

FORMAT = "mixopt-steps/1"
NAME = "steps.json"
PROPOSAL = PROPOSE.outputs[0]


class StepRecord(FileShape):
    """What is noted of a step."""

    fingerprint: str
    seconds: float | None = Field(ge=0)
    files: dict[str, FileRecord] = {}  # noqa: RUF012 (pydantic copies it)
    proposal: FileRecord | None = None


class _StepsShape(FileShape):
    format: str
    steps: dict[str, StepRecord]


def read_steps(directory: Path) -> dict[str, StepRecord]:
    """Read what is noted of the steps of a run, by name; nothing where nothing is."""
    path = directory / NAME
    if not path.exists():
        return {}
    content = read_json(path)
    given = content.get("format") if isinstance(content, dict) else None
    again = "restore it from a copy, or make the run again in another folder"
    if given != FORMAT:
        raise RunError(f"{path}: format {given!r}, not {FORMAT!r}; {again}")
    found: _StepsShape = read_sealed(path, _StepsShape, mend=again)
    for record in found.steps.values():
        for name in record.files:
            below(directory, name)
    return found.steps


def write_steps(directory: Path, steps: Mapping[str, StepRecord]) -> None:
    """Write what is noted of the steps of a run, at once."""
    entries = {name: record.model_dump(mode="json") for name, record in steps.items()}
    write_sealed(directory / NAME, {"format": FORMAT, "steps": entries})


class Manifest:
    """What the steps of a run left, and whether it still is that."""

    def __init__(self, directory: Path) -> None:
        """Read nothing yet."""
        self._path = directory
        self._read: tuple[tuple[int, ...], dict[str, StepRecord]] | None = None
        self._verifier = Verifier(directory)

    @property
    def steps(self) -> dict[str, StepRecord]:
        """What is noted of each step that is begun or finished, by name."""
        try:
            stat = (self._path / NAME).stat()
        except OSError:
            return {}
        mark = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
        if self._read is None or self._read[0] != mark:
            self._read = (mark, read_steps(self._path))
        return self._read[1]

    def begin(self, step: str, fingerprint: str) -> None:
        """Note that a step is begun."""
        self._note(step, StepRecord(fingerprint=fingerprint, seconds=None))

    def end(self, step: Step, fingerprint: str, seconds: float) -> None:
        """Note that a step is finished, what it left, and what it changed of an earlier one."""
        for earlier in steps_before(step) if step.rewrites else ():
            kept = self.steps.get(earlier.name)
            if kept is not None and set(step.rewrites) & set(earlier.outputs):
                again = folder_records(self._path, step.rewrites)
                self._note(earlier.name, kept.model_copy(update={"files": again}))
        used = file_record(self._path / PROPOSAL) if PROPOSE in steps_before(step) else None
        files = folder_records(self._path, step.files, without=step.shared)
        record = StepRecord(
            fingerprint=fingerprint, seconds=round(seconds, 3), files=files, proposal=used
        )
        self._note(step.name, record)

    def forget(self, steps: Collection[str]) -> None:
        """Note nothing of some steps any more."""
        if self.steps:
            kept = {name: record for name, record in self.steps.items() if name not in steps}
            write_steps(self._path, kept)

    def fault(self, step: Step) -> str | None:
        """Say what is wrong with a file that a finished step left; None where all is whole."""
        record = self._finished(step)
        if record is None:
            return None
        quick = {
            name: file
            for name, file in record.files.items()
            if name.split("/")[0] in step.checked and not self._is_in_work(name)
        }
        for name, what in self._verifier.faults(quick).items():
            return f"{self._path / name}: {what}"
        for name in record.files if step.trains else ():
            if not below(self._path, name).exists():
                return f"{self._path / name}: is missing"
        return self.outdated(step)

    def outdated(self, step: Step) -> str | None:
        """Say that a finished step is of another proposal than the one that is there, if it is."""
        record = self._finished(step)
        used = None if record is None else record.proposal
        if used is None or self._verifier.fault(PROPOSAL, used) is None:
            return None
        return (
            f"{self._path / step.name}: is for another mixture than {PROPOSAL}, which has changed"
        )

    @property
    def is_edited(self) -> bool:
        """Whether somebody has edited proposal.yaml since the step wrote it."""
        record = self._finished(PROPOSE)
        known = None if record is None else record.files.get(PROPOSAL)
        return known is not None and self._verifier.fault(PROPOSAL, known) is not None

    def _note(self, step: str, record: StepRecord) -> None:
        write_steps(self._path, {**self.steps, step: record})

    def _finished(self, step: Step) -> StepRecord | None:
        record = self.steps.get(step.name)
        return None if record is None or record.seconds is None else record

    def _is_in_work(self, name: str) -> bool:
        """Tell whether a later step that is not finished may be changing a file."""
        begun = [step for step in STEPS if step.name in self.steps and not self._finished(step)]
        return any(name in step.rewrites for step in begun)
