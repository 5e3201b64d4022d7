"""Read tokens without a header, as nanoGPT, OLMo-core and numpy's `tofile` write them; llm.c's.

The type of a token is what a file says or what the caller says, and never guessed: tokens of 32
bits read as 16 bits are twice as many, and look sound.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixopt.corpus.foreign.foreign import (
    TYPES,
    Foreign,
    Stated,
    stored_tokens,
    unreadable,
    whole_tokens,
)
from mixopt.errors import CorpusError

NUMPY = b"\x93NUMPY"
_LLMC_HEADER = 1024
_LLMC_TYPES = {(20240520, 1): "uint16", (20240801, 7): "uint32"}  # magic and version
LLMC_MAGIC = tuple(magic.to_bytes(4, "little") for magic, _ in _LLMC_TYPES)
_HEADERS = {  # how files begin that hold more than tokens
    NUMPY: "numpy's: use format 'npy'",
    b"PK\x03\x04": "a zip archive, as .npz is: write its tokens alone",
    b"PAR1": "Parquet: write its tokens alone",
    b"\x1f\x8b": "gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it",
    b"BZh": "bzip2: unpack it",
    b"\xfd7zXZ": "xz: unpack it",
    b"\x89HDF": "HDF5: write its tokens alone",
    b"MMIDIDX": "Megatron's index: name the .bin beside it",
    **dict.fromkeys(LLMC_MAGIC, "llm.c's: use format 'llmc'"),
}


def read_raw(source: Path, stated: Stated) -> Foreign:
    """Read tokens without a header, whose type the caller says."""
    start = first_bytes(source, 8)
    for header, what in _HEADERS.items():
        if start.startswith(header):
            raise CorpusError(f"{source}: has a header, but raw tokens have none; it is {what}")
    if stated.dtype is None:
        raise CorpusError(
            f"{source}: raw tokens do not state their type; give dtype='uint16' (as nanoGPT "
            "writes) or dtype='uint32'"
        )
    dtype = TYPES[stated.dtype]
    return stored_tokens(source, dtype, whole_tokens(source, dtype))


def read_llmc(source: Path, stated: Stated) -> Foreign:
    """Read tokens after llm.c's header of 256 integers, which says their type."""
    header = np.frombuffer(first_bytes(source, 12).ljust(12, b"\0"), "<i4")
    found = _LLMC_TYPES.get(tuple(header[:2].tolist()))
    if found is None:
        raise CorpusError(f"{source}: not llm.c's format: its header begins {header.tolist()}")
    check_type(source, found, stated)
    dtype = TYPES[found]
    tokens = whole_tokens(source, dtype, _LLMC_HEADER)
    if header[2] != tokens:
        raise CorpusError(
            f"{source}: truncated or altered: {tokens} tokens, but its header has {header[2]}"
        )
    return stored_tokens(source, dtype, tokens, _LLMC_HEADER)


def check_type(source: Path, found: str, stated: Stated) -> None:
    """Check that the caller says no other type than the file.

    Raises:
        CorpusError: The two differ.
    """
    if stated.dtype not in (None, found):
        raise CorpusError(
            f"{source}: its tokens are {found}, not {stated.dtype!r}; leave out dtype"
        )


def first_bytes(source: Path, count: int) -> bytes:
    """Return how a file begins.

    Raises:
        CorpusError: It cannot be read.
    """
    try:
        with source.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise unreadable(source, error) from error
