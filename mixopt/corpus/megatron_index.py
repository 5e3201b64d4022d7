"""Read the index of a Megatron-LM dataset (.idx, version 1).

After nine bytes of magic and a version stand the code of the tokens' type, the counts of sequences
and of bounds of documents, and for each sequence its length and its place in the .bin. The bounds
follow; a multimodal index ends with a byte for each sequence.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixopt.errors import CorpusError

_MAGIC = b"MMIDIDX\x00\x00"
_HEAD = struct.Struct("<QBQQ")
_TYPES = {4: "int32", 8: "uint16"}


class MegatronIndex(NamedTuple):
    """What an index says.

    Attributes:
        dtype: uint16 or int32.
        sequences: How many there are.
        documents: How many there are.
        tokens: How many all sequences have.
    """

    dtype: str
    sequences: int
    documents: int
    tokens: int


def read_megatron_index(path: Path) -> MegatronIndex:
    """Read an index and check that its numbers fit each other.

    Raises:
        CorpusError: It cannot be read, is of another kind, cut short or altered.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    start = len(_MAGIC) + _HEAD.size
    if content[: len(_MAGIC)] != _MAGIC or len(content) < start:
        raise CorpusError(f"{path}: not Megatron's index: it begins {content[: len(_MAGIC)]!r}")
    version, code, sequences, bounds = _HEAD.unpack_from(content, len(_MAGIC))
    if version != 1:
        raise CorpusError(f"{path}: version {version} of Megatron's index; version 1 is read")
    if code not in _TYPES:
        raise CorpusError(f"{path}: tokens of type code {code}; uint16 (8) and int32 (4) are read")
    size = start + 12 * sequences + 8 * bounds
    if bounds < 1 or len(content) not in (size, size + sequences):
        raise CorpusError(
            f"{path}: truncated or altered: {len(content)} bytes, and {sequences} sequences and"
            f" {bounds} bounds of documents take {size}"
        )
    dtype = _TYPES[code]
    tokens = _tokens(path, content, start, sequences, np.dtype(dtype).itemsize)
    return MegatronIndex(dtype, sequences, bounds - 1, tokens)


def _tokens(path: Path, content: bytes, start: int, sequences: int, itemsize: int) -> int:
    """Count the tokens of sequences that stand one after the other."""
    lengths = np.frombuffer(content, "<i4", sequences, start).astype(np.int64)
    places = np.frombuffer(content, "<i8", sequences, start + 4 * sequences)
    ends = np.cumsum(lengths)
    wrong = np.flatnonzero((lengths < 0) | (places != (ends - lengths) * itemsize))
    if len(wrong):
        k = int(wrong[0])
        raise CorpusError(
            f"{path}: altered: sequence {k} has {lengths[k]} tokens from byte {places[k]}, and the"
            f" one before it ends at {int(ends[k] - lengths[k]) * itemsize}"
        )
    return int(ends[-1]) if sequences else 0
