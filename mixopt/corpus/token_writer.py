"""Write token shards: raw little-endian integers with an index (token_shards reads them).

The shards and then the index go to a temporary folder, are synced to disk, and the folder takes
its place when all is written: a reader never sees half of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mixopt.corpus.shard import Shard
from mixopt.errors import RunError, ShardError
from mixopt.system import temporary_path, write_sealed

FORMAT = "mixopt-tokens/2"
SHARD_TOKENS = 1 << 27
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


class TokenWriter:
    """Write one folder of token shards; it appears, whole, when the `with` block ends."""

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: DTypeLike,
        tokenizer: str,
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        """Choose the folder and the type of a token.

        Args:
            path: The folder; what is there is replaced.
            dtype: uint16 or uint32.
            tokenizer: Name of the tokenizer, kept in the index.
            shard_tokens: Most tokens of one file, >= 1.

        Raises:
            ShardError: Another dtype.
        """
        name = np.dtype(dtype).name
        if name not in DTYPES:
            raise ShardError(f"{path}: dtype {name!r}; tokens are uint16 or uint32")
        self.path = Path(path)
        self.dtype = DTYPES[name]
        self.tokenizer = tokenizer
        self.shard_tokens = shard_tokens
        self.tokens = self.documents = self.bytes = 0
        self._folder = temporary_path(self.path)
        self._shards: list[Shard] = []
        self._stream: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._in_shard = 0

    def __enter__(self) -> Self:
        """Make the temporary folder."""
        with _written(self.path):
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
        return self

    def write(self, tokens: NDArray[Any], documents: int, bytes: int) -> None:
        """Append tokens.

        Args:
            tokens: Integers, shape (tokens,), that end with an end-of-document id where a
                document ends.
            documents: How many documents end in them.
            bytes: Length of their text in UTF-8.

        Raises:
            ShardError: A token that does not fit the dtype.
            RunError: The disk is full or the folder cannot be written.
        """
        fitting = self._fitting(tokens)
        with _written(self.path):
            while len(fitting):
                room = self.shard_tokens - self._in_shard
                self._append(fitting[:room])
                fitting = fitting[room:]
        self.documents += documents
        self.bytes += bytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the folder in its place, or remove it if the block failed."""
        try:
            with _written(self.path):
                self._end_shard()
                if kind is None:
                    self._publish()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _fitting(self, tokens: NDArray[Any]) -> NDArray[Any]:
        if tokens.dtype == self.dtype or not len(tokens):
            return tokens.astype(self.dtype, copy=False)
        if not np.issubdtype(tokens.dtype, np.integer):
            raise ShardError(f"{self.path}: tokens of dtype {tokens.dtype}; integers are expected")
        most = int(np.iinfo(self.dtype).max)
        for token in (int(tokens.min()), int(tokens.max())):
            if not 0 <= token <= most:
                raise ShardError(
                    f"{self.path}: token {token} does not fit {self.dtype.name} (0 to {most});"
                    " open the TokenWriter with dtype='uint32'"
                )
        return tokens.astype(self.dtype)

    def _append(self, tokens: NDArray[Any]) -> None:
        if self._stream is None:
            self._stream = (self._folder / f"{len(self._shards):05d}.bin").open("wb")
            self._hash, self._in_shard = hashlib.sha256(), 0
        content = tokens.tobytes()
        self._stream.write(content)
        self._hash.update(content)
        self._in_shard += len(tokens)
        self.tokens += len(tokens)
        if self._in_shard == self.shard_tokens:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._stream is None:
            return
        with self._stream as stream:
            stream.flush()
            os.fsync(stream.fileno())
        file = Path(stream.name).name
        self._shards.append(Shard(file, self._in_shard, self._hash.hexdigest()))
        self._stream, self._in_shard = None, 0

    def _publish(self) -> None:
        write_sealed(
            self._folder / "index.json",
            {
                "format": FORMAT,
                "dtype": self.dtype.name,
                "tokens": self.tokens,
                "documents": self.documents,
                "bytes": self.bytes,
                "tokenizer": self.tokenizer,
                "shards": [shard.to_json() for shard in self._shards],
            },
        )
        if self.path.exists():
            shutil.rmtree(self.path)
        self._folder.rename(self.path)


def write_elsewhere(path: Path, tokens: int, tokenizer: str) -> None:
    """Write the index of absent text whose number of tokens is known.

    Args:
        path: The folder that would have its shards.
        tokens: How many tokens it has; 0 where that is not known.
        tokenizer: Name of the corpus's tokenizer.
    """
    known = {"tokens": tokens, "documents": 0, "bytes": 0, "shards": []}
    content = {"format": FORMAT, "dtype": "uint16", "tokenizer": tokenizer, "elsewhere": True}
    write_sealed(path / "index.json", {**content, **known})


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
