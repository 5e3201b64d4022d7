"""Token shards on disk: map them into memory and verify them (token_writer writes them).

One folder holds the tokens of one domain and split: `index.json` and `00000.bin`, `00001.bin`,
…, which are raw little-endian integers. Documents follow each other, each ended by the
tokenizer's end-of-document id. The index says how many tokens each shard has and their SHA-256,
so a truncated or altered shard is found when it is opened. Only numpy is needed.

Shapes: B rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.corpus.token_writer import DTYPES, FORMAT, Shard, TokenWriter
from mixopt.errors import ShardError
from mixopt.system import IntArray, read_json

PREPARE_AGAIN = "prepare the corpus again: mixopt prepare CONFIG --out DIR"

__all__ = ["Shard", "TokenShards", "TokenWriter"]


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
    """

    path: Path
    tokens: int
    documents: int
    bytes: int
    dtype: np.dtype[Any]
    tokenizer: str
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> TokenShards:
        """Open a folder of shards and check it against its index.

        Args:
            path: The folder.
            verify: Compare the hash of every shard; sizes are always compared. A process may
                leave out what its parent has verified.

        Raises:
            ShardError: The index is absent or damaged, or a shard is absent, truncated or altered.
        """
        path = Path(path)
        index = read_json(path / "index.json", missing=lambda: _absent(path / "index.json"))
        opened = _from_index(path, index)
        for shard in opened.shards:
            _check_size(path / shard.file, shard.tokens * opened.dtype.itemsize)
            if verify:
                _check_hash(path / shard.file, shard.sha256)
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
        """
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
        """
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


def _absent(path: Path) -> ShardError:
    return ShardError(f"{path}: not found; {PREPARE_AGAIN}")


def _from_index(path: Path, index: Any) -> TokenShards:
    try:
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}, expected {FORMAT!r}")
        shards = tuple(Shard(s["file"], int(s["tokens"]), s["sha256"]) for s in index["shards"])
        opened = TokenShards(
            path=path,
            tokens=int(index["tokens"]),
            documents=int(index["documents"]),
            bytes=int(index["bytes"]),
            dtype=DTYPES[index["dtype"]],
            tokenizer=index["tokenizer"],
            shards=shards,
        )
        held = sum(shard.tokens for shard in shards)
        if held != opened.tokens:
            raise ValueError(f"{opened.tokens} tokens, but its shards have {held}")
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"{path / 'index.json'}: {error}; {PREPARE_AGAIN}") from error
    return opened


def _check_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise _absent(path) from error
    if found != expected:
        what = "truncated" if found < expected else "altered"
        raise ShardError(
            f"{path}: {what}: {found} bytes, its index says {expected}; {PREPARE_AGAIN}"
        )


def _check_hash(path: Path, expected: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise ShardError(
            f"{path}: altered: SHA-256 {found[:12]}…, its index says {expected[:12]}…;"
            f" {PREPARE_AGAIN}"
        )
