"""`steps.json`: the steps that are begun or finished, and what each left.

format      of this file
steps       by name: the fingerprint of the configuration, seconds (null until it is finished),
size and SHA-256 of each file that it left, and of the proposal that it used
sha256      the seal of all that (mixopt.system.seals)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from mixopt.errors import RunError
from mixopt.system import FileRecord, FileShape, inside, read_json, read_sealed, write_sealed

FORMAT = "mixopt-steps/1"
NAME = "steps.json"


class StepRecord(FileShape):
    """What is noted of a step.

    Attributes:
        fingerprint: Of the configuration that it was made from.
        seconds: How long it took; None until it is finished.
        files: What it left, by path in the run directory.
        proposal: What proposal.yaml was when a step after it ended; None before.
    """

    fingerprint: str
    seconds: float | None = Field(ge=0)
    files: dict[str, FileRecord] = {}  # noqa: RUF012 (pydantic copies it)
    proposal: FileRecord | None = None


class _StepsShape(FileShape):
    format: str
    steps: dict[str, StepRecord]


def read_steps(directory: Path) -> dict[str, StepRecord]:
    """Read what is noted of the steps of a run, by name; nothing where nothing is.

    Raises:
        RunError: steps.json is not what was written, or of another version.
    """
    path = directory / NAME
    if not path.exists():
        return {}
    content = read_json(path)
    given = content.get("format") if isinstance(content, dict) else None
    again = f"make the run again in another folder, or delete {path} to redo all steps"
    if given != FORMAT:
        raise RunError(f"{path}: format {given!r}, not {FORMAT!r}; {again}")
    found: _StepsShape = read_sealed(path, _StepsShape, mend=again)
    for record in found.steps.values():
        for name in record.files:
            inside(directory, name)
    return found.steps


def write_steps(directory: Path, steps: Mapping[str, StepRecord]) -> None:
    """Write what is noted of the steps of a run, at once."""
    entries = {name: record.model_dump(mode="json") for name, record in steps.items()}
    write_sealed(directory / NAME, {"format": FORMAT, "steps": entries})


def recorded_files(directory: Path) -> dict[str, FileRecord]:
    """Return the files that the finished steps of a run left, by path in its directory.

    Raises:
        RunError: steps.json is not what was written.
    """
    return {
        name: file
        for record in read_steps(directory).values()
        for name, file in record.files.items()
    }
