"""Checkpoints: a folder that is either whole or not there, for any number of ranks.

    checkpoints/step-00001000/
      shard-*.safetensors weights and the optimiser's state, as torch.distributed.checkpoint
                          lays them out, each rank its part
      experts.npz         counts of experts since their last window, of a model that has some
      state.json          steps, sampler, mixture; size and hash of each other file

The folder is written under a name that does not count, and gets its own at once when all of it is
on disk. So the last checkpoint is the one with the largest step, whenever a process was killed.
With `asynchronous` training waits until tensors are copied; a thread writes them, and ranks agree
there in a process group of their own. One checkpoint is written at a time.
What a disk or a person changed since is noticed before anything is read: a run resumes from the
newest that is whole, and those after it become `damaged-step-*`. Nothing in it is a pickle.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn, optim
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mixopt.errors import MixoptError, RunError
from mixopt.pretraining.averaged_weights import AVERAGE
from mixopt.pretraining.checkpoint_files import (
    CheckpointState,
    file_fault,
    found_checkpoints,
    read_state,
    unknown_file,
)
from mixopt.pretraining.checkpoint_folder import (
    DAMAGED,
    Beside,
    Retention,
    checkpoint_name,
    empty_unfinished,
    finish,
    unfinished,
)
from mixopt.pretraining.checkpoint_tensors import MODEL, tensor_names
from mixopt.pretraining.hashed_shards import HashedShards, Staging
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.writing_thread import WritingThread
from mixopt.system import FileRecord

_FAILED = (Exception, CheckpointException)  # the second is no Exception
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Checkpoints:
    """The checkpoints of a run; every rank calls the same methods."""

    def __init__(
        self, folder: Path, ranks: Ranks, *, kept: Retention, asynchronous: bool = False
    ) -> None:
        """Name the folder; every rank does.

        Args:
            folder: Where they are.
            ranks: Who writes.
            kept: Which ones stay.
            asynchronous: Whether a thread writes them while training continues.
        """
        self._folder, self._ranks, self._kept = folder, ranks, kept
        self._staging = Staging() if asynchronous else None
        self._writing = WritingThread(ranks) if asynchronous else None

    def __enter__(self) -> Checkpoints:
        """Write as long as the block runs."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until the last one is written; what that raises does not hide what ended the block.

        Raises:
            RunError: It could not be written, and the block ended well.
        """
        try:
            self.wait()
        except Exception:
            if kind is None:
                raise

    def save(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        beside: Beside,
    ) -> None:
        """Write a checkpoint: it is there when this returns, or else once `wait` does.

        One that is still being written is waited for first.

        Args:
            model: With its own names of parameters.
            optimizer: Its state goes by the names of parameters.
            beside: What else there is; rank 0's is written.

        Raises:
            RunError: The folder cannot be written, or the one before could not.
        """
        self.wait()
        path = unfinished(self._folder, beside.step)
        self._ranks.first(lambda: empty_unfinished(path))
        shards = HashedShards(path, self._staging)
        try:
            save(_tensors(model, optimizer), storage_writer=shards)
        except _FAILED as error:
            raise RunError(f"{path}: cannot be written: {_first_line(error)}") from error
        if self._writing is None:
            self._write(self._ranks, path, shards, beside)
            return
        beside = replace(beside, state=copy.deepcopy(beside.state))
        self._writing.begin(lambda ranks: self._write(ranks, path, shards, beside))

    @property
    def is_writing(self) -> bool:
        """Whether the thread of this rank is still at work."""
        return self._writing is not None and self._writing.is_at_work

    @property
    def has_failed(self) -> bool:
        """Whether this rank knows that the last one could not be written; `wait` raises it."""
        return self._writing is not None and self._writing.has_failed

    def wait(self) -> None:
        """Wait until the last one is written.

        Raises:
            RunError: It could not be; on every rank.
        """
        if self._writing is not None:
            self._writing.wait()

    def _write(self, ranks: Ranks, path: Path, shards: HashedShards, beside: Beside) -> None:
        """Write what is staged; every rank does, in its thread where it has one."""

        def write() -> dict[str, FileRecord]:
            with _one_line(path):
                return shards.write()

        def finished() -> None:
            with _one_line(path):
                finish(self._folder, beside, records, self._kept)

        written = ranks.gathered(ranks.each(write))
        records = {name: record for part in written for name, record in part.items()}
        ranks.first(finished)

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
        faults = self._ranks.gathered(file_fault(path, state, mine))
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

    def load(self, path: Path, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Fill model and optimiser from a whole checkpoint that any number of ranks wrote.

        Raises:
            RunError: It is of another model.
        """
        tensors = _tensors(model, optimizer)
        _check_all_used(path, tensors)
        _load(path, tensors)


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill a model from a whole checkpoint, without an optimiser; inside a process group.

    Raises:
        RunError: It is of another model.
    """
    tensors = _weights(model)
    _check_all_used(path, tensors)
    _load(path, tensors)


def load_optimizer(path: Path, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Fill an optimiser from a whole checkpoint; every rank calls it.

    An average of weights stays as it is where the checkpoint has none.

    Raises:
        RunError: It is of another model.
    """
    tensors = {n: t for n, t in _tensors(model, optimizer).items() if n.startswith("optimizer.")}
    averages = {name for name in tensors if name.endswith(f".{AVERAGE}")}
    if averages and not averages <= tensor_names(path):
        tensors = {name: one for name, one in tensors.items() if name not in averages}
    _load(path, tensors)


def _check_all_used(path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse a checkpoint with a weight that the model does not have: it would be lost."""
    surplus = {n for n in tensor_names(path) if n.startswith(MODEL)} - tensors.keys()
    if surplus:
        name = min(surplus).removeprefix(MODEL)
        raise RunError(f"{path}: has the weight {name!r}, which the model does not have")


def _load(path: Path, tensors: dict[str, Any]) -> None:
    try:
        for shard in sorted(path.glob("*.safetensors")):
            _check_header(shard)
        load(tensors, storage_reader=HuggingFaceStorageReader(str(path)))
    except _FAILED as error:
        raise RunError(f"{path}: cannot be read: {_first_line(error)}") from error


def _state_or_fault(path: Path) -> CheckpointState | str:
    try:
        state = read_state(path)
    except MixoptError as error:
        return str(error)
    if path.name != checkpoint_name(state.step):
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


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Have whatever ends the block, a full disk or no memory for a thread, be one line.

    Raises:
        RunError: Anything did.
    """
    try:
        yield
    except MixoptError:
        raise
    except Exception as error:
        why = error.strerror if isinstance(error, OSError) else None
        kind = type(error).__name__
        line = _first_line(error)
        said = why or (line if line == kind else f"{kind}: {line}")
        raise RunError(f"{path}: cannot be written: {said}") from error


def _first_line(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
