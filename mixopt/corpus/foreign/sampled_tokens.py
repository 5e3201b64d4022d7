"""Read samples of tokens: Mosaic's and litdata's by their own packages, WebDataset's here.

A WebDataset is a tar whose members of one name, up to its first dot, are a sample; what follows the
dot is the field. Members are .npy and .json, whose content is data. Nothing is unpickled.
"""

from __future__ import annotations

import importlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.foreign.foreign import TYPES, Foreign, Stated
from mixopt.errors import CorpusError, MixoptError
from mixopt.system import read_json

USUAL_FIELD = "tokens"
_MEMBER_BYTES = 1 << 30  # that are read of one
_PICKLES = ("pyd", "pickle", "pkl", "pth", "pt")


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


def read_webdataset(source: Path, stated: Stated) -> Foreign:
    """Read the samples of a tar, which may be compressed."""

    def parts() -> Iterator[NDArray[Any]]:
        try:
            with tarfile.open(source, "r|*") as archive:
                for name, fields in _samples(archive):
                    yield _member(source, name, fields, stated)
        except (tarfile.TarError, OSError, EOFError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise CorpusError(f"{source}: cannot be read: {reason}") from error

    return Foreign(source, (source,), parts, is_sampled=True)


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
            f"{name} needs a package that is not installed: pip install {install}"
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

    files = tuple(sorted(path for path in source.rglob("*") if path.is_file()))
    return Foreign(source, files, parts, is_sampled=True)


def _tokens_of(source: Path, k: int | str, sample: Any, stated: Stated) -> NDArray[Any]:
    if isinstance(sample, dict):
        field = stated.field or USUAL_FIELD
        if field not in sample:
            raise CorpusError(f"{source}: samples have no field {field!r}, but {sorted(sample)}")
        sample = sample[field]
    if isinstance(sample, bytes):
        return _of_bytes(source, k, sample, stated)
    tokens = np.asarray(sample).ravel()
    if len(tokens) and not np.issubdtype(tokens.dtype, np.integer):
        raise CorpusError(f"{source}: sample {k} is {tokens.dtype.name}; tokens are integers")
    return tokens.astype(np.int64)


def _of_bytes(source: Path, k: int | str, sample: bytes, stated: Stated) -> NDArray[Any]:
    if stated.dtype is None:
        raise CorpusError(
            f"{source}: its samples are bytes, which do not state their type; give "
            "dtype='uint16', 'uint32', 'int32' or 'int64'"
        )
    kind = TYPES[stated.dtype]
    if len(sample) % kind.itemsize:
        raise CorpusError(
            f"{source}: sample {k}: {len(sample)} bytes are not a whole number of {kind} tokens"
        )
    return np.frombuffer(sample, kind)


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Give the name of each sample and its fields."""
    name, fields = "", dict[str, bytes]()
    for member in archive:
        folder, _, file = member.name.rpartition("/")
        stem, _, field = file.partition(".")
        if not member.isfile() or not stem or not field:
            continue
        key = f"{folder}/{stem}" if folder else stem
        if key != name and fields:
            yield name, fields
            fields = {}
        name = key
        if member.size > _MEMBER_BYTES:
            raise CorpusError(f"{member.name}: {member.size} bytes; a sample is less than 2**30")
        stream = archive.extractfile(member)
        fields[field] = b"" if stream is None else stream.read()
    if fields:
        yield name, fields


def _member(source: Path, name: str, fields: Mapping[str, bytes], stated: Stated) -> NDArray[Any]:
    field = stated.field or _only_field(source, name, fields)
    if field not in fields:
        raise CorpusError(f"{source}: samples have no field {field!r}, but {sorted(fields)}")
    where, suffix = f"{name}.{field}", field.rpartition(".")[2]
    if suffix in _PICKLES:
        raise CorpusError(
            f"{source}: {where}: is a pickle, which is not read; write it as .npy or .json"
        )
    try:
        if suffix == "npy":
            value: Any = np.load(io.BytesIO(fields[field]), allow_pickle=False)
        elif suffix == "json":
            value = json.loads(fields[field])
        else:
            value = fields[field]
    except (ValueError, EOFError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorpusError(f"{source}: {where}: cannot be read: {reason}") from error
    if isinstance(value, dict):
        raise CorpusError(f"{source}: {where}: is a JSON object; tokens are a list of integers")
    return _tokens_of(source, where, value, stated)


def _only_field(source: Path, name: str, fields: Mapping[str, bytes]) -> str:
    """Return the field with tokens, where there is no doubt which that is."""
    endings = ("npy", *_PICKLES)
    found = [field for field in fields if field.rpartition(".")[2] in endings]
    found = found or list(fields)
    if len(found) != 1:
        raise CorpusError(
            f"{source}: sample {name!r} has the fields {sorted(fields)}; set field to the one "
            "with its tokens"
        )
    return found[0]
