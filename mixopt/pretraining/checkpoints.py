"""Checkpoints: a folder that is either whole or not there, for any number of ranks.

    checkpoints/step-00001000/
      state.json          steps, sampler, mixture; the size of each other file
      experts.npz         counts of experts since their last window, of a model that has some
      shard-*.safetensors weights and the optimiser's state, as torch.distributed.checkpoint
                          lays them out, each rank its part

The folder is written under a name that does not count, and gets its own at once when all of it is
on disk. So the last checkpoint is the one with the largest step, whenever a process was killed.
Nothing in it is a pickle.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn, optim
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mixopt.errors import RunError
from mixopt.pretraining.ranks import Ranks
from mixopt.system import read_json, write_json

FORMAT = "mixopt-pretrain/1"
STATE = "state.json"
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
        try:
            writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
            save(_tensors(model, optimizer), storage_writer=writer)
        except Exception as error:
            raise RunError(f"{path}: cannot be written: {_first_line(error)}") from error
        self._ranks.first(lambda: self._finish(path, step, state, files, beside))

    def load(self, path: Path, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Fill model and optimiser from a checkpoint that any number of ranks wrote.

        Raises:
            RunError: It is damaged, or of another model.
        """
        self._ranks.first(lambda: _check_files(path))
        try:
            load(_tensors(model, optimizer), storage_reader=HuggingFaceStorageReader(str(path)))
        except Exception as error:
            raise RunError(f"{path}: cannot be read: {_first_line(error)}") from error

    def _finish(
        self,
        path: Path,
        step: int,
        state: Mapping[str, Any],
        files: Mapping[str, bytes],
        beside: Sequence[Path],
    ) -> None:
        try:
            for name, inside in files.items():
                (path / name).write_bytes(inside)
                _sync(path / name)
            sizes = {file.name: file.stat().st_size for file in sorted(path.iterdir())}
            content = {"format": FORMAT, "step": step, **state, "files": sizes}
            write_json(path / STATE, content)
            for part in (*beside, path):
                _sync(part)
            final = self._folder / _name(step)
            path.replace(final)
            _sync(self._folder)
            for old in _found(self._folder)[: -self._keep]:
                shutil.rmtree(old)
        except OSError as error:
            raise RunError(f"{self._folder}: cannot be written: {error.strerror}") from error


def last_checkpoint(folder: Path) -> Path | None:
    """Return the one with the largest step; None where there is none."""
    found = _found(folder)
    return found[-1] if found else None


def read_state(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds besides tensors.

    Raises:
        RunError: It cannot be read, or another version of mixopt wrote it.
    """
    state: dict[str, Any] = read_json(path / STATE)
    if state.get("format") != FORMAT:
        raise RunError(f"{path / STATE}: format {state.get('format')!r}, expected {FORMAT!r}")
    return state


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _found(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.startswith("step-") and p.is_dir())


def _emptied(path: Path) -> None:
    """Make an empty folder, and remove what killed processes left unfinished."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(".step-*.tmp"):
            shutil.rmtree(left)
        path.mkdir()
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error


def _check_files(path: Path) -> None:
    for name, size in read_state(path)["files"].items():
        file = path / name
        found = file.stat().st_size if file.exists() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes, not {size}"
            raise RunError(f"{file}: {what}; remove {path} to go on from the checkpoint before it")


def _tensors(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, Any]:
    """Return what goes into shards: weights, buffers that are saved, the optimiser's tensors.

    They are the tensors themselves, so that loading fills them.
    """
    saved = model.state_dict()
    tensors = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    tensors |= {f"model.{name}": b for name, b in model.named_buffers() if name in saved}
    optimised = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    for name, value in optimised.items():
        if isinstance(value, Tensor):
            tensors[f"optimizer.{name}"] = value
    return tensors


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
