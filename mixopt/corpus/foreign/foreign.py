"""Tokens of another tool, whatever its format, and how a file of them is read.

Files are read some tokens at a time and not mapped: a file that is cut short while it is read is
then an error, where a mapping would end the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import CorpusError
from mixopt.system import IntArray

TYPES: dict[str, np.dtype[Any]] = {
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
PART = 1 << 20  # tokens that are in memory at a time

Parts = Callable[[], Iterator[NDArray[Any]]]


class Foreign(NamedTuple):
    """Tokens of another tool.

    Attributes:
        path: What messages name.
        files: All files that are read.
        parts: Returns the tokens, some at a time; negative ones where the tool has them.
        dtype: uint16 or uint32, which holds all; None where only the tokens themselves tell.
        tokens: How many there are; None where only reading them tells.
        documents: How many documents there are, where the format says.
        ends: Returns where documents end, in tokens from the start, some at a time and ascending.
        is_sampled: Whether each part is a sample.
        file: A file whose bytes are a shard's, where there is one.
    """

    path: Path
    files: tuple[Path, ...]
    parts: Parts
    dtype: np.dtype[Any] | None = None
    tokens: int | None = None
    documents: int | None = None
    ends: Callable[[], Iterator[IntArray]] | None = None
    is_sampled: bool = False
    file: Path | None = None


class Stated(NamedTuple):
    """What the caller says of the files.

    Attributes:
        field: Where samples have fields, the one with the tokens; None for the usual one.
        dtype: The type of a stored token; None where the files must say.
    """

    field: str | None = None
    dtype: str | None = None


def whole_tokens(file: Path, dtype: np.dtype[Any], offset: int = 0) -> int:
    """Return how many tokens a file has after `offset` bytes.

    Raises:
        CorpusError: It cannot be read, has none, or ends inside one.
    """
    try:
        size = file.stat().st_size - offset
    except OSError as error:
        raise unreadable(file, error) from error
    if size <= 0:
        raise CorpusError(f"{file}: has no tokens")
    if size % dtype.itemsize:
        raise CorpusError(f"{file}: {size} bytes are not a whole number of {dtype.name} tokens")
    return size // dtype.itemsize


def stored_tokens(file: Path, dtype: np.dtype[Any], tokens: int, offset: int = 0) -> Foreign:
    """Return the tokens of a file, which is a shard's if they have 16 or 32 bits and no header.

    Negative ids of 32 bits are seen by who takes the parts: as stored, a shard has none.
    """
    foreign = Foreign(file, (file,), lambda: read_parts(file, dtype, tokens, offset), tokens=tokens)
    if dtype.itemsize > 4:
        return foreign
    unsigned = np.dtype(f"<u{max(dtype.itemsize, 2)}")
    is_shard = offset == 0 and dtype.itemsize == unsigned.itemsize and dtype.byteorder != ">"
    return foreign._replace(dtype=unsigned, file=file if is_shard else None)


def read_parts(
    file: Path, dtype: np.dtype[Any], count: int, offset: int = 0
) -> Iterator[NDArray[Any]]:
    """Read `count` numbers of a file, some at a time.

    Raises:
        CorpusError: It cannot be read, or has become shorter.
    """
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            for start in range(0, count, PART):
                yield _read(file, stream, dtype, min(PART, count - start))
    except OSError as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: OSError) -> CorpusError:
    """Return the error for a file that the system does not give."""
    return CorpusError(f"{file}: cannot be read: {error.strerror or error}")


def _read(file: Path, stream: BinaryIO, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    content = stream.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise CorpusError(f"{file}: was truncated while it was being read")
    return np.frombuffer(content, dtype)
