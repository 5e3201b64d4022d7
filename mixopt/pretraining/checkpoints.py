"""Checkpoints: a folder that is either whole or not there, for any number of ranks.

    checkpoints/step-00001000/
      shard-*.safetensors weights and the optimiser's state, as torch.distributed.checkpoint
                          lays them out, each rank its part
      experts.npz         counts of experts since their last window, of a model that has some
      state.json          steps, sampler, mixture; size and hash of each other file

The folder is written under a name that does not count, and gets its own at once when all of it is
on disk. So the last checkpoint is the one with the largest step, whenever a process was killed.
What a disk or a person changed since is noticed before anything is read: a run resumes from the
newest that is whole, and those after it become `damaged-step-*`. Nothing in it is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn, optim
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mixopt.errors import MixoptError, RunError
from mixopt.pretraining.checkpoint_files import (
    CheckpointState,
    file_fault,
    found_checkpoints,
    read_state,
    unknown_file,
    write_manifest,
)
from mixopt.pretraining.hashed_shards import HashedShards
from mixopt.pretraining.ranks import Ranks
from mixopt.system import FileRecord

DAMAGED = "damaged-"
_FAILED = (Exception, CheckpointException)  # the second is no Exception
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Checkpoints:
    """The checkpoints of a run; every rank calls the same methods."""

    def __init__(self, folder: Path, ranks: Ranks, *, keep: int) -> None:
        """Name the folder.

        Args:
            folder: Where they are.
            ranks: Who writes.
            keep: How many of the last are kept.
        """
        self._folder, self._ranks, self._keep = folder, ranks, keep

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: optim.Optimizer,
        state: Mapping[str, Any],
        files: Mapping[str, bytes],
        beside: Sequence[Path],
    ) -> None:
        """Write a checkpoint; it is there when this returns.

        Args:
            step: Steps taken.
            model: With its own names of parameters.
            optimizer: Its state goes by the names of parameters.
            state: What else there is, as JSON has it; rank 0's is written.
            files: What else there is, by the name of the file; rank 0's are written.
            beside: Files that the state says the length of; they are on disk before it.

        Raises:
            RunError: The folder cannot be written.
        """
        path = self._folder / f".{_name(step)}.tmp"
        self._ranks.first(lambda: _emptied(path))
        writer = HashedShards(path)
        try:
            save(_tensors(model, optimizer), storage_writer=writer)
        except _FAILED as error:
            raise RunError(f"{path}: cannot be written: {_first_line(error)}") from error
        shards = {
            name: one for part in self._gathered(writer.records) for name, one in part.items()
        }
        self._ranks.first(lambda: self._finish(path, step, state, files, beside, shards))

    def newest_whole(self) -> tuple[Path, CheckpointState] | None:
        """Return the newest checkpoint that is what was written, the same on every rank.

        What is newer and is not becomes `damaged-step-*`, and a warning says why.

        Returns:
            Its folder and its state; None where there is no checkpoint at all.

        Raises:
            RunError: There are some, and none is whole.
        """
        refused: dict[Path, str] = {}
        for path in reversed(self._ranks.first(lambda: found_checkpoints(self._folder))):
            found = self._whole(path)
            if isinstance(found, CheckpointState):
                self._ranks.first(lambda: self._put_aside(refused, path))  # noqa: B023
                return path, found
            refused[path] = found
        if refused:
            self._ranks.fail(
                f"{next(iter(refused.values()))}; no checkpoint in {self._folder} is whole: "
                "restore the file from a copy, or remove that folder to start again"
            )
        return None

    def _whole(self, path: Path) -> CheckpointState | str:
        """Return the state of a checkpoint, or what is wrong with it; ranks share the reading."""
        state: CheckpointState | str = self._ranks.first(lambda: _state_or_fault(path))
        if isinstance(state, str):
            return state
        mine = slice(self._ranks.rank, None, self._ranks.count)
        faults = self._gathered(file_fault(path, state, mine))
        return next((fault for fault in faults if fault is not None), state)

    def _put_aside(self, refused: Mapping[Path, str], chosen: Path) -> None:
        for path, fault in refused.items():
            logging.getLogger("mixopt.pretraining").warning(
                "%s; resuming from %s instead", fault, chosen.name
            )
            aside = path.with_name(DAMAGED + path.name)
            try:
                if aside.exists():
                    shutil.rmtree(aside)
                path.replace(aside)
            except OSError as error:
                raise RunError(f"{path}: cannot be renamed: {error.strerror}") from error

    def _gathered(self, mine: Any) -> list[Any]:
        """Return what each rank says, in order."""
        said: list[Any] = [mine] * self._ranks.count
        if self._ranks.count > 1:
            dist.all_gather_object(said, mine)
        return said

    def load(self, path: Path, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Fill model and optimiser from a whole checkpoint that any number of ranks wrote.

        Raises:
            RunError: It is of another model.
        """
        _load(path, _tensors(model, optimizer))

    def _finish(
        self,
        path: Path,
        step: int,
        state: Mapping[str, Any],
        files: Mapping[str, bytes],
        beside: Sequence[Path],
        shards: Mapping[str, FileRecord],
    ) -> None:
        records = dict(shards)
        try:
            for name, inside in files.items():
                (path / name).write_bytes(inside)
                _sync(path / name)
                records[name] = FileRecord(len(inside), hashlib.sha256(inside).hexdigest())
            write_manifest(path, step, state, records)
            for part in (*beside, path):
                _sync(part)
            final = self._folder / _name(step)
            path.replace(final)
            _sync(self._folder)
            for old in found_checkpoints(self._folder)[: -self._keep]:
                shutil.rmtree(old)
            for old in self._folder.glob(f"{DAMAGED}step-*"):
                if old.name <= DAMAGED + final.name:  # the run has come past it again
                    shutil.rmtree(old)
        except OSError as error:
            raise RunError(f"{self._folder}: cannot be written: {error.strerror}") from error


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill a model from a whole checkpoint, without an optimiser; inside a process group.

    Raises:
        RunError: It is of another model.
    """
    _load(path, _weights(model))


def load_optimizer(path: Path, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Fill an optimiser from a whole checkpoint; every rank calls it.

    Raises:
        RunError: It is of another model.
    """
    tensors = _tensors(model, optimizer)
    _load(path, {n: one for n, one in tensors.items() if n.startswith("optimizer.")})


