"""The files of a checkpoint: their expected content, and checks of it.

`state.json` is written last, with the size and SHA-256 of each other file and a seal of its own; a
folder without it, or with a file that is not what it says, is not a checkpoint to resume from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from mixopt.errors import MixoptError, RunError
from mixopt.system import (
    FileRecord,
    Verifier,
    check_names,
    check_seal,
    checked_as,
    read_json,
    write_sealed,
)

FORMAT = "mixopt-pretrain/2"
STATE = "state.json"
_MEND = "restore the file from a copy, or remove the checkpoint to resume from the one before it"
_STEPS = Annotated[int, Field(ge=0, le=1 << 53, strict=True)]
_SHARE = Annotated[float, Field(ge=0, le=1)]
_HASH = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_THREADS = 8


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: _STEPS
    sha256: _HASH


class CheckpointState(BaseModel):
    """What a checkpoint holds besides tensors.

    Attributes:
        step: Steps taken.
        meter: What was measured since the last line of metrics.
        losses: Held-out losses when they were last evaluated, nats per token.
        weights: The mixture of the next batch.
        sampler: The state of the batches.
        mixture: The state of what changes the mixture.
        metrics_size: Bytes of the metrics so far.
        files: What each other file was when it was written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str
    step: _STEPS
    meter: dict[str, Any]
    losses: dict[str, FiniteFloat]
    weights: dict[str, _SHARE]
    sampler: dict[str, Any]
    mixture: dict[str, Any]
    metrics_size: _STEPS
    files: dict[str, _Written]


def write_manifest(
    path: Path, step: int, state: Mapping[str, Any], files: Mapping[str, FileRecord]
) -> None:
    """Write `state.json`, which makes a folder of files a checkpoint.

    Args:
        path: The folder.
        step: Steps taken.
        state: The fields of `CheckpointState` besides format, step and files.
        files: What each file is.
    """
    records = {name: files[name].to_json() for name in sorted(files)}
    write_sealed(path / STATE, {"format": FORMAT, "step": step, **state, "files": records})


def read_state(path: Path) -> CheckpointState:
    """Return what a checkpoint holds besides tensors.

    Raises:
        RunError: It cannot be read, is not what was written, or another version of mixopt wrote it.
    """
    file = path / STATE
    content = read_json(file)
    if not isinstance(content, dict):
        raise RunError(f"{file}: expected fields, got {type(content).__name__}; {_MEND}")
    if content.get("format") != FORMAT:
        raise RunError(
            f"{file}: format {content.get('format')!r}, expected {FORMAT!r}: it was written by "
            "another version of mixopt; resume the run with that version"
        )
    check_seal(content, str(file), mend=_MEND)
    values = {name: value for name, value in content.items() if name != "sha256"}
    state: CheckpointState = checked_as(CheckpointState, values, str(file))
    check_names(state.files, f"{file}: files", RunError)
    return state


def found_checkpoints(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, whole or not, by their steps."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.startswith("step-") and p.is_dir())


def last_checkpoint(folder: Path) -> Path | None:
    """Return the one with the largest step; None where there is none."""
    found = found_checkpoints(folder)
    return found[-1] if found else None


def older_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint before one, whole or not; None where it is the first."""
    older = [other for other in found_checkpoints(path.parent) if other.name < path.name]
    return older[-1] if older else None


def file_fault(path: Path, state: CheckpointState, part: slice = slice(None)) -> str | None:
    """Return what is wrong with the first file of a checkpoint that is not what was written.

    Args:
        path: The checkpoint.
        state: What it says of its files.
        part: Which of the files to read; ranks share them.
    """
    largest_first = sorted(state.files, key=lambda name: (-state.files[name].bytes, name))
    verifier = Verifier(path)

    def fault(name: str) -> str | None:
        record = FileRecord(**state.files[name].model_dump())
        try:
            why = verifier.fault(name, record, deep=True)
        except MixoptError as error:
            return str(error)
        return None if why is None else f"{path / name}: {why}"

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        return next(filter(None, [*threads.map(fault, largest_first[part])]), None)


def unknown_file(path: Path, known: Iterable[str]) -> str | None:
    """Return what is wrong with a file that a checkpoint does not say it has, hidden ones too."""
    unknown = sorted({file.name for file in path.iterdir()} - {*known, STATE})
    return f"{path / unknown[0]}: is not a file of this checkpoint" if unknown else None
