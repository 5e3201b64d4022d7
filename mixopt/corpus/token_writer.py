"""Write token shards: raw little-endian integers with an index (token_shards reads them).

The shards and then the index are written to a temporary folder and synced to disk, and the complete
folder is renamed: a reader never sees a part of it. Existing files that are valid shards are added
by hard links: symbolic links in a run directory, which may come from anyone, could point to any
file of the machine that opens it.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mixopt.corpus.index_files import INDEX
from mixopt.corpus.token_shards import DTYPES, FORMAT, Shard
from mixopt.errors import ShardError
from mixopt.system import temporary_path, write_sealed, writing

SHARD_TOKENS = 1 << 27


class TokenWriter:
    """Write one folder of token shards; it appears, complete, when the `with` block ends."""

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: DTypeLike,
        tokenizer: str,
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        """Set the folder and the token type."""
        name = np.dtype(dtype).name
        if name not in DTYPES:
            raise ShardError(f"{path}: dtype {name!r}; tokens are uint16 or uint32")
        self.path = Path(path)
        self.dtype = DTYPES[name]
        self.tokenizer = tokenizer
        self.shard_tokens = shard_tokens
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

    def write(self, tokens: NDArray[Any], documents: int, bytes: int) -> None:
        """Append tokens."""
        fitting = self._cast(tokens)
        with writing(self.path):
            while len(fitting):
                room = self.shard_tokens - self._in_shard
                self._append(fitting[:room])
                fitting = fitting[room:]
        self.documents += documents
        self.bytes += bytes

    def take(self, file: Path, shard: Shard, *, is_moved: bool = False) -> None:
        """Add a file of the same file system as the next shard, by a hard link or by moving it."""
        self._end_shard()
        name = self._next_name
        (os.rename if is_moved else os.link)(file.resolve(), self._folder / name)
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

    def _index(self) -> dict[str, Any]:
        header = {"format": FORMAT, "dtype": self.dtype.name, "tokenizer": self.tokenizer}
        counts = {"tokens": self.tokens, "documents": self.documents, "bytes": self.bytes}
        elsewhere = {"elsewhere": True} if self.is_elsewhere else {}
        return header | counts | elsewhere | {"shards": [shard._asdict() for shard in self._shards]}

    @property
    def _next_name(self) -> str:
        return f"{len(self._shards):05d}.bin"

    def _cast(self, tokens: NDArray[Any]) -> NDArray[Any]:
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

    def _append(self, tokens: NDArray[Any]) -> None:
        if self._stream is None:
            self._stream = (self._folder / self._next_name).open("wb")
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
        self._shards.append(Shard(self._next_name, self._in_shard, self._hash.hexdigest()))
        self._stream, self._in_shard = None, 0


def write_elsewhere(path: Path, tokens: int, tokenizer: str) -> None:
    """Write the index of text that is not here, with its stated number of tokens."""
    with TokenWriter(path, dtype="uint16", tokenizer=tokenizer) as writer:
        writer.tokens, writer.is_elsewhere = tokens, True
