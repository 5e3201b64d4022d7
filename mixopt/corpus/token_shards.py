"""Token shards on disk: open them, check them and read rows (token_writer writes).

One folder holds the tokens of one domain and split: `index.json` and `00000.bin`, `00001.bin`,
…, which are raw little-endian integers. Documents follow each other, each ended by the
tokenizer's end-of-document id. The index says how many tokens each shard has and their SHA-256,
so a truncated or altered shard is found. Only numpy is needed.

Shapes: B rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from mixopt.corpus.index_files import INDEX, PREPARE_AGAIN, read_index, value_fault
from mixopt.corpus.shard_files import Shard, ShardFiles
from mixopt.corpus.token_writer import DTYPES, FORMAT
from mixopt.errors import RunError, ShardError
from mixopt.system import (
    FileRecord,
    IntArray,
    Verifier,
    check_name,
    made_once,
    shown_name,
    usable_cores,
)

FEW = 1024  # shards that are mapped all at once
_ALONE = 1 << 26  # bytes that every process hashes for itself, sooner than it would wait
_HASH = re.compile(r"[0-9a-f]{64}")
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
    """

    path: Path
    tokens: int
    documents: int
    bytes: int
    dtype: np.dtype[Any]
    tokenizer: str
    shards: Sequence[Shard]
    is_elsewhere: bool = False

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> TokenShards:
        """Open a folder of shards and check it against its index.

        Args:
            path: The folder.
            verify: Compare the hash of every shard; a large one is remembered by its size and time
                stamps. Sizes are always compared. A process may leave out what its parent has
                verified.

        Raises:
            ShardError: The index is absent or damaged, or a shard is absent, truncated or altered.
        """
        path = Path(path)
        index = read_index(path, FORMAT, _FIELDS, ShardError)
        if index["dtype"] not in DTYPES:
            raise _damaged(
                path, f"dtype: {shown_name(index['dtype'])}; tokens are uint16 or uint32"
            )
        shards = tuple(_shard(path, k, entry) for k, entry in enumerate(index["shards"]))
        opened = cls(
            path=path,
            tokens=index["tokens"],
            documents=index["documents"],
            bytes=index["bytes"],
            dtype=DTYPES[index["dtype"]],
            tokenizer=index["tokenizer"],
            shards=shards,
            is_elsewhere=index.get("elsewhere") is True and not shards,
        )
        held = int(opened.offsets[-1])
        if held != opened.tokens and not opened.is_elsewhere:
            raise _damaged(path, f"{opened.tokens} tokens, but its shards have {held}")
        opened.files.check()
        if verify:
            opened._check_hashes()
        return opened

    def __len__(self) -> int:
        """Count the tokens."""
        return self.tokens

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the path to another process, not the tokens."""
        return (_reopened, (self.path,))

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
        """Whether the shards are few, so that all of them may be mapped."""
        return len(self.shards) <= FEW

    @cached_property
    def offsets(self) -> IntArray:
        """The first token of each shard and the end of the last, shape (shards + 1,)."""
        return np.cumsum([0, *(shard.tokens for shard in self.shards)], dtype=np.int64)

    @cached_property
    def files(self) -> ShardFiles:
        """The files, for readers that read of several folders at once."""
        return ShardFiles(self.path, self.shards, self.dtype)

    def _check_hashes(self) -> None:
        """Compare the hashes; of many bytes once a node, however many processes ask."""
        if self.tokens * self.dtype.itemsize > _ALONE:
            with suppress(RunError):  # a folder that cannot be written
                made_once(self.path, self._is_known, self._compare_hashes)
                return
        self._compare_hashes()

    def _is_known(self) -> bool | None:
        """Return whether all was compared before; None where it was not."""
        verifier = Verifier(self.path)
        pairs = zip(self.shards, self._records, strict=True)
        return all(verifier.knows(s.file, r, self.path / s.file) for s, r in pairs) or None

    def _compare_hashes(self) -> bool:
        verifier = Verifier(self.path)
        files = [shard.file for shard in self.shards]
        with ThreadPoolExecutor(usable_cores()) as pool:
            faults = list(pool.map(verifier.fault, files, self._records))
        for shard, found in zip(self.shards, faults, strict=True):
            if found is not None:
                what = f"SHA-256 is not {shard.sha256[:12]}…, the one in its index"
                raise ShardError(
                    f"{self.path / shard.file}: altered:"
                    f" {what if 'sha256' in found else found}; {PREPARE_AGAIN}"
                )
        verifier.remember()
        return True

    @property
    def _records(self) -> list[FileRecord]:
        item = self.dtype.itemsize
        return [FileRecord(shard.tokens * item, shard.sha256) for shard in self.shards]

    def _check_here(self) -> None:
        if self.is_elsewhere:
            raise ShardError(
                f"{self.path}: its text is not available here; only your own trainer reads it"
            )

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


def _reopened(path: Path) -> TokenShards:
    return TokenShards.open(path, verify=False)


def _shard(folder: Path, place: int, entry: object) -> Shard:
    """Return the shard of an entry of an index."""
    where = f"shards.{place}"
    if not isinstance(entry, dict):
        raise _damaged(folder, f"{where}: expected fields, got {type(entry).__name__}")
    for name, kind in {"file": str, "tokens": int, "sha256": str}.items():
        if name not in entry:
            raise _damaged(folder, f"{where}.{name}: is missing")
        fault = value_fault(entry[name], kind)
        if fault is not None:
            raise _damaged(folder, f"{where}.{name}: {fault}")
    if not _HASH.fullmatch(entry["sha256"]):
        raise _damaged(folder, f"{where}.sha256: {shown_name(entry['sha256'])} is not a SHA-256")
    check_name(entry["file"], f"{folder / INDEX}: file", ShardError)
    return Shard(entry["file"], entry["tokens"], entry["sha256"])


def _damaged(folder: Path, what: str) -> ShardError:
    """Return the error for an index of shards that cannot be right."""
    return ShardError(f"{folder / INDEX}: {what}; {PREPARE_AGAIN}")