def _load(path: Path, tensors: dict[str, Any]) -> None:
    try:
        for shard in sorted(path.glob("*.safetensors")):
            _check_header(shard)
        load(tensors, storage_reader=HuggingFaceStorageReader(str(path)))
    except _FAILED as error:
        raise RunError(f"{path}: cannot be read: {_first_line(error)}") from error


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _emptied(path: Path) -> None:
    """Make an empty folder, and remove what killed processes left unfinished."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(".step-*.tmp"):
            shutil.rmtree(left)
        path.mkdir()
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error


def _state_or_fault(path: Path) -> CheckpointState | str:
    try:
        state = read_state(path)
    except MixoptError as error:
        return str(error)
    if path.name != _name(state.step):
        return f"{path}: is the checkpoint of step {state.step}, under another name"
    return unknown_file(path, state.files) or state


def _tensors(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, Any]:
    """Return what goes into shards: weights, buffers that are saved, the optimiser's tensors.

    They are the tensors themselves, so that loading fills them.
    """
    tensors = _weights(model)
    optimised = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    for name, value in optimised.items():
        if isinstance(value, Tensor):
            tensors[f"optimizer.{name}"] = value
    return tensors


def _weights(model: nn.Module) -> dict[str, Any]:
    saved = model.state_dict()
    tensors = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    return tensors | {f"model.{name}": b for name, b in model.named_buffers() if name in saved}


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_header(shard: Path) -> None:
    """Read a shard's header: torch prints the traceback of one that it cannot read.

    Raises:
        ValueError: It does not say where the parts of a tensor belong.
    """
    with safe_open(shard, framework="pt") as file:
        names, about = set(file.keys()), file.metadata() or {}
    known = json.loads(about.get(CUSTOM_METADATA_KEY, "{}"))
    if not isinstance(known, dict) or names - known.keys():
        raise ValueError(f"{shard.name}: its header does not describe its content")


def _first_line(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
