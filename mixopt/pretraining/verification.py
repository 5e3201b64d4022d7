"""Check the directory of a pretraining: each checkpoint against its manifest, and the record."""

from __future__ import annotations

from pathlib import Path

from mixopt.errors import MixoptError
from mixopt.pretraining.checkpoint_files import (
    file_fault,
    found_checkpoints,
    read_state,
    unknown_file,
)
from mixopt.pretraining.directory import CHECKPOINTS, recorded_config
from mixopt.run_directory import CheckedPart


def is_pretraining(directory: Path) -> bool:
    """Tell whether a directory is that of a pretraining: it has checkpoints or metrics."""
    return any((directory / name).exists() for name in (CHECKPOINTS, "metrics.jsonl"))


def verify_pretraining(directory: Path) -> list[CheckedPart]:
    """Check the record of the configuration and every checkpoint; all files are read."""
    return [_record(directory), *map(_checkpoint, found_checkpoints(directory / CHECKPOINTS))]


def _record(directory: Path) -> CheckedPart:
    record = directory / "config.yaml"
    try:
        recorded_config(record)
    except MixoptError as error:
        fault = {record.name: str(error).removeprefix(f"{record}: ")}
        return CheckedPart("configuration", "damaged", 1, 0, fault, "see the message")
    return CheckedPart("configuration", "whole", 1, record.stat().st_size)


def _checkpoint(path: Path) -> CheckedPart:
    name = f"{CHECKPOINTS}/{path.name}"
    try:
        state = read_state(path)
    except MixoptError as error:
        return _damaged(name, path, str(error))
    size = sum(file.bytes for file in state.files.values())
    fault = file_fault(path, state) or unknown_file(path, state.files)
    if fault is not None:
        return _damaged(name, path, fault, len(state.files), size)
    return CheckedPart(name, "whole", len(state.files), size)


def _damaged(name: str, path: Path, fault: str, files: int = 0, size: int = 0) -> CheckedPart:
    file, _, what = fault.removeprefix(f"{path}/").partition(": ")
    fix = "none: the run resumes from the newest whole checkpoint"
    return CheckedPart(name, "damaged", files, size, {file: what}, fix)
