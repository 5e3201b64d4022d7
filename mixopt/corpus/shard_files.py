"""The open files of one folder of shards: mapped or read, in bounded number.

Few shards are mapped, which costs no descriptors. Of many, each is opened when it is read, and the
least recently used of this process is closed: a quarter of the descriptors that the process may
have are used at most. Those of a store are opened in this node's cache and closed again, so that
the cache can remove them. A file's size is checked before it is mapped, whenever rows are read of
its mapping, and when it is opened: one that was truncated meanwhile is an error in one line, where
reading a mapping beyond its file's end would end the process.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.index_files import PREPARE_AGAIN
from mixopt.corpus.known_shards import KnownShards
from mixopt.corpus.shard import Shard, check_place, check_status
from mixopt.corpus.shard_store import ShardStore
from mixopt.errors import ShardError
from mixopt.system import file_hash, file_mark, map_file

_MAPPED = 1 << 14  # mappings of this process: a quarter of what Linux gives it
_DESCRIPTORS = (16, 4096)  # fewest and most that are kept open
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_NO_MORE = (*_TOO_MANY, errno.ENOMEM)  # of mappings too
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class ShardFiles:
    """Reads the tokens of shards, each file checked when it is opened."""

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        dtype: np.dtype[Any],
        *,
        store: ShardStore | None,
        compares_marks: bool,
    ) -> None:
        """Name the files.

        Args:
            folder: Where they are.
            shards: What they are.
            dtype: Of a token.
            store: Where they are instead.
            compares_marks: Whether one that has changed since its hash was compared is hashed again
                when it is opened.
        """
        self._folder = folder
        self._shards = shards
        self._dtype = dtype
        self._store = store
        self._compares_marks = compares_marks
        self._placed: set[int] = set()

    def mapped(self, k: int) -> NDArray[Any]:
        """Return the tokens of a shard as they are in the file, which must be among few.

        Raises:
            ShardError: It is not there any more, or has another size.
        """
        path, size = self._mapped_places[k]
        status = self._look(path, size)
        try:
            found: NDArray[np.uint8] = _with_room(
                _mapping, path, status.st_size, status.st_ino, status.st_mtime_ns
            )
        except OSError as error:
            raise _unreadable(path, error) from error
        return found.view(self._dtype)

    def look(self, k: int) -> None:
        """Check that a mapped shard is there and has its size still.

        Raises:
            ShardError: It is not.
        """
        self._look(*self._mapped_places[k])

    def _look(self, path: str, size: int) -> os.stat_result:
        try:
            status = os.stat(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if status.st_size != size or not stat.S_ISREG(status.st_mode):
            check_status(path, status, size)
        return status

    @cached_property
    def _mapped_places(self) -> list[tuple[str, int]]:
        """Paths and sizes of few shards, which are looked at often."""
        item = self._dtype.itemsize
        return [(os.path.join(self._folder, s.file), s.tokens * item) for s in self._shards]

    def read(self, k: int, starts: Sequence[int], rows: Sequence[NDArray[Any]]) -> None:
        """Copy tokens of a shard.

        Args:
            k: Its number.
            starts: The first token of each row.
            rows: Where the tokens are written.

        Raises:
            ShardError: It is not there any more, of another size, or altered.
        """
        if self._store is None:
            file = _with_room(_kept_open(), self, k)
            self._copy(file.descriptor, file.path, starts, rows)
            return
        shard = self._shards[k]
        descriptor = self._store.open(shard, shard.tokens * self._dtype.itemsize)
        try:
            self._copy(descriptor, self._store.url_of(shard), starts, rows)
        finally:
            os.close(descriptor)

    def _copy(
        self, descriptor: int, path: str, starts: Sequence[int], rows: Sequence[NDArray[Any]]
    ) -> None:
        item = self._dtype.itemsize
        for start, row in zip(starts, rows, strict=True):
            try:
                count = _read_at(descriptor, row, start * item)
            except OSError as error:
                raise _unreadable(path, error) from error
            if count != row.nbytes:
                raise ShardError(f"{path}: truncated while it was read; {PREPARE_AGAIN}")

    def open(self, k: int) -> _OpenFile:
        """Open a shard.

        Raises:
            ShardError: It is not there any more, of another size, or altered.
        """
        shard = self._shards[k]
        path = f"{self._folder}{os.sep}{shard.file}"
        try:
            file = _OpenFile(self._descriptor(k, shard, path), path)
            status = os.fstat(file.descriptor)
        except OSError as error:
            raise _unreadable(path, error) from error
        check_status(path, status, shard.tokens * self._dtype.itemsize)
        self._compare(k, shard, path, status)
        return file

    def _descriptor(self, k: int, shard: Shard, path: str) -> int:
        try:
            return os.open(path, _FLAGS | (0 if k in self._placed else _NO_LINK))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK):
                raise
        check_place(self._folder, shard)
        self._placed.add(k)
        return os.open(path, _FLAGS)

    def _compare(self, k: int, shard: Shard, path: str, status: os.stat_result) -> None:
        known = self._shards
        if not self._compares_marks or not isinstance(known, KnownShards):
            return  # few are compared when their folder is opened
        if known.is_as_verified(k, file_mark(status)):
            return
        if file_hash(Path(path)) != shard.sha256:
            raise ShardError(
                f"{path}: altered: SHA-256 is not {shard.sha256[:12]}…, the one in its index; "
                f"{PREPARE_AGAIN}"
            )
        known.verified_again(k, file_mark(status))


class _OpenFile:
    """A descriptor that is closed with its last use, in whatever thread that is."""

    __slots__ = ("descriptor", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path

    def __del__(self) -> None:
        os.close(self.descriptor)


@cache
def _kept_open() -> Any:
    """Return what opens files and keeps the last ones that it opened."""
    return lru_cache(maxsize=_most_descriptors())(ShardFiles.open)


def _with_room(kept: Any, *given: Any) -> Any:
    """Call what keeps what it opened; where the process may have no more, let all of that go."""
    try:
        return kept(*given)
    except (OSError, ShardError) as error:
        reason = error.__cause__ or error
        if not isinstance(reason, OSError) or reason.errno not in _NO_MORE:
            raise
    kept.cache_clear()
    return kept(*given)


def _most_descriptors() -> int:
    fewest, most = _DESCRIPTORS
    try:
        import resource
    except ImportError:
        return fewest
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if limit == resource.RLIM_INFINITY else min(max(limit // 4, fewest), most)


@lru_cache(maxsize=_MAPPED)
def _mapping(path: str, size: int, number: int, changed: int) -> NDArray[np.uint8]:
    """Map a file of this size, number and time; another file of its name is another mapping."""
    descriptor = os.open(path, _FLAGS)
    try:
        check_status(path, os.fstat(descriptor), size)
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


def _unreadable(path: str, error: OSError) -> ShardError:
    """Return why a file cannot be read that was there when its folder was opened."""
    if isinstance(error, FileNotFoundError):
        return ShardError(
            f"{path}: not found, but it was there before; restore it and resume, or {PREPARE_AGAIN}"
        )
    more = "; raise the limit: ulimit -n 4096" if error.errno in _TOO_MANY else ""
    return ShardError(f"{path}: cannot be read: {error.strerror or error}{more}")
