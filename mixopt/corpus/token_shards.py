"""Token shards on disk or in a store: open them, check them and read rows (token_writer writes).

One folder holds the tokens of one domain and split: `index.json` and `00000.bin`, `00001.bin`,
…, which are raw little-endian integers. Documents follow each other, each ended by the
tokenizer's end-of-document id. The index says how many tokens each shard has and their SHA-256,
so a truncated or altered shard is found, and has a seal itself. Only numpy is needed.

A few shards are looked at whenever the folder is opened. Of many, one process of a node does that
once (known_shards), and later each is looked at when it is read (shard_files).

Shapes: B rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from mixopt.corpus.index_files import check_index_seal, read_index
from mixopt.corpus.known_shards import KnownShards, has_many, known_once, packed
from mixopt.corpus.shard import FEW, Shard, damaged, found_shard
from mixopt.corpus.shard_check import check_hashes
from mixopt.corpus.shard_files import ShardFiles
from mixopt.corpus.shard_store import ShardStore
from mixopt.corpus.token_writer import DTYPES, FORMAT, TokenWriter
from mixopt.errors import ShardError
from mixopt.system import IntArray, file_mark, shown_name

__all__ = ["Shard", "TokenShards", "TokenWriter"]

_FIELDS: dict[str, type] = {
    "dtype": str, "tokens": int, "documents": int, "bytes": int, "tokenizer": str, "shards": list,
}  # fmt: skip


@dataclass(frozen=True)
class TokenShards:
    """The tokens of one domain and split; a file is opened when it is first read.

    Attributes:
        path: The folder.
        tokens: Tokens in all shards, end-of-document tokens included.
        documents: Documents in all shards.
        bytes: Length of the text in UTF-8, for losses in bits per byte.
        dtype: Little-endian uint16 or uint32.
        tokenizer: Name of the tokenizer that made them.
        shards: The files, in order.
        is_elsewhere: Whether there are no files, since the user's own trainer has the text; `bytes`
            and `documents` are 0 then.
        store: The store that has the files, of which `path` has the index alone.
        is_verified: Whether hashes were compared.
    """

    path: Path
    tokens: int
    documents: int
    bytes: int
    dtype: np.dtype[Any]
    tokenizer: str
    shards: Sequence[Shard]
    is_elsewhere: bool = False
    store: ShardStore | None = None
    is_verified: bool = field(default=False, compare=False)

    @classmethod
    def open(
        cls, path: str | Path, *, verify: bool = True, store: ShardStore | None = None
    ) -> TokenShards:
        """Open a folder of shards and check it against its index.

        Up to 1,024 shards are looked at whenever they are opened. More are looked at by the first
        process of a node that opens them; what is wrong with one later is said when it is read.

        Args:
            path: The folder.
            verify: Compare the hash of every shard, once a node: a large one is remembered by its
                size and time stamps. Sizes are always compared. A process may leave out what its
                parent has verified.
            store: The store that has the shards, where the folder has the index alone; each is
                verified when it is fetched.

        Raises:
            ShardError: The index is absent or damaged, or a shard is absent, truncated or altered.
        """
        path = Path(path)
        verify = verify and store is None
        if has_many(path):
            known = known_once(
                path, lambda status: _found_out(path, status, store, verify), verified=verify
            )
            opened = _opened(path, known.fields, known)
        else:
            opened = _read(path)
            if store is None:
                _check_files(opened, verify=verify)
        return replace(opened, store=store, is_verified=verify)

    def __len__(self) -> int:
        """Count the tokens."""
        return self.tokens

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the path to another process, not the tokens."""
        return (_reopen, (self.path, self.store, self.is_verified))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Copy the tokens [start, stop).

        Raises:
            IndexError: The range is not inside [0, tokens].
            ShardError: The text is not here, or a shard is not what it was.
        """
        self._check_here()
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"{self.path}: tokens [{start}, {stop}) of {self.tokens}")
        return self._range(start, stop, self.can_be_mapped)

    def _range(self, start: int, stop: int, is_mapped: bool) -> NDArray[Any]:
        tokens = np.empty(stop - start, self.dtype)
        for k, first, last in self._pieces(start, stop):
            begin = int(self.offsets[k])
            out = tokens[first - start : last - start]
            if is_mapped:
                out[:] = self.files.mapped(k)[first - begin : last - begin]
            else:
                self.files.read(k, [first - begin], [out])
        return tokens

    def rows(self, starts_B: ArrayLike, length: int, *, one_of_many: bool = False) -> NDArray[Any]:
        """Copy `length` tokens from each start.

        Args:
            starts_B: First token of each row.
            length: Tokens of a row, >= 1.
            one_of_many: Whether so many folders are read that even few files are not mapped.

        Returns:
            Tokens, shape (B, length).

        Raises:
            IndexError: A row is not inside [0, tokens].
            ShardError: The text is not here, or a shard is not what it was.
        """
        self._check_here()
        starts = np.asarray(starts_B, dtype=np.int64)
        if starts.size and (starts.min() < 0 or starts.max() + length > self.tokens):
            first, last = int(starts.min()), int(starts.max())
            raise IndexError(
                f"{self.path}: rows of {length} from {first} to {last} of {self.tokens}"
            )
        rows = np.empty((len(starts), length), self.dtype)
        first_B = self.shards_of(starts)
        inside_B = starts + length <= self.offsets[first_B + 1]
        is_mapped = self.can_be_mapped and not one_of_many
        fill = self._fill_mapped if is_mapped else self._fill_read
        fill(rows, np.flatnonzero(inside_B), first_B, starts - self.offsets[first_B])
        for row in np.flatnonzero(~inside_B).tolist():
            rows[row] = self._range(int(starts[row]), int(starts[row]) + length, is_mapped)
        return rows

    def shards_of(self, places_B: IntArray) -> IntArray:
        """Return the number of the shard that each token is in, shape (B,)."""
        return np.searchsorted(self.offsets, places_B, side="right") - 1

    @property
    def can_be_mapped(self) -> bool:
        """Whether the shards are files and few, so that all of them may be mapped."""
        return self.store is None and len(self.shards) <= FEW

    @property
    def has_links(self) -> bool:
        """Whether the index says that shards are links."""
        if isinstance(self.shards, KnownShards):
            return self.shards.has_links
        return any(shard.link is not None for shard in self.shards)

    @cached_property
    def offsets(self) -> IntArray:
        """The first token of each shard and the end of the last, shape (shards + 1,)."""
        if isinstance(self.shards, KnownShards):
            return self.shards.offsets
        return np.cumsum([0, *(shard.tokens for shard in self.shards)], dtype=np.int64)

    @cached_property
    def files(self) -> ShardFiles:
        """The files, for readers that read of several folders at once."""
        return ShardFiles(
            self.path, self.shards, self.dtype, store=self.store, compares_marks=self.is_verified
        )

    def _check_here(self) -> None:
        if self.is_elsewhere:
            raise ShardError(
                f"{self.path}: its text is not available here; only your own trainer reads it"
            )

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Give the shards that have tokens [start, stop), and the first and last of each."""
        if start == stop:
            return
        first, last = self.shards_of(np.array([start, stop - 1])).tolist()
        bounds = self.offsets[first : last + 2].tolist()
        for k in range(first, last + 1):
            begin, end = bounds[k - first : k - first + 2]
            if begin < end:
                yield k, max(start, begin), min(stop, end)

    def _fill_mapped(
        self, rows: NDArray[Any], here: IntArray, shard_B: IntArray, inside_B: IntArray
    ) -> None:
        for k in np.unique(shard_B[here]).tolist():
            some = here[shard_B[here] == k]
            windows = sliding_window_view(self.files.mapped(k), rows.shape[1])
            rows[some] = windows[inside_B[some]]

    def _fill_read(
        self, rows: NDArray[Any], here: IntArray, shard_B: IntArray, inside_B: IntArray
    ) -> None:
        order = here[np.argsort(shard_B[here], kind="stable")].tolist()
        for k, some in groupby(order, shard_B.tolist().__getitem__):
            places = list(some)
            self.files.read(k, inside_B[places].tolist(), [rows[row] for row in places])


