"""Read the token files of other tools; see mixopt.corpus.token_import for which.

The type of a token is what a file says or what the caller says, and never guessed: tokens of 32
bits read as 16 bits are twice as many, and look sound.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.megatron_index import read_megatron_index
from mixopt.errors import CorpusError, MixoptError
from mixopt.system import read_json

TYPES: dict[str, np.dtype[Any]] = {
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
_PART = 1 << 22
_LLMC_HEADER = 1024
_LLMC_TYPES = {(20240520, 1): "uint16", (20240801, 7): "uint32"}  # magic and version
LLMC_MAGIC = tuple(magic.to_bytes(4, "little") for magic, _ in _LLMC_TYPES)
_HEADERS = {  # how files begin that hold more than tokens
    b"\x93NUMPY": ".npy: numpy.load(file).tofile('tokens.bin') writes its tokens alone",
    b"PK\x03\x04": "a zip archive, as .npz is: write its tokens alone",
    b"PAR1": "Parquet: write its tokens alone",
    b"\x1f\x8b": "gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it",
    b"BZh": "bzip2: unpack it",
    b"\xfd7zXZ": "xz: unpack it",
    b"\x89HDF": "HDF5: write its tokens alone",
    b"MMIDIDX": "Megatron's index: name the .bin beside it",
    **dict.fromkeys(LLMC_MAGIC, "llm.c's: it is read as format 'llmc'"),
}


class Foreign(NamedTuple):
    """Tokens of another tool.

    Attributes:
        dtype: uint16 or uint32.
        parts: Returns the tokens, some at a time; negative ones where the tool has them.
        documents: How many documents there are, where the format says.
        file: A file whose bytes are a shard's, where there is one.
    """

    dtype: np.dtype[Any]
    parts: Callable[[], Iterator[NDArray[Any]]]
    documents: int | None = None
    file: Path | None = None


class Stated(NamedTuple):
    """What the caller says of the files.

    Attributes:
        field: Where samples have fields, the one with the tokens.
        dtype: The type of a stored token; None where the files must say.
    """

    field: str = "tokens"
    dtype: str | None = None


def read_raw(source: Path, stated: Stated) -> Foreign:
    """Read tokens without a header, whose type the caller says."""
    try:
        with source.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise CorpusError(f"{source}: cannot be read: {error.strerror}") from error
    for header, what in _HEADERS.items():
        if start.startswith(header):
            raise CorpusError(f"{source}: has a header, and raw tokens have none; it is {what}")
    if stated.dtype is None:
        raise CorpusError(
            f"{source}: raw tokens do not say their type; give dtype='uint16' (as nanoGPT writes)"
            " or dtype='uint32'"
        )
    return _stored(source, _mapped(source, TYPES[stated.dtype]))


def read_llmc(source: Path, stated: Stated) -> Foreign:
    """Read tokens after llm.c's header of 256 integers, which says their type."""
    try:
        header = np.fromfile(source, "<i4", count=3)
    except OSError as error:
        raise CorpusError(f"{source}: cannot be read: {error.strerror}") from error
    found = _LLMC_TYPES.get(tuple(header[:2].tolist())) if len(header) == 3 else None
    if found is None:
        raise CorpusError(f"{source}: not llm.c's format: its header begins {header.tolist()}")
    _check_type(source, found, stated)
    tokens = _mapped(source, TYPES[found], offset=_LLMC_HEADER)
    if header[2] != len(tokens):
        raise CorpusError(
            f"{source}: truncated or altered: {len(tokens)} tokens, its header says {header[2]}"
        )
    return Foreign(tokens.dtype, lambda: _in_parts(tokens))


def read_megatron(source: Path, stated: Stated) -> Foreign:
    """Read Megatron-LM's indexed dataset."""
    if not source.name:
        raise CorpusError(f"{str(source)!r}: is not the name of Megatron's files")
    prefix = source.with_suffix("") if source.suffix in {".bin", ".idx"} else source
    path, data = prefix.with_name(prefix.name + ".idx"), prefix.with_name(prefix.name + ".bin")
    index = read_megatron_index(path)
    _check_type(path, index.dtype, stated)
    tokens = _mapped(data, TYPES[index.dtype])
    if len(tokens) != index.tokens:
        raise CorpusError(
            f"{data}: truncated or altered: {len(tokens)} tokens, its index says {index.tokens} in"
            f" {index.sequences} sequences"
        )
    return _stored(data, tokens)._replace(documents=index.documents)


