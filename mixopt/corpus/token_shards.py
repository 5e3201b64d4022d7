"""Token shards on disk: write them, open them, check them and read rows.

One folder holds the tokens of one domain and split: `index.json` and `00000.bin`, `00001.bin`, …,
raw little-endian integers; the tokenizer's end-of-document id ends each document. The index has the
tokens and SHA-256 of each shard. Files are mapped at the first read, and their size is checked
before each read: a truncated file raises an error, while its mapping would kill the process.

They are written to a temporary folder and synced to disk, the index last, and the complete folder
is renamed: a reader never sees a part of it. Existing files that are valid shards are added by hard
links: symbolic links in a run directory, which may come from anyone, could point to any file of the
machine that opens it.

Shapes: B rows.
"""

import ctypes
import errno
import hashlib
import mmap
import os
import re
import shutil
import stat
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mixopt.corpus.index_files import ABSENT, INDEX, MAX_COUNT, PREPARE_AGAIN, read_index
from mixopt.errors import RunError, ShardError
from mixopt.system import (
    AnyArray,
    DType,
    FileRecord,
    IntArray,
    PlainDict,
    StateFields,
    Verifier,
    check_name,
    inside,
    int_array,
    made_once,
    temporary_path,
    usable_cores,
    write_sealed,
    writing,
)

FORMAT = "mixopt-tokens/3"
DTYPES: dict[str, DType] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
MAX_MAPPINGS = 1 << 14  # of this process: a quarter of Linux's default limit
_SHARED_HASH_BYTES = 1 << 26  # larger folders are hashed once per node; smaller by each process
_HASH = re.compile(r"[0-9a-f]{64}")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC
SHARD_TOKENS = 1 << 27  # of a full shard


