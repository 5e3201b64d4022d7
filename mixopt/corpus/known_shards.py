"""A node's cache of a folder of many shards, so that opening it costs as much as one shard.

    <cache>/opened/<key>/shards.bin      a header, then arrays that are mapped and read in parts

An index with 100,000 entries takes seconds to read and check, its files to look at, and their
hashes hours. One process of a node does that, and the others wait for it; afterwards the index's
path, size, time stamps and number in the file system name what was found. A shard's size is
checked when it is opened, and where hashes were compared, one whose time stamps have changed since
is hashed again then.

Shapes: S shards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.index_files import INDEX, absent
from mixopt.corpus.shard import FEW, Shard
from mixopt.errors import MixoptError, RunError, ShardError
from mixopt.system import (
    IntArray,
    cache_folder,
    file_mark,
    made_once,
    map_file,
    replacing,
)

_FORMAT = "mixopt-opened/1"
_NAME = "shards.bin"
_LEAST = 100 * FEW  # bytes of an index with many entries: each has a hash of 64 digits
_HEADER = 8  # bytes that say how long the header is


class KnownShards(Sequence[Shard]):
    """The shards of a folder, each made when it is asked for."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        """Lay arrays over the content of a file, which `packed` made.

        Raises:
            ValueError: It is something else.
        """
        header = _header(content)
        self.fields: dict[str, Any] = header["fields"]
        self.index_mark: list[int] = header["index"]
        self.is_verified: bool = header["verified"]
        self.has_links: bool = header["links"]
        self._count: int = header["count"]
        arrays = content[_HEADER + header["length"] : header["text"]].view(np.int64)
        split = np.cumsum([self._count + 1, self._count + 1])
        self.offsets, self._ends, marks = np.split(arrays, split)
        self._marks_S4 = marks.reshape(self._count, 4)
        self._text = content[header["text"] :]
        self._again: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """Count the shards."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> Shard: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Shard]: ...

    def __getitem__(self, index: int | slice) -> Shard | Sequence[Shard]:
        """Return one shard, or some."""
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(self._count)))
        k = range(self._count)[index]
        start, stop = self._ends[k : k + 2].tolist()
        file, sha256, link = self._text[start:stop].tobytes().decode().split("/", maxsplit=2)
        first, last = self.offsets[k : k + 2].tolist()
        return Shard(file, last - first, sha256, link or None)

    def is_as_verified(self, k: int, mark: list[int]) -> bool:
        """Tell whether a file is what it was when its hash was compared, by what marks it."""
        return mark in (self._marks_S4[k].tolist(), self._again.get(k))

    def verified_again(self, k: int, mark: list[int]) -> None:
        """Keep, in this process, what marks a file whose hash was compared once more."""
        self._again[k] = mark


def packed(
    index: os.stat_result,
    fields: dict[str, Any],
    shards: Sequence[Shard],
    marks: Sequence[list[int]],
    *,
    verified: bool,
) -> NDArray[np.uint8]:
    """Return the content of the file that keeps what is known.

    Args:
        index: What the file system says of the index.
        fields: What the index says besides its shards.
        shards: The shards.
        marks: What marks the file of each, or nothing.
        verified: Whether their hashes were compared.
    """
    texts = [f"{one.file}/{one.sha256}/{one.link or ''}".encode() for one in shards]
    marks_S4 = np.array(marks or np.zeros((len(shards), 4)), np.int64)
    numbers = [
        _running(one.tokens for one in shards), _running(map(len, texts)), marks_S4.ravel(),
    ]  # fmt: skip
    arrays = np.concatenate(numbers).tobytes()
    text = b"".join(texts)
    header = {
        "format": _FORMAT, "index": file_mark(index), "verified": verified, "fields": fields,
        "count": len(shards), "bytes": len(arrays) + len(text),
        "links": any(one.link is not None for one in shards),
    }  # fmt: skip
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    return np.frombuffer(len(said).to_bytes(_HEADER, "little") + said + arrays + text, np.uint8)


def has_many(folder: Path) -> bool:
    """Tell, by its index's size, whether a folder may have many shards.

    Raises:
        ShardError: It has no index.
    """
    return _index_status(folder).st_size > _LEAST


def known_once(
    folder: Path, make: Callable[[os.stat_result], NDArray[np.uint8]], *, verified: bool
) -> KnownShards:
    """Return what this node knows of a folder, found out by one process of it unless it is known.

    Args:
        folder: The folder of shards.
        make: Finds it out, of an index that the file system says this of.
        verified: Whether the hashes must have been compared.

    Raises:
        ShardError: What `make` raises; or there is no index.
    """
    index = _index_status(folder)
    made: list[NDArray[np.uint8]] = []
    with suppress(RuntimeError, RunError):  # no home, or a cache that cannot be written
        place = node_folder(folder) / _NAME

        def found() -> KnownShards | None:
            known = _read(place)
            if known is None or known.index_mark != file_mark(index):
                return None
            return known if known.is_verified or not verified else None

        def found_out() -> KnownShards:
            made.append(make(index))
            with replacing(place) as temporary:
                made[0].tofile(temporary)
            return found() or KnownShards(made[0])

        return made_once(place.parent, found, found_out)
    return KnownShards(made[0] if made else make(index))


def node_folder(folder: Path) -> Path:
    """Return where this node keeps what it knows of a folder.

    Raises:
        RuntimeError: The user has no home, and no cache is named.
    """
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache_folder() / "opened" / key


def _index_status(folder: Path) -> os.stat_result:
    try:
        return (folder / INDEX).stat()
    except OSError as error:
        raise absent(folder / INDEX, ShardError) from error


def _read(path: Path) -> KnownShards | None:
    """Return what is kept; something else, or half of it, is ignored."""
    try:
        with path.open("rb") as stream:
            return KnownShards(map_file(stream.fileno(), os.fstat(stream.fileno()).st_size))
    except (OSError, ValueError, KeyError, TypeError, MixoptError):
        return None


def _header(content: NDArray[np.uint8]) -> dict[str, Any]:
    length = int.from_bytes(content[:_HEADER].tobytes(), "little")
    header = json.loads(content[_HEADER : _HEADER + min(length, 1 << 16)].tobytes())
    if header["format"] != _FORMAT or header["bytes"] != content.size - _HEADER - length:
        raise ValueError("something else, or half of it")
    arrays = 8 * (6 * header["count"] + 2)
    return {**header, "length": length, "text": _HEADER + length + arrays}


def _running(counts: Any) -> IntArray:
    return np.cumsum([0, *counts], dtype=np.int64)
