"""Read the token files of other tools; see mixopt.corpus.token_import for which."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import CorpusError

_PART = 1 << 22
_MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_DTYPES = {4: "<i4", 8: "<u2"}
_LLMC_HEADER = 1024


class Foreign(NamedTuple):
    """Tokens of another tool.

    Attributes:
        dtype: uint16 or uint32.
        parts: Returns the tokens, some at a time.
        documents: How many documents there are, where the format says.
        file: A file whose bytes are a shard's, where there is one.
    """

    dtype: np.dtype[Any]
    parts: Callable[[], Iterator[NDArray[Any]]]
    documents: int | None = None
    file: Path | None = None


def read_raw(source: Path, field: str) -> Foreign:
    """Read raw uint16 tokens."""
    tokens = _mapped(source, np.dtype("<u2"))
    return Foreign(tokens.dtype, lambda: _in_parts(tokens), file=source)


def read_llmc(source: Path, field: str) -> Foreign:
    """Read uint16 tokens after llm.c's header of 256 integers."""
    header = np.fromfile(source, "<i4", count=3)
    tokens = _mapped(source, np.dtype("<u2"), offset=_LLMC_HEADER)
    if len(header) < 3 or header[0] != 20240520 or header[1] != 1:
        raise CorpusError(f"{source}: not llm.c's format: its header begins {header.tolist()}")
    if header[2] != len(tokens):
        raise CorpusError(
            f"{source}: truncated or altered: {len(tokens)} tokens, its header says {header[2]}"
        )
    return Foreign(tokens.dtype, lambda: _in_parts(tokens))


def read_megatron(source: Path, field: str) -> Foreign:
    """Read Megatron-LM's indexed dataset."""
    prefix = source.with_suffix("") if source.suffix in {".bin", ".idx"} else source
    index, data = prefix.with_name(prefix.name + ".idx"), prefix.with_name(prefix.name + ".bin")
    code, sequences, documents, tokens = _megatron_index(index)
    if code not in _MEGATRON_DTYPES:
        raise CorpusError(f"{index}: tokens of type code {code}; uint16 (8) and int32 (4) are read")
    stored = _mapped(data, np.dtype(_MEGATRON_DTYPES[code]))
    if len(stored) != tokens:
        raise CorpusError(
            f"{data}: truncated or altered: {len(stored)} tokens, its index says {tokens} in"
            f" {sequences} sequences"
        )
    unsigned = stored.view("<u4") if code == 4 else stored
    return Foreign(unsigned.dtype, lambda: _in_parts(unsigned), documents, data)


def _megatron_index(index: Path) -> tuple[int, int, int, int]:
    """Return the code of the dtype, and how many sequences, documents and tokens there are."""
    try:
        content = index.read_bytes()
    except OSError as error:
        raise CorpusError(f"{index}: cannot be read: {error.strerror}") from error
    start = len(_MEGATRON_MAGIC)
    if content[:start] != _MEGATRON_MAGIC or len(content) < start + 25:
        raise CorpusError(f"{index}: not Megatron's index: it begins {content[:start]!r}")
    version, code, sequences, bounds = struct.unpack_from("<QBQQ", content, start)
    if version != 1:
        raise CorpusError(f"{index}: version {version} of Megatron's index; version 1 is read")
    lengths = np.frombuffer(content, "<i4", count=sequences, offset=start + 25)
    return code, sequences, bounds - 1, int(lengths.sum(dtype=np.int64))


def read_mds(source: Path, field: str) -> Foreign:
    """Read Mosaic Data Shards with their own package."""
    package = _package("streaming.base.local", "mds", "mosaicml-streaming")
    return _of_samples(source, package.LocalDataset(local=str(source)), field)


def read_litdata(source: Path, field: str) -> Foreign:
    """Read litdata's chunks with their own package."""
    package = _package("litdata", "litdata", "litdata")
    return _of_samples(source, package.StreamingDataset(str(source), shuffle=False), field)


def _package(module: str, name: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CorpusError(
            f"{name} needs a package that is absent: pip install {install}"
        ) from error


def _of_samples(source: Path, dataset: Any, field: str) -> Foreign:
    """Read samples one by one; each is a document or a row of several."""

    def parts() -> Iterator[NDArray[Any]]:
        for k in range(len(dataset)):
            yield _tokens_of(source, dataset[k], field)

    dtype = "<u2"
    for part in parts():
        if len(part) and int(part.max()) > 0xFFFF:
            dtype = "<u4"
            break
    return Foreign(np.dtype(dtype), parts)


def _tokens_of(source: Path, sample: Any, field: str) -> NDArray[Any]:
    if isinstance(sample, dict):
        if field not in sample:
            raise CorpusError(f"{source}: samples have no field {field!r}, but {sorted(sample)}")
        sample = sample[field]
    if isinstance(sample, bytes):
        return np.frombuffer(sample, "<u2")
    return np.asarray(sample).ravel().astype(np.int64)


def _mapped(file: Path, dtype: np.dtype[Any], offset: int = 0) -> NDArray[Any]:
    try:
        size = file.stat().st_size - offset
        if size <= 0:
            raise CorpusError(f"{file}: has no tokens")
        if size % dtype.itemsize:
            raise CorpusError(f"{file}: {size} bytes are not whole {dtype.name} tokens")
        return np.asarray(np.memmap(file, dtype=dtype, mode="r", offset=offset))
    except OSError as error:
        raise CorpusError(f"{file}: cannot be read: {error.strerror}") from error


def _in_parts(tokens: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(tokens), _PART):
        yield tokens[start : start + _PART]
