"""Make token shards of one domain and split from the files of another tool.

Where the bytes are those of a shard and on the same file system, a hard link is made instead of a
copy; it is hashed once, so a later change is found when the shards are opened. Many small files are
copied into few shards in any case, since a job that reads shards looks at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.token_formats import FORMATS, TYPES, TokenFile, open_token_files
from mixopt.corpus.token_shards import DTYPES, Shard, TokenShards
from mixopt.corpus.token_writer import SHARD_TOKENS, TokenWriter
from mixopt.corpus.tokenizer import known_size
from mixopt.errors import CorpusError, RunError, did_you_mean
from mixopt.system import IntArray, file_hash

BLOCK = 4096  # tokens of a piece, where it is not known where documents end
_FEW = 256  # files that are linked however small they are
_MAX_IDS = 1 << 32  # ids that a shard can have
Given = tuple[NDArray[Any], int, int]  # tokens, and the documents and bytes of text in them


class TokenFiles:
    """Files of tokens, each id checked as they are read, any number of times."""

    def __init__(
        self,
        files: Sequence[TokenFile],
        tokenizer: str,
        vocab_size: int | None,
        document_end: int | None,
    ) -> None:
        """Note the sizes and time stamps of the files."""
        if vocab_size is not None and not 1 <= vocab_size <= _MAX_IDS:
            raise CorpusError(f"vocab_size {vocab_size}; a tokenizer has from 1 to 2**32 ids")
        self.vocab_size = vocab_size or known_size(tokenizer) or _MAX_IDS
        self._tokenizer = tokenizer
        self._ids = f"{tokenizer!r} has the ids 0 to {self.vocab_size - 1}"
        if self.vocab_size == _MAX_IDS:
            self._ids = "an id is from 0 to 2**32 - 1"
        if document_end is not None and not 0 <= document_end < self.vocab_size:
            raise CorpusError(f"document_end {document_end}: {self._ids}")
        self.files, self.document_end = files, document_end
        self.has_documents = document_end is not None or all(one.ends for one in files)
        self.largest = 0
        self._before = self._stamps()

    @property
    def tokens(self) -> int:
        """Tokens in all files."""
        return sum(one.tokens for one in self.files)

    def parts(self, file: TokenFile) -> Iterator[NDArray[Any]]:
        """Give the tokens of a file, some at a time; all are the tokenizer's."""
        place = 0
        for part in file.parts():
            largest = int(part.max())
            if not 0 <= int(part.min()) <= largest < self.vocab_size:
                wrong = int(np.flatnonzero((part < 0) | (part >= self.vocab_size))[0])
                raise CorpusError(
                    f"{file.path}: token {place + wrong} is {int(part[wrong])}: {self._ids};"
                    " is this its tokenizer, and dtype its type?"
                )
            self.largest = max(self.largest, largest)
            place += len(part)
            yield part

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Give the documents, or blocks, of all files."""
        for file in self.files:
            ends = None if file.ends is None else file.ends()
            yield from token_pieces(self.parts(file), self.document_end, ends)

    def check_unchanged(self) -> None:
        """Check that no file has changed since it was opened."""
        for file, stamp in self._stamps().items():
            if stamp != self._before[file]:
                raise CorpusError(
                    f"{file}: changed while it was being read; wait until nothing writes to it, "
                    "and read it again"
                )

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 or uint32, which holds all tokens."""
        width = max(one.stored.itemsize for one in self.files)
        is_small = width <= 2 or (width == 8 and self.vocab_size <= 1 << 16)
        return DTYPES["uint16" if is_small else "uint32"]

    @property
    def _can_be_linked(self) -> bool:
        """Whether all files are shards of one type as they are, and not many small ones."""
        is_small = len(self.files) > _FEW and self.tokens < len(self.files) * SHARD_TOKENS / 2
        widths = {one.stored.itemsize for one in self.files}
        return len(widths) == 1 and all(one.is_shard for one in self.files) and not is_small

    def write(
        self,
        out: Path,
        dtype: np.dtype[Any],
        give: Callable[[], Iterator[Given]],
        *,
        may_link: bool = True,
    ) -> TokenWriter:
        """Make shards: of the files, where all of their tokens are given and links can be made."""
        if may_link and self._can_be_linked:
            tokens = documents = length = 0
            for part, of_part, size in give():
                tokens, documents, length = tokens + len(part), documents + of_part, length + size
            self.check_unchanged()
            if tokens == self.tokens:
                # Another file system, or a file that may not be linked.
                with suppress(OSError, RunError), self._writer(out, self.dtype) as writer:
                    for one in self.files:
                        writer.take(one.path, Shard("", one.tokens, file_hash(one.path)))
                    writer.documents, writer.bytes = documents, length
                    return writer
        with self._writer(out, dtype) as writer:
            for part, of_part, size in give():
                writer.write(part, documents=of_part, bytes=size)
        return writer

    def _writer(self, out: Path, dtype: np.dtype[Any]) -> TokenWriter:
        return TokenWriter(out, dtype=dtype, tokenizer=self._tokenizer)

    def _stamps(self) -> dict[Path, tuple[int, int, int] | None]:
        stamps: dict[Path, tuple[int, int, int] | None] = {}
        for file in (file for one in self.files for file in one.files):
            stamps[file] = None
            with suppress(OSError):
                status = file.stat()
                stamps[file] = status.st_ino, status.st_size, status.st_mtime_ns
        return stamps


