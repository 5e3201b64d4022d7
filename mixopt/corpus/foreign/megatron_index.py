"""Read the index of a Megatron-LM dataset (.idx, version 1).

After nine bytes of magic and a version stand the code of the tokens' type, the counts of sequences
and of bounds of documents, and for each sequence its length and its place in the .bin. The bounds
follow; a multimodal index ends with a byte for each sequence. An index of a large dataset has
gigabytes, so it is read some sequences at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixopt.corpus.foreign.foreign import read_parts, unreadable
from mixopt.errors import CorpusError
from mixopt.system import IntArray

_MAGIC = b"MMIDIDX\x00\x00"
_HEAD = struct.Struct("<QBQQ")
_TYPES = {1: "uint8", 4: "int32", 5: "int64", 8: "uint16"}
_START = len(_MAGIC) + _HEAD.size
_LENGTH, _PLACE = np.dtype("<i4"), np.dtype("<i8")


class MegatronIndex(NamedTuple):
    """What an index says.

    Attributes:
        path: Its file.
        dtype: uint8, uint16, int32 or int64.
        sequences: How many there are.
        documents: How many there are.
        tokens: How many all sequences have.
    """

    path: Path
    dtype: str
    sequences: int
    documents: int
    tokens: int

    def ends(self) -> Iterator[IntArray]:
        """Give the tokens up to the end of each document, some documents at a time.

        Raises:
            CorpusError: The bounds of documents do not rise, or are not of its sequences.
        """
        bounds = self._bounds()
        bound, passed, before = next(bounds, None), 0, 0
        for lengths in read_parts(self.path, _LENGTH, self.sequences, _START):
            ends = before + np.cumsum(lengths, dtype=np.int64)
            found = []
            while bound is not None and int(bound[-1]) <= passed + len(lengths):
                found.append(bound)
                bound = next(bounds, None)
            if bound is not None:
                inside = int(np.searchsorted(bound, passed + len(lengths), side="right"))
                found.append(bound[:inside])
                bound = bound[inside:]
            here = np.concatenate(found) - passed if found else np.empty(0, np.int64)
            yield np.where(here > 0, ends[np.maximum(here, 1) - 1], before)
            passed, before = passed + len(lengths), int(ends[-1])

    def _bounds(self) -> Iterator[IntArray]:
        """Give the sequences up to the end of each document, some documents at a time."""
        offset = _START + 12 * self.sequences
        last = 0
        for place, part in enumerate(read_parts(self.path, _PLACE, self.documents + 1, offset)):
            bounds = part[1:] if place == 0 else part
            steps = np.diff(bounds, prepend=last)
            if (place == 0 and part[0] != 0) or (steps < 0).any():
                raise CorpusError(
                    f"{self.path}: altered: the bounds of its documents are not increasing"
                )
            if len(bounds) and bounds[-1] <= self.sequences:
                last = int(bounds[-1])
                yield bounds
            elif len(bounds):
                raise self._wrong_end(int(bounds[-1]))
        if last != self.sequences:
            raise self._wrong_end(last)

    def _wrong_end(self, last: int) -> CorpusError:
        return CorpusError(
            f"{self.path}: altered: its documents end at sequence {last} of {self.sequences}"
        )


def read_megatron_index(path: Path) -> MegatronIndex:
    """Read an index and check that its numbers fit each other.

    Raises:
        CorpusError: It cannot be read, is of another kind, cut short or altered.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            content = stream.read(_START)
    except OSError as error:
        raise unreadable(path, error) from error
    if content[: len(_MAGIC)] != _MAGIC or len(content) < _START:
        raise CorpusError(
            f"{path}: not a Megatron index: it begins with {content[: len(_MAGIC)]!r}"
        )
    version, code, sequences, bounds = _HEAD.unpack_from(content, len(_MAGIC))
    if version != 1:
        raise CorpusError(
            f"{path}: version {version} of a Megatron index; only version 1 is supported"
        )
    if code not in _TYPES:
        known = ", ".join(f"{name} ({code})" for code, name in _TYPES.items())
        raise CorpusError(f"{path}: tokens of type code {code}; supported: {known}")
    expected = _START + 12 * sequences + 8 * bounds
    if bounds < 1 or size not in (expected, expected + sequences):
        raise CorpusError(
            f"{path}: truncated or altered: {size} bytes, and {sequences} sequences and"
            f" {bounds} bounds of documents take {expected}"
        )
    dtype = _TYPES[code]
    tokens = _tokens(path, sequences, np.dtype(dtype))
    return MegatronIndex(path, dtype, sequences, bounds - 1, tokens)


def _tokens(path: Path, sequences: int, dtype: np.dtype[Any]) -> int:
    """Count the tokens of sequences that stand one after the other."""
    total = done = 0
    parts = read_parts(path, _PLACE, sequences, _START + 4 * sequences)
    for lengths_, places in zip(read_parts(path, _LENGTH, sequences, _START), parts, strict=True):
        lengths = lengths_.astype(np.int64)
        ends = total + np.cumsum(lengths)
        wrong = np.flatnonzero((lengths < 0) | (places != (ends - lengths) * dtype.itemsize))
        if len(wrong):
            k = int(wrong[0])
            raise CorpusError(
                f"{path}: altered: sequence {done + k} has {lengths[k]} tokens from byte"
                f" {places[k]}, and the one before it ends at"
                f" {int(ends[k] - lengths[k]) * dtype.itemsize}"
            )
        total, done = int(ends[-1]), done + len(lengths)
    return total
