"""Import tokens that other tools wrote, as token shards of one domain.

    megatron   PREFIX.bin and PREFIX.idx (Megatron-LM, version 1)      uint16, int32: linked
    nanogpt    raw tokens in a .bin, as nanoGPT writes; needs `dtype`  linked
    llmc       a .bin with the header of llm.c and modded-nanogpt      copied
    mds        a folder of Mosaic Data Shards                          copied, needs `streaming`
    litdata    a folder that litdata optimised                         copied, needs `litdata`

Where the bytes are those of a shard, a link is made to the file instead of a copy; it is hashed
once, so a later change is found when the shards are opened. Every id is checked against the
vocabulary, where that is known.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.foreign_tokens import (
    LLMC_MAGIC,
    TYPES,
    Foreign,
    Stated,
    read_litdata,
    read_llmc,
    read_mds,
    read_megatron,
    read_raw,
)
from mixopt.corpus.token_shards import TokenShards
from mixopt.corpus.token_writer import DTYPES, FORMAT, TokenWriter
from mixopt.corpus.vocabulary import Vocabulary
from mixopt.errors import CorpusError, did_you_mean
from mixopt.system import write_sealed

_READERS = {
    "megatron": read_megatron,
    "nanogpt": read_raw,
    "llmc": read_llmc,
    "mds": read_mds,
    "litdata": read_litdata,
}


def import_tokens(
    source: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    tokenizer: str,
    document_end: int | None = None,
    field: str = "tokens",
    copy: bool = False,
    dtype: str | None = None,
    vocab_size: int | None = None,
) -> TokenShards:
    """Make token shards of one domain and split from the files of another tool.

    Args:
        source: The .bin file, Megatron's prefix, or the folder.
        out: The folder of shards, such as `corpus/web/train`; it must not be there.
        format: Which tool wrote the files; found by looking at them if not given.
        tokenizer: Name of the tokenizer, kept in the index.
        document_end: The end-of-document id, to count documents where the format does not.
        field: Where samples have fields (mds, litdata), the one with the tokens.
        copy: Copy also where a link would do.
        dtype: The type of a stored token, uint16, uint32, int32 or int64; needed where the files
            do not say it (raw tokens, samples of bytes).
        vocab_size: Ids of the tokenizer, >= 1; known without it for `bytes`, `bpe:<ids>` and a
            tokenizer whose files are on this machine.

    Returns:
        The shards. How long their text was is not known, so their `bytes` are 0.

    Raises:
        CorpusError: The files are not of that format, are damaged, do not say the type of a token,
            have an id outside the vocabulary, or `out` is there.
    """
    source, out = Path(source), Path(out)
    if dtype is not None and dtype not in TYPES:
        raise CorpusError(f"dtype {dtype!r}{did_you_mean(dtype, TYPES)}")
    vocabulary = Vocabulary.of(tokenizer, vocab_size)
    if document_end is not None:
        vocabulary.check_id(document_end, "document_end")
    if out.exists():
        raise CorpusError(f"{out}: is there already; remove it or choose another folder")
    name = format or _found_format(source)
    if name not in _READERS:
        raise CorpusError(f"format {name!r}{did_you_mean(name, _READERS)}")
    foreign = _READERS[name](source, Stated(field, dtype))
    checked = foreign._replace(parts=lambda: vocabulary.checked(source, foreign.parts()))
    index = _Index(tokenizer, document_end)
    if foreign.file is not None and not copy:
        _link(checked, out, index)
    else:
        _copy(checked, out, index)
    return TokenShards.open(out, verify=False)


class _Index(NamedTuple):
    """What the index says besides the tokens."""

    tokenizer: str
    document_end: int | None

    def documents(self, foreign: Foreign, tokens: NDArray[Any]) -> int:
        """Count the documents in some tokens."""
        if foreign.documents is not None or self.document_end is None:
            return 0
        return int(np.count_nonzero(tokens == self.document_end))


def _found_format(source: Path) -> str:
    if source.name and source.with_suffix(".idx").exists():
        return "megatron"
    if source.is_dir():
        return "litdata" if "chunks" in _index_of(source) else "mds"
    if source.is_file():
        with source.open("rb") as stream:
            return "llmc" if stream.read(4) in LLMC_MAGIC else "nanogpt"
    raise CorpusError(f"{source}: not found")


def _index_of(folder: Path) -> str:
    index = folder / "index.json"
    if not index.exists():
        raise CorpusError(f"{index}: not found; a folder is read as mds or litdata, which have one")
    return index.read_bytes()[:200].decode("utf-8", errors="replace")


def _link(foreign: Foreign, out: Path, index: _Index) -> None:
    assert foreign.file is not None
    digest, tokens, documents = hashlib.sha256(), 0, 0
    for part in foreign.parts():
        digest.update(part.tobytes())
        tokens += len(part)
        documents += index.documents(foreign, part)
    file, target = "00000.bin", foreign.file.resolve()
    try:
        out.mkdir(parents=True)
        (out / file).symlink_to(target)
        write_sealed(
            out / "index.json",
            {
                "format": FORMAT,
                "dtype": foreign.dtype.name,
                "tokens": tokens,
                "documents": foreign.documents if foreign.documents is not None else documents,
                "bytes": 0,
                "tokenizer": index.tokenizer,
                "shards": [
                    {
                        "file": file,
                        "tokens": tokens,
                        "sha256": digest.hexdigest(),
                        "link": str(target),
                    }
                ],
            },
        )
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise CorpusError(f"{out}: cannot be written: {error.strerror}") from error


def _copy(foreign: Foreign, out: Path, index: _Index) -> None:
    dtype = DTYPES[foreign.dtype.name]
    with TokenWriter(out, dtype=dtype, tokenizer=index.tokenizer) as writer:
        for part in _counted(foreign):
            writer.write(part, documents=index.documents(foreign, part), bytes=0)
        writer.documents += foreign.documents or 0


def _counted(foreign: Foreign) -> Iterator[NDArray[Any]]:
    parts = iter(foreign.parts())
    first = next(parts, None)
    if first is None:
        raise CorpusError("the source has no tokens")
    yield first
    yield from parts