def read_mds(source: Path, stated: Stated) -> Foreign:
    """Read Mosaic Data Shards with their own package."""
    _check_no_pickle(source, ("pkl",))
    package = _package("streaming.base.local", "mds", "mosaicml-streaming")
    return _of_samples(source, lambda: package.LocalDataset(local=str(source)), stated)


def read_litdata(source: Path, stated: Stated) -> Foreign:
    """Read litdata's chunks with their own package."""
    _check_no_pickle(source, ("pickle",))
    package = _package("litdata", "litdata", "litdata")
    return _of_samples(source, lambda: package.StreamingDataset(str(source), shuffle=False), stated)


def _check_no_pickle(source: Path, names: tuple[str, ...]) -> None:
    """Refuse samples that their package would unpickle, which runs code of the file's."""
    waiting = [read_json(source / "index.json", error=CorpusError)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value.split(":")[0] in names:
            raise CorpusError(
                f"{source / 'index.json'}: its samples are pickles ({value!r}), which are not read;"
                " write them as arrays"
            )


def _package(module: str, name: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CorpusError(
            f"{name} needs a package that is absent: pip install {install}"
        ) from error


def _of_samples(source: Path, opened: Callable[[], Any], stated: Stated) -> Foreign:
    """Read samples one by one; each is a document or a row of several."""

    def parts() -> Iterator[NDArray[Any]]:
        try:
            dataset = opened()
            for k in range(len(dataset)):
                yield _tokens_of(source, k, dataset[k], stated)
        except MixoptError:
            raise
        except Exception as error:  # whatever a package raises on damaged files
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise CorpusError(f"{source}: cannot be read: {reason}") from error

    large = any(len(part) and int(part.max()) > 0xFFFF for part in parts())
    return Foreign(np.dtype("<u4" if large else "<u2"), parts)


def _tokens_of(source: Path, k: int, sample: Any, stated: Stated) -> NDArray[Any]:
    if isinstance(sample, dict):
        if stated.field not in sample:
            known = sorted(sample)
            raise CorpusError(f"{source}: samples have no field {stated.field!r}, but {known}")
        sample = sample[stated.field]
    if isinstance(sample, bytes):
        return _of_bytes(source, k, sample, stated)
    tokens = np.asarray(sample).ravel()
    if len(tokens) and not np.issubdtype(tokens.dtype, np.integer):
        raise CorpusError(f"{source}: sample {k} is {tokens.dtype}; tokens are integers")
    return tokens.astype(np.int64)


def _of_bytes(source: Path, k: int, sample: bytes, stated: Stated) -> NDArray[Any]:
    if stated.dtype is None:
        raise CorpusError(
            f"{source}: its samples are bytes, which do not say their type; give dtype='uint16',"
            " 'uint32', 'int32' or 'int64'"
        )
    kind = TYPES[stated.dtype]
    if len(sample) % kind.itemsize:
        raise CorpusError(f"{source}: sample {k}: {len(sample)} bytes are not whole {kind} tokens")
    return np.frombuffer(sample, kind)


def _check_type(source: Path, found: str, stated: Stated) -> None:
    if stated.dtype not in (None, found):
        raise CorpusError(
            f"{source}: its tokens are {found}, not {stated.dtype!r}; leave out dtype"
        )


def _stored(file: Path, tokens: NDArray[Any]) -> Foreign:
    """Return the tokens of a file, which is a shard's if they are no longer than 32 bits.

    Negative ids of 32 bits are seen by who takes the parts: as stored, a shard has none.
    """
    if tokens.dtype.itemsize > 4:
        largest = max((int(part.max()) for part in _in_parts(tokens)), default=0)
        return Foreign(np.dtype("<u4" if largest > 0xFFFF else "<u2"), lambda: _in_parts(tokens))
    unsigned = np.dtype(f"<u{tokens.dtype.itemsize}")
    return Foreign(unsigned, lambda: _in_parts(tokens), file=file)


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
