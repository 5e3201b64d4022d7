"""Token shards on disk: map them into memory and verify them (token_writer writes them).

One folder holds the tokens of one domain and split: `index.json` and `00000.bin`, `00001.bin`,
…, which are raw little-endian integers. Documents follow each other, each ended by the
tokenizer's end-of-document id. The index says how many tokens each shard has and their SHA-256,
so a truncated or altered shard is found when it is opened, and has a seal itself. Only numpy is
needed.

Shapes: B rows.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.corpus.index_files import (
    INDEX,
    PREPARE_AGAIN,
    absent,
    check_index_seal,
    read_index,
    value_fault,
)
from mixopt.corpus.token_writer import DTYPES, FORMAT, Shard, TokenWriter
from mixopt.errors import ShardError
from mixopt.system import FileRecord, IntArray, Verifier, check_name, inside, shown_name

__all__ = ["Shard", "TokenShards", "TokenWriter"]

_FIELDS: dict[str, type] = {
    "dtype": str, "tokens": int, "documents": int, "bytes": int, "tokenizer": str, "shards": list,
}  # fmt: skip


@dataclass(frozen=True)
class TokenShards:
    """The tokens of one domain and split, mapped into memory when they are first read.

    Attributes:
        path: The folder.
        tokens: Tokens in all shards, end-of-document tokens included.
        documents: Documents in all shards.
        bytes: Length of the text in UTF-8, for losses in bits per byte.
        dtype: Little-endian uint16 or uint32.
        tokenizer: Name of the tokenizer that made them.
        shards: The files, in order.
        is_elsewhere: Whether there are no files, since a trainer of one's own has the text; `bytes`
            and `documents` are 0 then.
    """

    path: Path
    tokens: int
    documents: int
    bytes: int
    dtype: np.dtype[Any]
    tokenizer: str
    shards: tuple[Shard, ...]
    is_elsewhere: bool = False

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> TokenShards:
        """Open a folder of shards and check it against its index.

        Args:
            path: The folder.
            verify: Compare the hash of every shard, once: a large one is remembered by its size
                and time stamps. Sizes are always compared. A process may leave out what its
                parent has verified.

        Raises:
            ShardError: The index is absent or damaged, or a shard is absent, truncated or altered.
        """
        path = Path(path)
        index = read_index(path, FORMAT, _FIELDS, ShardError)
        opened = _from_index(path, index)
        check_index_seal(path, index, ShardError)
        _check_files(opened, index["shards"], verify=verify)
        return opened

    def __len__(self) -> int:
        """Count the tokens."""
        return self.tokens

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the path to another process, not the tokens."""
        return (_reopen, (self.path,))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Copy the tokens [start, stop).

        Raises:
            IndexError: The range is not inside [0, tokens].
            ShardError: The text is not here.
        """
        self._check_here()
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"{self.path}: tokens [{start}, {stop}) of {self.tokens}")
        pieces = [
            self._map(k)[max(start - offset, 0) : stop - offset]
            for k, offset in enumerate(self._offsets[:-1].tolist())
            if offset < stop and start < int(self._offsets[k + 1])
        ]
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def rows(self, starts_B: ArrayLike, length: int) -> NDArray[Any]:
        """Copy `length` tokens from each start.

        Args:
            starts_B: First token of each row.
            length: Tokens of a row, >= 1.

        Returns:
            Tokens, shape (B, length).

        Raises:
            IndexError: A row is not inside [0, tokens].
            ShardError: The text is not here.
        """
        self._check_here()
        starts = np.asarray(starts_B, dtype=np.int64)
        if starts.size and (starts.min() < 0 or starts.max() + length > self.tokens):
            first, last = int(starts.min()), int(starts.max())
            raise IndexError(
                f"{self.path}: rows of {length} from {first} to {last} of {self.tokens}"
            )
        rows = np.empty((len(starts), length), self.dtype)
        first_B = np.searchsorted(self._offsets, starts, side="right") - 1
        inside_B = starts + length <= self._offsets[first_B + 1]
        for k in np.unique(first_B[inside_B]).tolist():
            here = np.flatnonzero(inside_B & (first_B == k))
            rows[here] = self._windows(k, length)[starts[here] - self._offsets[k]]
        for row in np.flatnonzero(~inside_B).tolist():
            rows[row] = self.read(int(starts[row]), int(starts[row]) + length)
        return rows

    def _check_here(self) -> None:
        if self.is_elsewhere:
            raise ShardError(f"{self.path}: its text is not here: a trainer of one's own reads it")

    @cached_property
    def _offsets(self) -> IntArray:
        return np.cumsum([0, *(shard.tokens for shard in self.shards)], dtype=np.int64)

    @cached_property
    def _maps(self) -> dict[int, NDArray[Any]]:
        return {}

    def _map(self, k: int) -> NDArray[Any]:
        if k not in self._maps:
            mapped = np.memmap(self.path / self.shards[k].file, dtype=self.dtype, mode="r")
            self._maps[k] = np.asarray(mapped)
        return self._maps[k]

    def _windows(self, k: int, length: int) -> NDArray[Any]:
        return np.lib.stride_tricks.sliding_window_view(self._map(k), length)


def _reopen(path: Path) -> TokenShards:
    return TokenShards.open(path, verify=False)


def _from_index(path: Path, index: dict[str, Any]) -> TokenShards:
    if index["dtype"] not in DTYPES:
        raise _damaged(path, f"dtype: {shown_name(index['dtype'])}; tokens are uint16 or uint32")
    shards = tuple(_shard(path, k, entry) for k, entry in enumerate(index["shards"]))
    held = sum(shard.tokens for shard in shards)
    is_elsewhere = index.get("elsewhere") is True and not shards
    if held != index["tokens"] and not is_elsewhere:
        raise _damaged(path, f"{index['tokens']} tokens, but its shards have {held}")
    return TokenShards(
        path=path,
        tokens=index["tokens"],
        documents=index["documents"],
        bytes=index["bytes"],
        dtype=DTYPES[index["dtype"]],
        tokenizer=index["tokenizer"],
        shards=shards,
        is_elsewhere=is_elsewhere,
    )


def _shard(path: Path, place: int, entry: object) -> Shard:
    where = f"shards.{place}"
    if not isinstance(entry, dict):
        raise _damaged(path, f"{where}: expected fields, got {type(entry).__name__}")
    fields: dict[str, type] = {"file": str, "tokens": int, "sha256": str}
    for name, kind in fields.items():
        if name not in entry:
            raise _damaged(path, f"{where}.{name}: is missing")
        fault = value_fault(entry[name], kind)
        if fault is not None:
            raise _damaged(path, f"{where}.{name}: {fault}")
    return Shard(entry["file"], entry["tokens"], entry["sha256"])


def _check_files(opened: TokenShards, entries: list[dict[str, Any]], *, verify: bool) -> None:
    """Check that each file is in its folder, or where its index says that it is linked to."""
    verifier = Verifier(opened.path) if verify else None
    for shard, entry in zip(opened.shards, entries, strict=True):
        path = _place(opened.path, shard.file, entry.get("link"))
        size = shard.tokens * opened.dtype.itemsize
        _check_size(path, size)
        if verifier is not None:
            record = FileRecord(size, shard.sha256)
            fault = verifier.fault(shard.file, record, path=path)
            if fault is not None and "sha256" in fault:
                fault = f"SHA-256 is not {shard.sha256[:12]}…, which its index says"
            if fault is not None:
                raise ShardError(f"{path}: altered: {fault}; {PREPARE_AGAIN}")
    if verifier is not None:
        verifier.remember()


def _place(folder: Path, file: str, link: object) -> Path:
    """Return the path of a shard; one that `import_tokens` linked is where its index says."""
    path = folder / check_name(file, f"{folder / INDEX}: file", ShardError)
    if link is None:
        return inside(folder, file, ShardError)
    if path.is_symlink() and str(path.resolve()) != link:
        raise ShardError(f"{path}: is a link to {path.resolve()}, its index says {link!r}")
    return path


def _damaged(path: Path, what: str) -> ShardError:
    return ShardError(f"{path / INDEX}: {what}; {PREPARE_AGAIN}")


def _check_size(path: Path, expected: int) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise absent(path, ShardError) from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would never end
        raise ShardError(f"{path}: is no file; {PREPARE_AGAIN}")
    found = status.st_size
    if found != expected:
        what = "truncated" if found < expected else "altered"
        raise ShardError(
            f"{path}: {what}: {found} bytes, its index says {expected}; {PREPARE_AGAIN}"
        )