def _reopen(path: Path, store: ShardStore | None, is_verified: bool) -> TokenShards:
    """Open what another process has opened; a file that changed since is hashed when it is read."""
    opened = TokenShards.open(path, verify=False, store=store)
    return replace(opened, is_verified=is_verified)


def _read(path: Path) -> TokenShards:
    """Read an index; nothing is said of the files."""
    index = read_index(path, FORMAT, _FIELDS, ShardError)
    shards = tuple(Shard.from_json(path, k, entry) for k, entry in enumerate(index["shards"]))
    opened = _opened(path, index, shards)
    held = int(opened.offsets[-1])
    if held != opened.tokens and not opened.is_elsewhere:
        raise damaged(path, f"{index['tokens']} tokens, but its shards have {held}")
    check_index_seal(path, index, ShardError)
    return opened


def _opened(path: Path, index: dict[str, Any], shards: Sequence[Shard]) -> TokenShards:
    if index["dtype"] not in DTYPES:
        raise damaged(path, f"dtype: {shown_name(index['dtype'])}; tokens are uint16 or uint32")
    return TokenShards(
        path=path,
        tokens=index["tokens"],
        documents=index["documents"],
        bytes=index["bytes"],
        dtype=DTYPES[index["dtype"]],
        tokenizer=index["tokenizer"],
        shards=shards,
        is_elsewhere=index.get("elsewhere") is True and not shards,
    )


def _found_out(
    path: Path, index: os.stat_result, store: ShardStore | None, verify: bool
) -> NDArray[np.uint8]:
    """Return what this node is to know of many shards."""
    opened = _read(path)
    marks = [] if store is not None else _check_files(opened, verify=verify, is_locked=True)
    fields = {name: getattr(opened, name) for name in _FIELDS if name not in ("shards", "dtype")}
    fields["dtype"] = opened.dtype.name
    return packed(index, fields, opened.shards, marks, verified=verify)


def _check_files(opened: TokenShards, *, verify: bool, is_locked: bool = False) -> list[list[int]]:
    """Check that each file is in its folder, or where its index says that it is linked to."""
    item = opened.dtype.itemsize
    found = [found_shard(opened.path, one, one.tokens * item) for one in opened.shards]
    if verify:
        check_hashes(opened.path, opened.shards, item, is_locked=is_locked)
    return [file_mark(status) for status in found]
