"""Shards of torch.distributed.checkpoint that are staged first, and hashed while they are written.

`torch.distributed.checkpoint.save` plans with all ranks which of them writes which part of which
tensor, and hands this rank its parts. They are copied into buffers that are kept from checkpoint to
checkpoint, so that training may go on while `write` streams them to a safetensors file: a rank
needs the memory of its parts once, and no more to write them. A writer that does not stage takes
none, and writes before the tensors change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future as Pending, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.checkpoint._hf_utils import (
    CUSTOM_METADATA_KEY,
    DTYPE_MAP,
    SAVED_OFFSETS_KEY,
    _gen_file_name,
)
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from mixopt.errors import RunError
from mixopt.system import FileRecord

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPE_MAP.items()} | {torch.bool: "BOOL"}
_PIECE = 1 << 24  # bytes that are hashed while the next ones are written


class Staging:
    """Copies of a rank's parts in main memory, whose buffers the next checkpoint takes again."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copied(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return copies that stay what they are until the next call."""
        self._buffers = {name: self._buffer(name, part) for name, part in parts.items()}
        for name, part in parts.items():
            self._buffers[name].copy_(part, non_blocking=part.is_cuda)
        if any(part.is_cuda for part in parts.values()):
            torch.cuda.current_stream().synchronize()
        return self._buffers

    def _buffer(self, name: str, part: Tensor) -> Tensor:
        there = self._buffers.get(name)
        if there is not None and there.shape == part.shape and there.dtype == part.dtype:
            return there
        return torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)


class HashedShards(HuggingFaceStorageWriter):
    """Takes the parts of one rank, and writes them when it is told to."""

    def __init__(self, path: Path, staging: Staging | None = None) -> None:
        """Write into a folder that is there.

        Args:
            path: The folder.
            staging: Where parts are copied to; None where they do not change until `write` ends.
        """
        super().__init__(str(path), save_distributed=True)
        self._folder, self._staging = path, staging
        self._name, self._header = "", b""
        self._parts: dict[str, Tensor] = {}

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Take this rank's parts; nothing is written yet."""
        if plan.items:
            parts = {item.index.fqn: _part(planner, item) for item in plan.items}
            self._parts = parts if self._staging is None else self._staging.copied(parts)
            self._name = _gen_file_name(1, 1, plan.storage_data["shard_index"])
            self._header = _header(self._parts, plan.items)
        done: Future[list[WriteResult]] = Future()
        done.set_result([])
        return done

    def write(self) -> dict[str, FileRecord]:
        """Write the parts, and have them on disk.

        Returns:
            Size and hash of the file by its name; nothing where this rank has no part.

        Raises:
            OSError: It cannot be written.
        """
        if not self._parts:
            return {}
        with open(self._folder / self._name, "wb", buffering=0) as file:
            record = _written(file, self._pieces())
            os.fsync(file.fileno())
        return {self._name: record}

    def _pieces(self) -> Iterator[memoryview]:
        yield memoryview(self._header)
        for part in self._parts.values():
            content = _bytes_of(part)
            for start in range(0, len(content), _PIECE):
                yield content[start : start + _PIECE]


def _part(planner: SavePlanner, item: WriteItem) -> Tensor:
    part = planner.resolve_data(item)
    assert isinstance(part, Tensor), "checkpoints have tensors alone"
    return part.detach()


def _written(file: Any, pieces: Iterator[memoryview]) -> FileRecord:
    """Write pieces, each of which is hashed in a thread meanwhile."""
    sha256, size, hashing = hashlib.sha256(), 0, Pending[None]()
    hashing.set_result(None)
    with ThreadPoolExecutor(1) as thread:
        for piece in pieces:
            hashing.result()
            hashing = thread.submit(sha256.update, piece)
            _write_all(file, piece)
            size += len(piece)
    hashing.result()
    return FileRecord(size, sha256.hexdigest())


def _write_all(file: Any, piece: memoryview) -> None:
    while len(piece):
        piece = piece[file.write(piece) :]


def _bytes_of(part: Tensor) -> memoryview:
    flat = part.cpu().contiguous().view(-1)
    content: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return content.data


def _header(parts: Mapping[str, Tensor], items: list[WriteItem]) -> bytes:
    """Return the header of the safetensors file; it says where each part is of its tensor."""
    offsets = {
        item.index.fqn: {SAVED_OFFSETS_KEY: list(item.tensor_data.chunk.offsets)}
        for item in items
        if item.tensor_data is not None
    }
    about = {"format": "pt", CUSTOM_METADATA_KEY: json.dumps(offsets)}
    fields: dict[str, Any] = {"__metadata__": about}
    start = 0
    for name, part in parts.items():
        stop = start + part.numel() * part.element_size()
        fields[name] = {
            "dtype": _dtype_name(name, part.dtype),
            "shape": list(part.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(fields).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _dtype_name(name: str, dtype: torch.dtype) -> str:
    if dtype not in _DTYPE_NAMES:
        raise RunError(f"{name}: {dtype} has no place in a checkpoint of safetensors")
    return _DTYPE_NAMES[dtype]
