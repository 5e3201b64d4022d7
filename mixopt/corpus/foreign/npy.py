"""Read numpy's .npy of integers, of one dimension, or of two with a sample in each row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from mixopt.corpus.foreign.foreign import (
    PART,
    Foreign,
    Stated,
    read_parts,
    stored_tokens,
    unreadable,
)
from mixopt.corpus.foreign.raw_tokens import NUMPY, check_type, first_bytes
from mixopt.errors import CorpusError


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int


def read_npy(source: Path, stated: Stated) -> Foreign:
    """Read a .npy, whose header says type and shape; nothing in it is unpickled."""
    if first_bytes(source, len(NUMPY)) != NUMPY:
        raise CorpusError(
            f"{source}: has no numpy header; OLMo-core's .npy has none: use format 'olmo', with "
            "its dtype"
        )
    header = _header(source)
    check_type(source, header.dtype.name, stated)
    tokens = math.prod(header.shape)
    expected = header.offset + tokens * header.dtype.itemsize
    size = source.stat().st_size
    if size != expected:
        raise CorpusError(
            f"{source}: truncated or altered: {size} bytes, and {tokens} {header.dtype.name} after"
            f" its header take {expected}"
        )
    if tokens == 0:
        raise CorpusError(f"{source}: has no tokens")
    foreign = stored_tokens(source, header.dtype, tokens, header.offset)
    if len(header.shape) == 1:
        return foreign
    rows, length = header.shape
    return foreign._replace(
        parts=lambda: _rows(source, header, length), documents=rows, is_sampled=True
    )


def read_olmo(source: Path, stated: Stated) -> Foreign:
    """Read OLMo-core's .npy, which is tokens without a header, of the type that the caller says."""
    from mixopt.corpus.foreign.raw_tokens import read_raw

    if first_bytes(source, len(NUMPY)) == NUMPY:
        raise CorpusError(
            f"{source}: has a numpy header, but OLMo-core's .npy has none: use format 'npy'"
        )
    return read_raw(source, stated)


def _header(source: Path) -> _Header:
    try:
        with source.open("rb") as stream:
            version = npy_format.read_magic(stream)
            read = {
                (1, 0): npy_format.read_array_header_1_0,
                (2, 0): npy_format.read_array_header_2_0,
            }.get(version)
            if read is None:
                raise ValueError(f"version {version} of .npy; 1.0 and 2.0 are supported")
            shape, is_fortran, dtype = read(stream)
            offset = stream.tell()
    except OSError as error:
        raise unreadable(source, error) from error
    except (ValueError, SyntaxError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorpusError(f"{source}: not a .npy: {reason}") from error
    if not np.issubdtype(dtype, np.integer):
        raise CorpusError(f"{source}: is an array of {dtype.name}; tokens are integers")
    if len(shape) not in (1, 2):
        raise CorpusError(f"{source}: has the shape {shape}; tokens have one dimension or two")
    if is_fortran and len(shape) == 2:
        raise CorpusError(f"{source}: is in Fortran order; save numpy.ascontiguousarray of it")
    return _Header(tuple(shape), dtype, offset)


def _rows(source: Path, header: _Header, length: int) -> Iterator[NDArray[Any]]:
    """Give row after row, reading many at a time."""
    if length > PART:
        yield from _long_rows(source, header, length)
        return
    rows, held = header.shape[0], max(PART // length, 1)
    for start in range(0, rows, held):
        count = min(held, rows - start) * length
        offset = header.offset + start * length * header.dtype.itemsize
        for part in read_parts(source, header.dtype, count, offset):
            yield from part.reshape(-1, length)


def _long_rows(source: Path, header: _Header, length: int) -> Iterator[NDArray[Any]]:
    for row in range(header.shape[0]):
        offset = header.offset + row * length * header.dtype.itemsize
        yield np.concatenate(list(read_parts(source, header.dtype, length, offset)))
