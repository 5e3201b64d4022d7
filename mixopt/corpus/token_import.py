"""Make token shards of one domain and split from the files of another tool.

Where the bytes are those of a shard and on the same file system, a hard link is made instead of a
copy; it is hashed once, so a later change is found when the shards are opened. Many small files are
copied into few shards in any case, since a job that reads shards looks at each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.token_formats import (
    FORMATS,
    TYPES,
    TokenFile,
    find_token_files,
    found_format,
    open_token_file,
)
from mixopt.corpus.token_shards import DTYPES, Shard, TokenShards
from mixopt.corpus.token_writer import SHARD_TOKENS, TokenWriter
from mixopt.corpus.vocabulary import Vocabulary
from mixopt.errors import CorpusError, RunError, did_you_mean
from mixopt.system import file_hash

_FEW = 256  # files that are linked however small they are


class TokenFiles:
    """Files of tokens, each id checked as they are read, any number of times."""

    def __init__(
        self, files: Sequence[TokenFile], vocabulary: Vocabulary, document_end: int | None
    ) -> None:
        """Note the sizes and time stamps of the files."""
        if document_end is not None:
            vocabulary.check_id(document_end, "document_end")
        self.files, self.document_end = files, document_end
        self.has_documents = document_end is not None or all(one.ends for one in files)
        self.largest = 0
        self._vocabulary = vocabulary
        self._before = self._stamps()

    def parts(self, file: TokenFile) -> Iterator[NDArray[Any]]:
        """Give the tokens of a file, some at a time."""
        return self._vocabulary.checked(file.path, file.parts())

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Give the documents, or blocks, of all files."""
        for file in self.files:
            for tokens in file.pieces(self.parts(file), self.document_end):
                self.largest = max(self.largest, int(tokens.max()))
                yield tokens

    def check_unchanged(self) -> None:
        """Check that no file has changed since it was opened."""
        for file, stamp in self._stamps().items():
            if stamp != self._before[file]:
                raise CorpusError(
                    f"{file}: changed while it was being read; wait until nothing writes to it, "
                    "and read it again"
                )

    def shard_type(self) -> np.dtype[Any]:
        """Return the smaller of uint16 and uint32 that holds all tokens; read them where needed."""
        for one in self.files:
            if one.dtype is None:
                is_large = any(len(part) and int(part.max()) > 0xFFFF for part in one.parts())
            else:
                is_large = one.dtype.itemsize > 2
            if is_large:
                return DTYPES["uint32"]
        return DTYPES["uint16"]

    @property
    def can_be_linked(self) -> bool:
        """Whether all files are shards of one type as they are, and not many small ones."""
        tokens = sum(one.tokens for one in self.files)
        is_small = len(self.files) > _FEW and tokens < len(self.files) * SHARD_TOKENS / 2
        kinds = {one.dtype for one in self.files}
        return len(kinds) == 1 and all(one.is_shard for one in self.files) and not is_small

    def link(self, out: Path, tokenizer: str, *, documents: int, bytes: int = 0) -> bool:
        """Make shards of the files by hard links; tell whether that can be done."""
        self.check_unchanged()
        dtype = self.files[0].dtype
        assert dtype is not None, "the type of what is linked is known"
        try:
            with TokenWriter(out, dtype=dtype, tokenizer=tokenizer) as writer:
                for one in self.files:
                    writer.take(one.path, Shard("", one.tokens, file_hash(one.path)))
                writer.documents, writer.bytes = documents, bytes
        except (OSError, RunError):  # another file system, or a file that may not be linked
            return False
        return True

    def _stamps(self) -> dict[Path, tuple[int, int, int] | None]:
        return {file: _stamp(file) for one in self.files for file in one.files}


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
    if format is not None and format not in FORMATS:
        raise CorpusError(f"format {format!r}{did_you_mean(format, FORMATS)}")
    if dtype is not None and dtype not in TYPES:
        raise CorpusError(f"dtype {dtype!r}{did_you_mean(dtype, TYPES)}")
    vocabulary = Vocabulary.of(tokenizer, vocab_size)
    if out.exists():
        raise CorpusError(f"{out}: already exists; remove it or choose another folder")
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    paths = find_token_files([str(one) for one in sources], format)
    name = format or _one_format(paths)
    files = TokenFiles(
        [open_token_file(path, name, dtype) for path in paths], vocabulary, document_end
    )
    known = sum(one.documents or 0 for one in files.files)
    is_linked = False
    if files.can_be_linked:
        ended = sum(_ended(files, one, part) for one in files.files for part in files.parts(one))
        is_linked = files.link(out, tokenizer, documents=known + ended)
    if not is_linked:
        with TokenWriter(out, dtype=files.shard_type(), tokenizer=tokenizer) as writer:
            for one in files.files:
                for part in files.parts(one):
                    writer.write(part, documents=_ended(files, one, part), bytes=0)
            writer.documents += known
    files.check_unchanged()
    return TokenShards.open(out, verify=False)


def _one_format(paths: Sequence[Path]) -> str:
    formats = {found_format(path): path for path in paths}
    if len(formats) > 1:
        named = " and ".join(f"{name} ({path})" for name, path in formats.items())
        raise CorpusError(f"the files are of {named}; import one format at a time")
    return next(iter(formats))


def _ended(files: TokenFiles, file: TokenFile, part: NDArray[Any]) -> int:
    """Count the documents that end in a part, where the format does not say."""
    is_counted = file.ends is None and files.document_end is not None
    return int(np.count_nonzero(part == files.document_end)) if is_counted else 0


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
