"""Read tokens beside an index of their documents: Megatron's .bin and .idx, and datatrove's .ds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mixopt.corpus.foreign.foreign import (
    TYPES,
    Foreign,
    Stated,
    read_parts,
    stored_tokens,
    unreadable,
    whole_tokens,
)
from mixopt.corpus.foreign.megatron_index import read_megatron_index
from mixopt.corpus.foreign.raw_tokens import check_type
from mixopt.errors import CorpusError
from mixopt.system import IntArray

_ENDS = np.dtype("<u8")
_DATATROVE_TYPES = {2: "uint16", 4: "uint32"}


def read_megatron(source: Path, stated: Stated) -> Foreign:
    """Read Megatron-LM's indexed dataset."""
    if not source.name:
        raise CorpusError(f"{str(source)!r}: is not the name of a Megatron data set")
    prefix = source.with_suffix("") if source.suffix in {".bin", ".idx"} else source
    path, data = prefix.with_name(prefix.name + ".idx"), prefix.with_name(prefix.name + ".bin")
    index = read_megatron_index(path)
    check_type(path, index.dtype, stated)
    dtype = TYPES[index.dtype]
    tokens = whole_tokens(data, dtype)
    if tokens != index.tokens:
        raise CorpusError(
            f"{data}: truncated or altered: {tokens} tokens, but its index has {index.tokens} in "
            f"{index.sequences} sequences"
        )
    foreign = stored_tokens(data, dtype, tokens)
    return foreign._replace(files=(data, path), documents=index.documents, ends=index.ends)


def read_datatrove(source: Path, stated: Stated) -> Foreign:
    """Read datatrove's .ds with its .index, and its .metadata, which says the type of a token."""
    found = _datatrove_type(source)
    if found is not None:
        check_type(source, found, stated)
    name = found or stated.dtype
    if name is None:
        raise CorpusError(
            f"{_beside(source, '.metadata')}: not found, and the type of a token is stated "
            "nowhere else; give dtype='uint16' or 'uint32'"
        )
    index = _beside(source, ".index")
    documents = whole_tokens(index, _ENDS)
    tokens = whole_tokens(source, TYPES[name])
    last = int(next(read_parts(index, _ENDS, 1, 8 * (documents - 1)))[0])
    if last != tokens:
        raise CorpusError(
            f"{source}: truncated or altered: {tokens} {name} tokens, but its index has {last}"
        )
    foreign = stored_tokens(source, TYPES[name], tokens)
    return foreign._replace(
        files=(source, index), documents=documents, ends=lambda: _ends(index, documents)
    )


def _ends(index: Path, documents: int) -> Iterator[IntArray]:
    last = 0
    for part in read_parts(index, _ENDS, documents):
        ends = part.astype(np.int64)
        if (np.diff(ends, prepend=last) < 0).any():
            raise CorpusError(f"{index}: altered: the ends of its documents are not increasing")
        last = int(ends[-1])
        yield ends


def _datatrove_type(source: Path) -> str | None:
    """Return what the first line of the .metadata, `tokenizer|bytes of a token`, says."""
    path = _beside(source, ".metadata")
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream:
            line = stream.readline(4096).decode(errors="replace").strip()
    except OSError as error:
        raise unreadable(path, error) from error
    size = line.rpartition("|")[2]
    if not size.isdecimal() or int(size) not in _DATATROVE_TYPES:
        raise CorpusError(
            f"{path}: its first line is {line[:80]!r}, but datatrove's ends with the bytes of a "
            "token, as in 'gpt2|2'"
        )
    return _DATATROVE_TYPES[int(size)]


def _beside(source: Path, suffix: str) -> Path:
    return source.with_name(source.name + suffix)
