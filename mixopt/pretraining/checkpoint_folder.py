"""The folders of checkpoints: made under a name that does not count, named at once, removed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.pretraining.checkpoint_files import found_checkpoints, write_manifest
from mixopt.system import FileRecord

DAMAGED = "damaged-"
_PREFIX = "step-"


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay.

    Attributes:
        last: So many of the newest.
        every: Besides them those of steps that this divides; 0: none.
    """

    last: int
    every: int = 0

    def removes(self, found: Sequence[Path]) -> list[Path]:
        """Return those of all checkpoints, by their steps, that go."""
        return [path for path in found[: -self.last] if not self._stays(path.name)]

    def _stays(self, name: str) -> bool:
        step = name.removeprefix(_PREFIX)
        return self.every > 0 and step.isdecimal() and int(step) % self.every == 0


@dataclass(frozen=True)
class Beside:
    """What rank 0 puts into a checkpoint besides shards.

    Attributes:
        step: Steps taken.
        state: As JSON has it.
        files: The content of other files by their names.
        paths: Files elsewhere that the state says the length of; they are on disk before it.
    """

    step: int
    state: Mapping[str, Any]
    files: Mapping[str, bytes]
    paths: Sequence[Path]


def checkpoint_name(step: int) -> str:
    """Return the name of the folder of a step's checkpoint."""
    return f"{_PREFIX}{step:08d}"


def unfinished(folder: Path, step: int) -> Path:
    """Return where a checkpoint is written until all of it is on disk."""
    return folder / f".{checkpoint_name(step)}.tmp"


def empty_unfinished(path: Path) -> None:
    """Make an empty folder, and remove what killed processes left unfinished.

    Raises:
        RunError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{_PREFIX}*.tmp"):
            shutil.rmtree(left)
        path.mkdir()
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error


def finish(folder: Path, beside: Beside, shards: Mapping[str, FileRecord], kept: Retention) -> None:
    """Make a folder with all shards a checkpoint, and remove those that are not kept.

    Args:
        folder: Where checkpoints are.
        beside: What else goes into it.
        shards: Size and hash of each shard by its name.
        kept: Which ones stay.

    Raises:
        RunError: It cannot be written.
    """
    try:
        _name_it(folder, beside, shards)
        for old in kept.removes(found_checkpoints(folder)):
            shutil.rmtree(old.replace(old.with_name(f".{old.name}.tmp")))  # never half of one
        for old in folder.glob(f"{DAMAGED}{_PREFIX}*"):
            if old.name <= DAMAGED + checkpoint_name(beside.step):  # the run has come past it again
                shutil.rmtree(old)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from error


def _name_it(folder: Path, beside: Beside, shards: Mapping[str, FileRecord]) -> None:
    path, records = unfinished(folder, beside.step), dict(shards)
    for name, inside in beside.files.items():
        (path / name).write_bytes(inside)
        _sync(path / name)
        records[name] = FileRecord(len(inside), hashlib.sha256(inside).hexdigest())
    write_manifest(path, beside.step, beside.state, records)
    for part in (*beside.paths, path):
        _sync(part)
    path.replace(folder / checkpoint_name(beside.step))
    _sync(folder)


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
