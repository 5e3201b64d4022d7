"""The files of one folder of shards: mapped or read, and checked whenever they are opened.

Few shards are mapped, which costs no descriptors. Of many, each is opened when it is read, and the
least recently used of this process is closed: a quarter of the descriptors that the process may
have are used at most. A file's size is checked when it is opened and whenever rows of its mapping
are read: one that was truncated meanwhile is an error in one line, where reading a mapping beyond
its file's end would end the process.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.index_files import PREPARE_AGAIN, absent
from mixopt.errors import ShardError
from mixopt.system import inside, map_file

_MAX_MAPPINGS = 1 << 14  # of this process: a quarter of what Linux gives it
_DESCRIPTORS = (16, 4096)  # fewest and most that are kept open
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class Shard(NamedTuple):
    """One file of tokens: its name in the folder, how many it has, and the hash of its content."""

    file: str
    tokens: int
    sha256: str


class ShardFiles:
    """Reads the tokens of shards, each file checked when it is opened."""

    def __init__(self, folder: Path, shards: Sequence[Shard], dtype: np.dtype[Any]) -> None:
        """Name the files."""
        self._folder = folder
        self._shards = shards
        self._dtype = dtype

    @cached_property
    def _places(self) -> list[tuple[str, int]]:
        """Paths and sizes."""
        item = self._dtype.itemsize
        return [(os.path.join(self._folder, s.file), s.tokens * item) for s in self._shards]

    def check(self) -> None:
        """Check that each file is there, of its size, and in the folder."""
        for shard, (path, size) in zip(self._shards, self._places, strict=True):
            try:
                status = os.lstat(path)
                if stat.S_ISLNK(status.st_mode):
                    inside(self._folder, shard.file, ShardError)
                    status = os.stat(path)
            except OSError as error:
                raise absent(Path(path), ShardError) from error
            _check_status(path, status, size)

    def mapped(self, k: int) -> NDArray[Any]:
        """Return the tokens of a shard as they are in the file, which must be among few."""
        path, size = self._places[k]
        status = self._status(path, size)
        try:
            found: NDArray[np.uint8] = _mapping(
                path, status.st_size, status.st_ino, status.st_mtime_ns
            )
        except OSError as error:
            raise _unreadable(path, error) from error
        return found.view(self._dtype)

    def look(self, k: int) -> None:
        """Check that a mapped shard is there and has its size still."""
        self._status(*self._places[k])

    def read(self, k: int, starts: Sequence[int], rows: Sequence[NDArray[Any]]) -> None:
        """Copy tokens of a shard."""
        path, size = self._places[k]
        try:
            file = _kept_open()(path, size)
        except OSError as error:
            raise _unreadable(path, error) from error
        for start, row in zip(starts, rows, strict=True):
            try:
                count = _read_at(file.descriptor, row, start * self._dtype.itemsize)
            except OSError as error:
                raise _unreadable(path, error) from error
            if count != row.nbytes:
                raise ShardError(f"{path}: truncated while it was read; {PREPARE_AGAIN}")

    @staticmethod
    def _status(path: str, size: int) -> os.stat_result:
        try:
            status = os.stat(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if status.st_size != size or not stat.S_ISREG(status.st_mode):
            _check_status(path, status, size)
        return status


class _OpenFile:
    """A descriptor that is closed with its last use, in whatever thread that is."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str, size: int) -> None:
        self.descriptor = os.open(path, _FLAGS | getattr(os, "O_NONBLOCK", 0))
        _check_status(path, os.fstat(self.descriptor), size)

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


@cache
def _kept_open() -> Any:
    """Return what opens files and keeps the last ones that it opened."""
    fewest, most = _DESCRIPTORS
    try:
        import resource
    except ImportError:
        return lru_cache(maxsize=fewest)(_OpenFile)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    kept = most if limit == resource.RLIM_INFINITY else min(max(limit // 4, fewest), most)
    return lru_cache(maxsize=kept)(_OpenFile)


@lru_cache(maxsize=_MAX_MAPPINGS)
def _mapping(path: str, size: int, number: int, changed: int) -> NDArray[np.uint8]:
    """Map a file of this size, number and time; another file of its name is another mapping."""
    descriptor = os.open(path, _FLAGS)
    try:
        _check_status(path, os.fstat(descriptor), size)
        return map_file(descriptor, size)
    finally:
        os.close(descriptor)


def _read_at(descriptor: int, row: NDArray[Any], place: int) -> int:
    if not hasattr(os, "preadv"):
        os.lseek(descriptor, place, os.SEEK_SET)
        content = os.read(descriptor, row.nbytes)
        row.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
        return len(content)
    count = done = os.preadv(descriptor, [row.data], place)
    while done and count < row.nbytes:  # a signal, or a network file system
        done = os.preadv(descriptor, [row.view(np.uint8)[count:].data], place + count)
        count += done
    return count


def _check_status(path: str, status: os.stat_result, size: int) -> None:
    if not stat.S_ISREG(status.st_mode):  # a pipe would never end
        raise ShardError(f"{path}: is not a file; {PREPARE_AGAIN}")
    if status.st_size != size:
        what = "truncated" if status.st_size < size else "altered"
        raise ShardError(
            f"{path}: {what}: {status.st_size} bytes, but its index has {size}; {PREPARE_AGAIN}"
        )


def _unreadable(path: str, error: OSError) -> ShardError:
    """Return why a file cannot be read that was there when its folder was opened."""
    if isinstance(error, FileNotFoundError):
        return ShardError(
            f"{path}: not found, but it was there before; restore it and resume, or {PREPARE_AGAIN}"
        )
    more = "; raise the limit: ulimit -n 4096" if error.errno in _TOO_MANY else ""
    return ShardError(f"{path}: cannot be read: {error.strerror or error}{more}")
