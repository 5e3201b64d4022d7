"""Shards of torch.distributed.checkpoint that are hashed while they are written, in a thread."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from mixopt.system import FileRecord


class HashedShards(HuggingFaceStorageWriter):
    """Writes the safetensors of one rank.

    Attributes:
        records: Size and hash of each file that this rank wrote, by name.
    """

    def __init__(self, path: Path) -> None:
        """Write into a folder that is there."""
        super().__init__(str(path), save_distributed=True)
        self.records: dict[str, FileRecord] = {}
        self.fs = _HashingFiles(self.records)


class _HashingFiles(FileSystem):
    """The file system, with a hash of each file that is written."""

    def __init__(self, records: dict[str, FileRecord]) -> None:
        self._records = records

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        with super().create_stream(path, mode) as stream, ThreadPoolExecutor(1) as thread:
            hashing = _HashingStream(stream, thread)
            yield hashing
            self._records[Path(path).name] = hashing.record()


class _HashingStream:
    """A file that is written from its start to its end, and hashed beside it."""

    def __init__(self, stream: Any, thread: ThreadPoolExecutor) -> None:
        self._stream, self._thread = stream, thread
        self._hash, self._size = hashlib.sha256(), 0
        self._pending: list[Future[None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, content: Any) -> int:
        # bytes stay what they are while they are hashed; of anything else a copy is.
        kept = content if isinstance(content, bytes) else bytes(content)
        self._pending.append(self._thread.submit(self._hash.update, kept))
        self._size += len(kept)
        return int(self._stream.write(content))

    def record(self) -> FileRecord:
        for pending in self._pending:
            pending.result()
        return FileRecord(self._size, self._hash.hexdigest())
