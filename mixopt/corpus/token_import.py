"""Make token shards of one domain and split from the files of another tool.

Where the bytes are those of a shard and on the same file system, a hard link is made instead of a
copy; it is hashed once, so a later change is found when the shards are opened. Many small files are
copied into few shards in any case, since a job that reads shards has a descriptor for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.domain_tokens import TokenFiles
from mixopt.corpus.token_formats import (
    FORMATS,
    TYPES,
    TokenFile,
    find_token_files,
    found_format,
    open_token_file,
)
from mixopt.corpus.token_shards import TokenShards
from mixopt.corpus.token_writer import LinkedFile, TokenWriter, can_be_linked, write_linked
from mixopt.corpus.vocabulary import Vocabulary
from mixopt.errors import CorpusError, did_you_mean


def import_tokens(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    tokenizer: str,
    document_end: int | None = None,
    copy: bool = False,
    dtype: str | None = None,
    vocab_size: int | None = None,
) -> TokenShards:
    """Make token shards of one domain and split from the files of another tool.

    Args:
        source: Files, Megatron's prefixes, globs and folders, one or many; all of one format.
        out: The folder of shards, such as `corpus/web/train`; it must not be there.
        format: megatron, datatrove, llmc, npy or raw; found by looking at the files if not given.
        tokenizer: Name of the tokenizer, kept in the index.
        document_end: The end-of-document id, to count documents where the format does not.
        copy: Copy also where a link would do.
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
    opened = [open_token_file(path, name, dtype) for path in paths]
    files = TokenFiles(opened, vocabulary, document_end)
    is_linked = False
    if not copy and can_be_linked(opened):
        with suppress(OSError):  # another file system, or a file that may not be linked
            _link(files, out, tokenizer)
            is_linked = True
    if not is_linked:
        _copy(files, out, tokenizer)
    files.check_unchanged()
    return TokenShards.open(out, verify=False)


def _one_format(paths: Sequence[Path]) -> str:
    found = {found_format(path): path for path in paths}
    if len(found) > 1:
        named = " and ".join(f"{name} ({path})" for name, path in found.items())
        raise CorpusError(f"the files are of {named}; import one format at a time")
    return next(iter(found))


def _link(files: TokenFiles, out: Path, tokenizer: str) -> None:
    links, documents = [], 0
    for one in files.files:
        sha256, tokens = hashlib.sha256(), 0
        for part in files.parts(one):
            sha256.update(part.tobytes())
            tokens += len(part)
            documents += _ended(files, one, part)
        documents += one.documents or 0
        links.append(LinkedFile(one.path, tokens, sha256.hexdigest()))
    dtype = files.files[0].dtype
    assert dtype is not None, "the type of what is linked is known"
    write_linked(out, links, dtype, tokenizer, documents=documents)


def _copy(files: TokenFiles, out: Path, tokenizer: str) -> None:
    with TokenWriter(out, dtype=files.shard_type(), tokenizer=tokenizer) as writer:
        for one in files.files:
            for part in files.parts(one):
                writer.write(part, documents=_ended(files, one, part), bytes=0)
            writer.documents += one.documents or 0


def _ended(files: TokenFiles, file: TokenFile, part: NDArray[Any]) -> int:
    """Count the documents that end in a part, where the format does not say."""
    is_counted = file.ends is None and files.document_end is not None
    return int(np.count_nonzero(part == files.document_end)) if is_counted else 0