class Shard(NamedTuple):
    """One token file: its name in the folder, number of tokens, and hash of its content."""

    file: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class TokenShards:
    """The tokens of one domain and split; files are opened at the first read.

    Attributes:
        path: The folder.
        tokens: Tokens in all shards, end-of-document tokens included.
        documents: Documents in all shards.
        bytes: Length of the text in UTF-8, for losses in bits per byte.
        dtype: Little-endian uint16 or uint32.
        tokenizer: Name of their tokenizer.
        shards: The files, in order.
        is_elsewhere: Whether the folder has no files because only the user's own trainer has the
            text; `bytes` and `documents` are then 0.
    """

    path: Path
    tokens: int
    documents: int
    bytes: int
    dtype: DType
    tokenizer: str
    shards: Sequence[Shard]
    is_elsewhere: bool = False

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Self:
        """Open a folder of shards and check it against its index.

        Args:
            path: The folder.
            verify: Compare the hash of every shard; verified large shards are remembered by size
                and time stamps. Sizes are always compared. A process may skip it if its parent has
                verified the shards.

        Raises:
            ShardError: The index is absent or damaged, or a shard is absent, truncated or altered.
        """
        path = Path(path)
        index = read_index(path, FORMAT, ShardError)
        shards = tuple(_shard(entry) for entry in index.parts("shards"))
        opened = cls(
            path=path,
            tokens=index.whole("tokens", 0, MAX_COUNT),
            documents=index.whole("documents", 0, MAX_COUNT),
            bytes=index.whole("bytes", 0, MAX_COUNT),
            dtype=DTYPES[index.one_of("dtype", DTYPES)],
            tokenizer=index.text("tokenizer"),
            shards=shards,
            is_elsewhere=index.content.get("elsewhere") is True and not shards,
        )
        total = int(opened.offsets[-1])
        if total != opened.tokens and not opened.is_elsewhere:
            raise index.error(f"{index.where}: {opened.tokens} tokens, but its shards have {total}")
        for shard, (file, size) in zip(shards, opened._places, strict=True):
            try:
                if os.path.islink(file):
                    inside(path, shard.file, ShardError)
                _check_status(file, os.stat(file), size)
            except OSError as error:
                raise ShardError(f"{file}: {ABSENT}") from error
        if verify:
            opened._check_hashes()
        return opened

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.tokens

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path, not the tokens."""
        return partial(TokenShards.open, verify=False), (self.path,)

    def read(self, start: int, stop: int) -> AnyArray:
        """Copy the tokens [start, stop).

        Raises:
            IndexError: The range is not inside [0, tokens].
            ShardError: The text is not here, or a shard has changed.
        """
        self._check_here()
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"{self.path}: tokens [{start}, {stop}) of {self.tokens}")
        first, last = self.shards_of(np.array([start, max(start, stop - 1)])).tolist()
        parts = [np.empty(0, self.dtype)]
        for k in range(first, last + 1 if start < stop else first):
            begin, end = self.offsets[k : k + 2].tolist()
            if begin < end:
                parts.append(self.mapped(k)[max(start - begin, 0) : stop - begin])
        return np.concatenate(parts)

    def rows(self, starts_B: ArrayLike, length: int) -> AnyArray:
        """Copy `length` tokens from each start.

        Args:
            starts_B: First token of each row.
            length: Tokens of a row, >= 1.

        Returns:
            Tokens, shape (B, length).

        Raises:
            IndexError: A row is not inside [0, tokens].
            ShardError: The text is not here, or a shard has changed.
        """
        self._check_here()
        starts = int_array(starts_B)
        if starts.size and (starts.min() < 0 or starts.max() + length > self.tokens):
            raise IndexError(
                f"{self.path}: rows of {length} from {starts.min()} to {starts.max()}"
                f" of {self.tokens}"
            )
        rows = np.empty((len(starts), length), self.dtype)
        shard_B = self.shards_of(starts)
        is_inside_B = starts + length <= self.offsets[shard_B + 1]
        for k in np.unique(shard_B[is_inside_B]).tolist():
            places = np.flatnonzero(is_inside_B & (shard_B == k))
            windows = sliding_window_view(self.mapped(k), length)
            rows[places] = windows[starts[places] - self.offsets[k]]
        for row in np.flatnonzero(~is_inside_B).tolist():
            rows[row] = self.read(int(starts[row]), int(starts[row]) + length)
        return rows

    def shards_of(self, places_B: IntArray) -> IntArray:
        """Return the index of each token's shard, shape (B,)."""
        return np.searchsorted(self.offsets, places_B, side="right") - 1

    @cached_property
    def offsets(self) -> IntArray:
        """The first token of each shard and the end of the last, shape (shards + 1,)."""
        return np.cumsum([0, *(shard.tokens for shard in self.shards)], dtype=np.int64)

    def mapped(self, k: int) -> AnyArray:
        """Return a memory map of a shard's tokens, after checking the size of its file."""
        status = self.check_size(k)
        path, _ = self._places[k]
        try:
            content = _mapping(path, status.st_size, status.st_ino, status.st_mtime_ns)
        except OSError as error:
            raise _unreadable(path, error) from error
        return content.view(self.dtype)

    def check_size(self, k: int) -> os.stat_result:
        """Check that a shard exists and has its original size; return the status of its file."""
        path, size = self._places[k]
        try:
            status = os.stat(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        _check_status(path, status, size)
        return status

    @cached_property
    def _places(self) -> list[tuple[str, int]]:
        """Paths and sizes of the shards."""
        item = self.dtype.itemsize
        return [(os.path.join(self.path, s.file), s.tokens * item) for s in self.shards]

    def _check_hashes(self) -> None:
        """Compare the hashes; for large folders, one process per node does."""
        if self.tokens * self.dtype.itemsize > _SHARED_HASH_BYTES:
            with suppress(RunError):  # a folder that cannot be written
                made_once(self.path, self._is_verified, self._compare_hashes)
                return
        self._compare_hashes()

    def _is_verified(self) -> bool | None:
        """Return True if all shards were verified before, else None."""
        verifier = Verifier(self.path)
        return all(verifier.knows(*record) for record in self._records) or None

    def _compare_hashes(self) -> bool:
        verifier = Verifier(self.path)
        with ThreadPoolExecutor(usable_cores()) as pool:
            faults = list(pool.map(lambda record: verifier.fault(*record), self._records))
        for shard, fault in zip(self.shards, faults, strict=True):
            if fault is not None:
                reason = fault
                if "sha256" in fault:
                    reason = f"SHA-256 is not {shard.sha256[:12]}…, the one in its index"
                raise ShardError(f"{self.path / shard.file}: altered: {reason}; {PREPARE_AGAIN}")
        verifier.remember()
        return True

    @property
    def _records(self) -> list[tuple[str, FileRecord]]:
        item = self.dtype.itemsize
        return [(s.file, FileRecord(s.tokens * item, s.sha256)) for s in self.shards]

    def _check_here(self) -> None:
        if self.is_elsewhere:
            raise ShardError(
                f"{self.path}: its text is not available here; only your own trainer reads it"
            )


def _shard(entry: StateFields) -> Shard:
    file = entry.text("file")
    sha256 = entry.text("sha256")
    if not _HASH.fullmatch(sha256):
        entry.refuse("sha256", "not a SHA-256")
    check_name(file, f"{entry.where}: file", ShardError)
    return Shard(file, entry.whole("tokens", 0, MAX_COUNT), sha256)


def _check_status(path: str, status: os.stat_result, size: int) -> None:
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
        raise ShardError(f"{path}: is not a file; {PREPARE_AGAIN}")
    if status.st_size != size:
        fault = "truncated" if status.st_size < size else "altered"
        raise ShardError(
            f"{path}: {fault}: {status.st_size} bytes, but its index has {size}; {PREPARE_AGAIN}"
        )


def _unreadable(path: str, error: OSError) -> ShardError:
    """Return the error for a file that became unreadable after its folder was opened."""
    if isinstance(error, FileNotFoundError):
        return ShardError(f"{path}: no longer found; restore it and resume, or {PREPARE_AGAIN}")
    more = "; raise the limit: ulimit -n 4096" if error.errno == errno.EMFILE else ""
    return ShardError(f"{path}: cannot be read: {error.strerror or error}{more}")


@lru_cache(maxsize=MAX_MAPPINGS)
def _mapping(path: str, size: int, number: int, changed: int) -> NDArray[np.uint8]:
    """Map a file by the C library (Python's mmap keeps a descriptor); its status keys the cache."""
    descriptor = os.open(path, _FLAGS)
    try:
        _check_status(path, os.fstat(descriptor), size)
        if not size:
            return np.empty(0, np.uint8)
        address = _LIBRARY.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == ctypes.c_void_p(-1).value:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        pages = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(pages, _LIBRARY.munmap, address, size).atexit = False
        mapped = np.frombuffer(memoryview(pages), np.uint8)
        mapped.flags.writeable = False
        return mapped
    finally:
        os.close(descriptor)


_LIBRARY = ctypes.CDLL(None, use_errno=True)
_LIBRARY.mmap.restype = ctypes.c_void_p
_LIBRARY.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_LIBRARY.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class TokenWriter:
    """Write one folder of token shards; it appears, complete, when the `with` block ends."""

    def __init__(self, path: str | Path, *, dtype: DTypeLike, tokenizer: str) -> None:
        """Set the folder and the token type."""
        name = np.dtype(dtype).name
        if name not in DTYPES:
            raise ShardError(f"{path}: dtype {name!r}; tokens are uint16 or uint32")
        self.path = Path(path)
        self.dtype = DTYPES[name]
        self.tokenizer = tokenizer
        self.tokens = self.documents = self.bytes = 0
        self.is_elsewhere = False
        self._folder = temporary_path(self.path)
        self._shards: list[Shard] = []
        self._stream: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._in_shard = 0

    def __enter__(self) -> Self:
        """Create the temporary folder."""
        with writing(self.path):
            self._folder.mkdir(parents=True)
        return self

    def write(self, tokens: AnyArray, documents: int, bytes: int) -> None:
        """Append tokens."""
        fitting = self._cast(tokens)
        with writing(self.path):
            while len(fitting):
                room = SHARD_TOKENS - self._in_shard
                self._append(fitting[:room])
                fitting = fitting[room:]
        self.documents += documents
        self.bytes += bytes

    def take(self, file: Path, shard: Shard, *, is_moved: bool = False) -> None:
        """Add a file of the same file system as the next shard, by a hard link or by moving it."""
        self._end_shard()
        name = self._next_name
        if is_moved:
            os.rename(file.resolve(), self._folder / name)
        else:
            os.link(file.resolve(), self._folder / name)
        self._shards.append(shard._replace(file=name))
        self.tokens += shard.tokens

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Rename the folder to its path, or delete it if the block failed."""
        try:
            with writing(self.path):
                self._end_shard()
                if kind is None:
                    write_sealed(self._folder / INDEX, self._index())
                    if self.path.exists():
                        shutil.rmtree(self.path)
                    self._folder.rename(self.path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _index(self) -> PlainDict:
        header = {"format": FORMAT, "dtype": self.dtype.name, "tokenizer": self.tokenizer}
        counts = {"tokens": self.tokens, "documents": self.documents, "bytes": self.bytes}
        elsewhere = {"elsewhere": True} if self.is_elsewhere else {}
        return header | counts | elsewhere | {"shards": [shard._asdict() for shard in self._shards]}

    @property
    def _next_name(self) -> str:
        return f"{len(self._shards):05d}.bin"

    def _cast(self, tokens: AnyArray) -> AnyArray:
        if tokens.dtype == self.dtype or not len(tokens):
            return tokens.astype(self.dtype, copy=False)
        if not np.issubdtype(tokens.dtype, np.integer):
            raise ShardError(f"{self.path}: tokens of dtype {tokens.dtype}; expected integers")
        max_id = int(np.iinfo(self.dtype).max)
        for token in (int(tokens.min()), int(tokens.max())):
            if not 0 <= token <= max_id:
                raise ShardError(
                    f"{self.path}: token {token} does not fit {self.dtype.name} (0 to {max_id});"
                    " open the TokenWriter with dtype='uint32'"
                )
        return tokens.astype(self.dtype)

    def _append(self, tokens: AnyArray) -> None:
        if self._stream is None:
            self._stream = (self._folder / self._next_name).open("wb")
            self._hash = hashlib.sha256()
            self._in_shard = 0
        content = tokens.tobytes()
        self._stream.write(content)
        self._hash.update(content)
        self._in_shard += len(tokens)
        self.tokens += len(tokens)
        if self._in_shard == SHARD_TOKENS:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._stream is None:
            return
        with self._stream as stream:
            stream.flush()
            os.fsync(stream.fileno())
        self._shards.append(Shard(self._next_name, self._in_shard, self._hash.hexdigest()))
        self._stream = None
        self._in_shard = 0


def write_elsewhere(path: Path, tokens: int, tokenizer: str) -> None:
    """Write the index of text that is not here, with its stated number of tokens."""
    with TokenWriter(path, dtype="uint16", tokenizer=tokenizer) as writer:
        writer.tokens = tokens
        writer.is_elsewhere = True