def token_pieces(
    parts: Iterable[NDArray[Any]],
    document_end: int | None,
    ends: IntArray | None = None,
    block: int = BLOCK,
) -> Iterator[NDArray[Any]]:
    """Cut tokens at the ends of documents: at places, after an id, or else into blocks."""
    passed = 0
    held: list[NDArray[Any]] = []
    for part in parts:
        if ends is not None:
            first, last = np.searchsorted(ends, [passed, passed + len(part)], side="right")
            stops = ends[first:last] - passed
        elif document_end is not None:
            stops = np.flatnonzero(part == document_end) + 1
        else:
            stops = np.arange(-passed % block, len(part) + 1, block)
        passed, start = passed + len(part), 0
        for stop in stops.tolist():
            piece = np.concatenate([*held, part[start:stop]]) if held else part[start:stop]
            if len(piece):
                yield piece
            start, held = stop, []
        if start < len(part):
            held.append(part[start:])
    if held:
        yield np.concatenate(held)


def import_tokens(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    tokenizer: str,
    document_end: int | None = None,
    dtype: str | None = None,
    vocab_size: int | None = None,
) -> TokenShards:
    """Make token shards of one domain and split from the files of another tool.

    Args:
        source: Files, Megatron's prefixes, globs and folders, one or many; all of one format.
        out: The folder of shards, such as `corpus/web/train`; it must not be there.
        format: megatron, datatrove, npy or raw; found by looking at the files if not given.
        tokenizer: Name of the tokenizer, kept in the index.
        document_end: The end-of-document id, to count documents where the format does not.
        dtype: The type of a stored token, uint8, uint16, uint32, int32 or int64; needed where the
            files do not say it.
        vocab_size: Ids of the tokenizer, >= 1; known without it for `bytes`, `bpe:<ids>` and a
            tokenizer whose files are on this machine.

    Returns:
        The shards. How long their text was is not known, so their `bytes` are 0.

    Raises:
        CorpusError: The files are not of that format, are damaged, do not say the type of a token,
            have an id outside the vocabulary, or `out` is there.
    """
    out = Path(out)
    for name, value, known in (("format", format, FORMATS), ("dtype", dtype, TYPES)):
        if value is not None and value not in known:
            raise CorpusError(f"{name} {value!r}{did_you_mean(value, known)}")
    if out.exists():
        raise CorpusError(f"{out}: already exists; remove it or choose another folder")
    sources = [source] if isinstance(source, (str, Path)) else source
    opened = open_token_files([str(one) for one in sources], format, dtype)
    if not opened:
        raise CorpusError("no file of tokens is named")
    files = TokenFiles(opened, tokenizer, vocab_size, document_end)

    def give() -> Iterator[Given]:
        """Give all tokens, and the documents that end in them."""
        for one in opened:
            documents = one.documents
            for part in files.parts(one):
                if one.ends is None and document_end is not None:
                    documents = int(np.count_nonzero(part == document_end))
                yield part, documents, 0
                documents = 0

    files.write(out, files.dtype, give)
    files.check_unchanged()
    return TokenShards.open(out, verify=False)
