"""Make token shards of one domain and split from the files of another tool.

A file that is a valid shard on the same file system is hard-linked instead of copied; it is hashed
once, so opening the shards detects a later change. Many small files are always copied into few
shards, since a job that reads shards checks each file.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixopt.corpus.token_formats import FORMATS, TYPES, TokenFile, open_token_files
from mixopt.corpus.token_shards import DTYPES, SHARD_TOKENS, Shard, TokenShards, TokenWriter
from mixopt.corpus.tokenizer import known_size
from mixopt.errors import CorpusError, RunError, did_you_mean
from mixopt.system import AnyArray, DType, IntArray, file_hash

BLOCK = 4096  # tokens of a piece if document ends are unknown
_MAX_SMALL_LINKS = 256  # up to this many files are linked whatever their size
_MAX_IDS = 1 << 32  # ids that a shard can hold


class CountedTokens(NamedTuple):
    """Tokens to write, and the documents and bytes of text in them."""

    tokens: AnyArray
    documents: int
    bytes: int


class TokenFiles:
    """Token files, read any number of times; every read checks the ids."""

    def __init__(
        self,
        files: Sequence[TokenFile],
        tokenizer: str,
        vocab_size: int | None,
        document_end: int | None,
    ) -> None:
        """Check the ids, and store the sizes and time stamps of the files."""
        if vocab_size is not None and not 1 <= vocab_size <= _MAX_IDS:
            raise CorpusError(f"vocab_size {vocab_size}; a tokenizer has from 1 to 2**32 ids")
        self.vocab_size = vocab_size or known_size(tokenizer) or _MAX_IDS
        self._tokenizer = tokenizer
        self._ids = f"{tokenizer!r} has the ids 0 to {self.vocab_size - 1}"
        if self.vocab_size == _MAX_IDS:
            self._ids = "an id is from 0 to 2**32 - 1"
        if document_end is not None and not 0 <= document_end < self.vocab_size:
            raise CorpusError(f"document_end {document_end}: {self._ids}")
        self.files = files
        self.document_end = document_end
        self.has_documents = document_end is not None or all(file.ends for file in files)
        self.largest = 0
        self._before = self._stamps()

    @property
    def tokens(self) -> int:
        """Tokens in all files."""
        return sum(file.tokens for file in self.files)

    def parts(self, file: TokenFile) -> Iterator[AnyArray]:
        """Yield the tokens of a file in parts; raise on ids outside the vocabulary."""
        start = 0
        for part in file.parts():
            largest = int(part.max())
            if not 0 <= int(part.min()) <= largest < self.vocab_size:
                wrong = int(np.flatnonzero((part < 0) | (part >= self.vocab_size))[0])
                raise CorpusError(
                    f"{file.path}: token {start + wrong} is {int(part[wrong])}, but {self._ids};"
                    " check the tokenizer and dtype"
                )
            self.largest = max(self.largest, largest)
            start += len(part)
            yield part

    def pieces(self) -> Iterator[AnyArray]:
        """Yield the documents, or blocks, of all files."""
        for file in self.files:
            ends = None if file.ends is None else file.ends()
            yield from token_pieces(self.parts(file), self.document_end, ends)

    def check_unchanged(self) -> None:
        """Check that no file has changed since it was opened."""
        for file, stamp in self._stamps().items():
            if stamp != self._before[file]:
                raise CorpusError(
                    f"{file}: changed while it was being read; wait until it is complete,"
                    " then read it again"
                )

    @property
    def dtype(self) -> DType:
        """uint16 or uint32: the smaller type that holds all tokens."""
        width = max(file.stored.itemsize for file in self.files)
        is_small = width <= 2 or (width == 8 and self.vocab_size <= 1 << 16)
        return DTYPES["uint16" if is_small else "uint32"]

    @property
    def _can_be_linked(self) -> bool:
        """Whether all files are valid shards of one type, and not many small ones."""
        mean = self.tokens / max(len(self.files), 1)
        is_small = len(self.files) > _MAX_SMALL_LINKS and mean < SHARD_TOKENS / 2
        widths = {file.stored.itemsize for file in self.files}
        return len(widths) == 1 and all(file.is_shard for file in self.files) and not is_small

    def write(
        self,
        out: Path,
        dtype: DType,
        read: Callable[[], Iterator[CountedTokens]],
        *,
        may_link: bool = True,
    ) -> TokenWriter:
        """Write the tokens of `read()` as shards; link the files if it yields all their tokens."""
        if may_link and self._can_be_linked:
            linked = self._link(out, read())
            if linked is not None:
                return linked
        with self._writer(out, dtype) as writer:
            for tokens, documents, size in read():
                writer.write(tokens, documents=documents, bytes=size)
        return writer

    def _link(self, out: Path, pieces: Iterator[CountedTokens]) -> TokenWriter | None:
        """Link the files as shards; return None if `pieces` lack tokens or linking fails."""
        tokens = documents = size = 0
        for piece in pieces:
            tokens += len(piece.tokens)
            documents += piece.documents
            size += piece.bytes
        self.check_unchanged()
        if tokens != self.tokens:
            return None
        # Linking fails on another file system, or without permission.
        with suppress(OSError, RunError), self._writer(out, self.dtype) as writer:
            for file in self.files:
                writer.take(file.path, Shard("", file.tokens, file_hash(file.path)))
            writer.documents = documents
            writer.bytes = size
            return writer
        return None

    def _writer(self, out: Path, dtype: DType) -> TokenWriter:
        return TokenWriter(out, dtype=dtype, tokenizer=self._tokenizer)

    def _stamps(self) -> dict[Path, tuple[int, int, int] | None]:
        stamps: dict[Path, tuple[int, int, int] | None] = {}
        for file in self.files:
            for path in file.files:
                stamps[path] = None
                with suppress(OSError):
                    status = path.stat()
                    stamps[path] = status.st_ino, status.st_size, status.st_mtime_ns
        return stamps


def token_pieces(
    parts: Iterable[AnyArray],
    document_end: int | None,
    ends: IntArray | None = None,
    block: int = BLOCK,
) -> Iterator[AnyArray]:
    """Cut tokens into documents, by `ends` or after each `document_end`, or into blocks."""
    passed = 0
    unfinished: list[AnyArray] = []  # earlier parts of the current piece
    for part in parts:
        if ends is not None:
            first, last = np.searchsorted(ends, [passed, passed + len(part)], side="right")
            stops = ends[first:last] - passed
        elif document_end is not None:
            stops = np.flatnonzero(part == document_end) + 1
        else:
            stops = np.arange(-passed % block, len(part) + 1, block)
        passed += len(part)
        start = 0
        for stop in stops.tolist():
            piece = part[start:stop]
            if unfinished:
                piece = np.concatenate([*unfinished, piece])
                unfinished = []
            if len(piece):
                yield piece
            start = stop
        if start < len(part):
            unfinished.append(part[start:])
    if unfinished:
        yield np.concatenate(unfinished)


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
        out: The folder of shards, such as `corpus/web/train`; must not exist.
        format: megatron, datatrove, npy or raw; None: detected from the files.
        tokenizer: Name of the tokenizer, stored in the index.
        document_end: The end-of-document id, to count documents if the format does not.
        dtype: Type of a stored token, uint8, uint16, uint32, int32 or int64; needed if the files
            do not state it.
        vocab_size: Number of ids of the tokenizer, >= 1; optional for `bytes`, `bpe:<ids>` and a
            tokenizer whose files are on this machine.

    Returns:
        The shards, with `bytes` 0, since the length of the text is unknown.

    Raises:
        CorpusError: The files have another format, are damaged, do not state the token type or have
            an id outside the vocabulary, or `out` exists.
    """
    out = Path(out)
    _check_choice("format", format, FORMATS)
    _check_choice("dtype", dtype, TYPES)
    if out.exists():
        raise CorpusError(f"{out}: already exists; remove it or choose another folder")
    sources = [source] if isinstance(source, (str, Path)) else source
    opened = open_token_files([str(path) for path in sources], format, dtype)
    if not opened:
        raise CorpusError("source is empty; name at least one token file")
    files = TokenFiles(opened, tokenizer, vocab_size, document_end)

    def read() -> Iterator[CountedTokens]:
        """Yield all tokens, and the documents that end in them."""
        for file in opened:
            documents = file.documents
            for part in files.parts(file):
                if file.ends is None and document_end is not None:
                    documents = int(np.count_nonzero(part == document_end))
                yield CountedTokens(part, documents, 0)
                documents = 0

    files.write(out, files.dtype, read)
    files.check_unchanged()
    return TokenShards.open(out, verify=False)


def _check_choice(name: str, value: str | None, choices: Iterable[str]) -> None:
    if value is not None and value not in choices:
        raise CorpusError(f"{name} {value!r}{did_you_mean(value, choices)}")
