"""Import tokens that other tools wrote, as token shards of one domain.

    megatron     PREFIX.bin and PREFIX.idx (Megatron-LM, version 1)     16 and 32 bits: linked
    nanogpt, raw tokens without a header in a .bin; needs `dtype`       16 and 32 bits: linked
    olmo         the same in an .npy, as OLMo-core and dolma write      16 and 32 bits: linked
    datatrove    NAME.ds with its .index and .metadata                  linked
    llmc         a .bin with the header of llm.c and modded-nanogpt     copied
    npy          numpy's arrays of integers, of one or two dimensions   copied
    webdataset   a .tar of samples with .npy or .json members           copied
    mds          a folder of Mosaic Data Shards                         copied, needs `streaming`
    litdata      a folder that litdata optimised                        copied, needs `litdata`

Where the bytes are those of a shard, a link is made to the file instead of a copy; it is hashed
once, so a later change is found when the shards are opened. Every id is checked against the
vocabulary, where that is known. Many small files are copied into few shards in any case, since a
job that maps shards has a descriptor for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.foreign import (
    FORMATS,
    TYPES,
    Foreign,
    Stated,
    found_format,
    read_foreign,
    token_files,
)
from mixopt.corpus.foreign_files import Unchanged, checked, shard_type
from mixopt.corpus.linked_shards import LinkedFile, can_be_linked, write_linked
from mixopt.corpus.token_shards import TokenShards
from mixopt.corpus.token_writer import TokenWriter
from mixopt.corpus.vocabulary import Vocabulary
from mixopt.errors import CorpusError, did_you_mean


def import_tokens(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    tokenizer: str,
    document_end: int | None = None,
    field: str | None = None,
    copy: bool = False,
    dtype: str | None = None,
    vocab_size: int | None = None,
) -> TokenShards:
    """Make token shards of one domain and split from the files of another tool.

    Args:
        source: Files, Megatron's prefixes, globs and folders, one or many; all of one format.
        out: The folder of shards, such as `corpus/web/train`; it must not be there.
        format: Which tool wrote the files; found by looking at them if not given.
        tokenizer: Name of the tokenizer, kept in the index.
        document_end: The end-of-document id, to count documents where the format does not.
        field: Where samples have fields (mds, litdata, webdataset), the one with the tokens;
            `tokens` if not given, and in a WebDataset the only array.
        copy: Copy also where a link would do.
        dtype: The type of a stored token, uint8, uint16, uint32, int32 or int64; needed where the
            files do not say it (raw tokens, samples of bytes).
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
    if document_end is not None:
        vocabulary.check_id(document_end, "document_end")
    if out.exists():
        raise CorpusError(f"{out}: already exists; remove it or choose another folder")
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    paths = token_files([str(one) for one in sources], format)
    name = format or _one_format(paths)
    foreign = [read_foreign(path, name, Stated(field, dtype)) for path in paths]
    unchanged = Unchanged(foreign)
    if not copy and can_be_linked(foreign):
        _link([checked(one, vocabulary) for one in foreign], out, _Index(tokenizer, document_end))
    else:
        kind = shard_type(foreign)
        ready = [checked(one, vocabulary) for one in foreign]
        _copy(ready, kind, out, _Index(tokenizer, document_end))
    unchanged.check()
    return TokenShards.open(out, verify=False)


class _Index(NamedTuple):
    """What the index says besides the tokens."""

    tokenizer: str
    document_end: int | None

    def documents(self, foreign: Foreign, tokens: NDArray[Any]) -> int:
        """Count the documents in some tokens."""
        if self.document_end is not None and foreign.ends is None:
            return int(np.count_nonzero(tokens == self.document_end))
        return int(foreign.is_sampled)


def _one_format(paths: Sequence[Path]) -> str:
    found = {found_format(path): path for path in paths}
    if len(found) > 1:
        named = " and ".join(f"{name} ({path})" for name, path in found.items())
        raise CorpusError(f"the files are of {named}; import one format at a time")
    return next(iter(found))


def _link(foreign: Sequence[Foreign], out: Path, index: _Index) -> None:
    files, documents = [], 0
    for one in foreign:
        assert one.file is not None, "only what is a shard's is linked"
        digest, tokens = hashlib.sha256(), 0
        for part in one.parts():
            digest.update(part.tobytes())
            tokens += len(part)
            documents += index.documents(one, part)
        documents += one.documents or 0
        files.append(LinkedFile(one.file, tokens, digest.hexdigest()))
    dtype = foreign[0].dtype
    assert dtype is not None, "the type of what is linked is known"
    write_linked(out, files, dtype, index.tokenizer, documents=documents)


def _copy(foreign: Sequence[Foreign], dtype: np.dtype[Any], out: Path, index: _Index) -> None:
    with TokenWriter(out, dtype=dtype, tokenizer=index.tokenizer) as writer:
        for one in foreign:
            for part in _counted(one):
                writer.write(part, documents=index.documents(one, part), bytes=0)
            known = one.documents if one.ends is not None else 0
            writer.documents += known or 0


def _counted(foreign: Foreign) -> Iterator[NDArray[Any]]:
    parts = iter(foreign.parts())
    first = next(parts, None)
    if first is None:
        raise CorpusError(f"{foreign.path}: has no tokens")
    yield first
    yield from parts
