"""Checkpoints: folders that are complete or absent, for any number of ranks.

    checkpoints/step-00001000/
      shard-*.safetensors   weights and optimizer state, written in parts by the ranks
      state.json            steps, sampler, mixture, counts of experts, the other files' SHA-256

torch.distributed.checkpoint writes the tensors in a thread, under a temporary name. After all ranks
have written, rank 0 adds state.json and renames the folder.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from mixopt.errors import MixoptError, RunError
from mixopt.online import on_first
from mixopt.pretraining.config import CheckpointConfig
from mixopt.pretraining.ranks import Ranks
from mixopt.run_directory import CheckedPart
from mixopt.system import (
    Count,
    FileRecord,
    FileShape,
    Verifier,
    check_names,
    file_record,
    one_line,
    read_sealed,
    write_sealed,
    writing,
)

FORMAT = "mixopt-pretrain/3"
CHECKPOINTS = "checkpoints"
STATE = "state.json"
MODEL = "model."  # starts the names of weights
OPTIMIZER = "optimizer."  # starts the names of the optimizer's tensors
_PREFIX = "step-"
_STEP_DIGITS = 8
_DAMAGED = "damaged-"
_HINT = "restore the file from a copy, or remove the checkpoint to resume from the one before it"


class CheckpointState(FileShape):
    """Content of a checkpoint besides tensors."""

    format: Literal["mixopt-pretrain/3"]
    step: Count
    meter: dict[str, Any]
    losses: dict[str, float]
    weights: dict[str, float]
    sampler: dict[str, Any]
    mixture: dict[str, Any]
    experts: dict[str, Any] | None = None
    metrics_size: Count
    files: dict[str, FileRecord]


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints of a run; all ranks call the same methods."""

    def __init__(self, folder: Path, ranks: Ranks, config: CheckpointConfig) -> None:
        self._folder = folder
        self._ranks = ranks
        self._config = config
        # A process group of its own, because the thread communicates beside training.
        self._group: Any = dist.new_group(backend="gloo")
        self._pending: Future[Any] | None = None
        self._path = folder

    def __exit__(self, *_: object) -> None:
        """Let the last checkpoint end; only `wait` raises its error."""
        with suppress(MixoptError):
            self.wait()

    def save(
        self, model: nn.Module, optimizer: optim.Optimizer, step: int, state: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint in the background, complete after `wait`; logs are synced first."""
        self.wait()
        self._path = self._folder / f".{_name(step)}.tmp"
        on_first(lambda: _make_empty(self._path))
        saved_state = deepcopy(state)  # the original changes during the write
        writer = _Writer(self._path, lambda: self._finish(step, saved_state))
        tensors = {name: tensor.contiguous() for name, tensor in _tensors(model, optimizer).items()}
        with self._written():
            pending = async_save(tensors, storage_writer=writer, process_group=self._group)
            self._pending = cast(Future[Any], pending)

    def wait(self) -> None:
        """Wait until the last checkpoint is written."""
        pending = self._pending
        self._pending = None
        with self._written():
            if pending is not None:
                pending.result()

    def newest_whole(self) -> tuple[Path, CheckpointState] | None:
        """Return the newest undamaged checkpoint; on rank 0 only."""
        faults: list[tuple[Path, str]] = []
        for path in reversed(found_checkpoints(self._folder)):
            try:
                state = whole_state(path)
            except MixoptError as error:
                faults.append((path, str(error)))
                continue
            for damaged, fault in faults:
                warning = f"{fault}; resuming from {path.name} instead"
                logging.getLogger("mixopt.pretraining").warning("%s", warning)
                _set_aside(damaged)
            return path, state
        if faults:
            _, newest_fault = faults[0]
            raise RunError(
                f"{newest_fault}; no checkpoint in {self._folder} is whole: "
                "restore the file from a copy, or remove that folder to start again"
            )
        return None

    def _finish(self, step: int, state: Mapping[str, Any]) -> None:
        """Complete a folder of shards, and remove checkpoints that are not kept."""
        path = self._path
        files = sorted(path.iterdir())
        with ThreadPoolExecutor() as threads:
            records = list(threads.map(file_record, files))
        hashes = {file.name: vars(record) for file, record in zip(files, records, strict=True)}
        content = {"format": FORMAT, "step": step} | dict(state)
        write_sealed(path / STATE, content | {"files": hashes})
        run = self._folder.parent
        for log in run.glob("*.jsonl"):
            _sync(log)
        for counts in run.glob("experts/counts"):
            _sync(counts)
        _sync(path)
        path.replace(self._folder / _name(step))
        _sync(self._folder)
        self._remove_old()

    def _remove_old(self) -> None:
        every = self._config.keep_every
        for old in found_checkpoints(self._folder)[: -self._config.keep]:
            step = int(old.name.removeprefix(_PREFIX))
            is_kept = every > 0 and step % every == 0
            if not is_kept:  # rename before deletion
                shutil.rmtree(old.replace(old.with_name(f".{old.name}.tmp")))

    def _written(self) -> AbstractContextManager[None]:
        return _failing(f"{self._path}: cannot be written", self._ranks.error)


class _Writer(HuggingFaceStorageWriter):
    """Writes each rank's part; rank 0 completes the folder after all ranks."""

    def __init__(self, path: Path, commit: Callable[[], None]) -> None:
        super().__init__(str(path), save_distributed=True)
        self._commit = commit

    def finish(self, metadata: Any, results: Any) -> None:
        super().finish(metadata, results)
        self._commit()


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Return the full tensors of a checkpoint in one process, without a process group."""
    tensors = {
        name: torch.empty(size, dtype=dtype)
        for name, (size, dtype) in _shapes(path).items()
        if name.startswith(prefix)
    }
    _load(path, tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def load_training(path: Path, model: nn.Module, optimizer: optim.Optimizer | None) -> None:
    """Load this rank's part of a checkpoint into a model, and into its optimizer if given."""
    tensors = _tensors(model, optimizer)
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    saved = {name: tuple(size) for name, (size, _) in _shapes(path).items()}
    for name in expected | saved:
        if name.startswith(MODEL) and expected.get(name) != saved.get(name):
            raise RunError(
                f"{path}: weight {name.removeprefix(MODEL)!r}: its shape is"
                f" {saved.get(name, 'absent')}, and in the model {expected.get(name, 'absent')}: it"
                " is of another model; leave out model.name and model.options that change its shape"
            )
    _load(path, tensors)


def found_checkpoints(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, damaged ones included, by step."""
    return sorted(folder.glob(_PREFIX + "[0-9]" * _STEP_DIGITS))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the largest step; None if there is none."""
    checkpoints = found_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def read_state(path: Path) -> CheckpointState:
    """Return the content of a checkpoint besides tensors."""
    state: CheckpointState = read_sealed(path / STATE, CheckpointState, hint=_HINT)
    check_names(state.files, f"{path / STATE}: files", RunError)
    return state


def whole_state(path: Path) -> CheckpointState:
    """Return the state of a checkpoint after verifying all of its files."""
    state = read_state(path)
    if path.name != _name(state.step):
        raise RunError(f"{path}: is the checkpoint of step {state.step}, under another name")
    names = {file.name for file in path.iterdir()}
    unknown = sorted(names - state.files.keys() - {STATE})
    if unknown:
        raise RunError(f"{path / unknown[0]}: is not a file of this checkpoint")
    verify = partial(Verifier(path).fault, deep=True)
    with ThreadPoolExecutor() as threads:
        faults = threads.map(verify, state.files, state.files.values())
        for name, fault in zip(state.files, faults, strict=True):
            if fault is not None:
                raise RunError(f"{path / name}: {fault}")
    return state


def check_checkpoint(path: Path) -> CheckedPart:
    """Verify a checkpoint, for `mixopt verify`."""
    name = f"{CHECKPOINTS}/{path.name}"
    try:
        state = whole_state(path)
    except MixoptError as error:
        file, _, fault = str(error).removeprefix(f"{path}/").partition(": ")
        fix = "none: the run resumes from the newest whole checkpoint"
        return CheckedPart(name, "damaged", 0, 0, {file: fault}, fix)
    size = sum(file.bytes for file in state.files.values())
    return CheckedPart(name, "whole", len(state.files), size)


def _name(step: int) -> str:
    return f"{_PREFIX}{step:0{_STEP_DIGITS}d}"


def _set_aside(damaged: Path) -> None:
    """Rename a damaged checkpoint, in place of an earlier one of its name."""
    aside = damaged.with_name(_DAMAGED + damaged.name)
    with writing(damaged):
        shutil.rmtree(aside, ignore_errors=True)
        damaged.replace(aside)


def _make_empty(path: Path) -> None:
    """Create an empty folder, and remove unfinished checkpoints of killed processes."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for unfinished in path.parent.glob(f".{_PREFIX}*.tmp"):
            shutil.rmtree(unfinished)
        path.mkdir()


def _sync(path: Path) -> None:
    """Sync a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tensors(model: nn.Module, optimizer: optim.Optimizer | None) -> dict[str, Any]:
    """Return weights, saved buffers and optimizer tensors, which loading fills in place."""
    saved = model.state_dict()
    tensors = {f"{MODEL}{name}": weight.detach() for name, weight in model.named_parameters()}
    for name, buffer in model.named_buffers():
        if name in saved:
            tensors[f"{MODEL}{name}"] = buffer
    if optimizer is not None:
        flat = StateDictOptions(flatten_optimizer_state_dict=True)
        for name, value in get_optimizer_state_dict(model, optimizer, options=flat).items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{name}"] = value
    return tensors


def _shapes(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return shape and dtype of each tensor of a checkpoint."""
    with _failing(f"{path}: cannot be read", RunError):
        metadata = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {name: (tensor.size, tensor.properties.dtype) for name, tensor in metadata.items()}  # type: ignore[union-attr]


def _load(path: Path, tensors: dict[str, Any]) -> None:
    with _failing(f"{path}: cannot be read", RunError), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is")  # each rank reads alone
        load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)


@contextmanager
def _failing(what: str, error: Callable[[str], MixoptError]) -> Iterator[None]:
    """Turn an error of torch into one line; with several ranks, the first one's."""
    try:
        yield
    except Exception as caught:
        raise error(f"{what}: {one_line(caught)}") from caught
    except CheckpointException as caught:  # does not derive from Exception
        raise error(f"{what}: {one_line(_first_failure(caught))}") from caught


def _first_failure(error: CheckpointException) -> BaseException:
    """Return the error of the first rank that failed."""
    failures = list(error.failures.values())
    if not failures:
        return error
    first, _ = failures[0]
    return first
