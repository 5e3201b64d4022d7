"""Documents between reading and tokenising: their digests, the held-out split, and spools on disk.

Groups are ordered by a hash of their name (by default the document's content) and the seed; the
first groups are held out until they hold the requested share of the bytes, in any order of
documents. A spool keeps documents as digest, length and UTF-8; memory holds only digests.
"""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mixopt.system import writing

DIGEST_BYTES = 16  # of a document's digest
PIECE_BYTES = 1 << 26  # of text that one process tokenises at a time
_HEADER = struct.Struct("<16sQ")  # digest, and length of the content in bytes


class Spooled(NamedTuple):
    """A spooled document: its digest, and its content in UTF-8 (or as tokens)."""

    digest: bytes
    content: bytes


Grouped = tuple[str | None, Spooled]  # with the name of its group, if any


def content_digest(text: str) -> bytes:
    """Return 16 bytes, equal for texts that differ only in white space."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=DIGEST_BYTES).digest()


class HeldOutSplit:
    """Split a stream of documents: pass on those to train on, collect those to hold out."""

    def __init__(self, fraction: float, max_bytes: int, seed: int) -> None:
        """Store the share of the bytes to hold out and its maximum."""
        self._fraction = fraction
        self._max_bytes = max_bytes
        self._key = seed.to_bytes(8, "little")
        self._held_bytes = 0
        self._groups: dict[int, list[Spooled]] = {}
        self._heap: list[int] = []  # negative hashes of the groups
        self._limit = 1 << 64

    def training(self, documents: Iterable[Grouped]) -> Iterator[Spooled]:
        """Yield the documents to train on; `held_out` is final afterwards."""
        total = 0
        for group, document in documents:
            name = document.digest if group is None else group.encode()
            digest = hashlib.blake2b(name, digest_size=8, key=self._key).digest()
            order = int.from_bytes(digest, "big")
            total += len(document.content)
            if order >= self._limit:
                yield document
                continue
            if order not in self._groups:
                self._groups[order] = []
                heapq.heappush(self._heap, -order)
            self._groups[order].append(document)
            self._held_bytes += len(document.content)
            while self._held_bytes > self._max_bytes and len(self._heap) > 1:
                yield from self._drop()
        target = self._fraction * total
        while len(self._heap) > 1:
            last_group = self._groups[-self._heap[0]]
            # If more than twice the target is held, accept down to half of it.
            least = target / 2 if self._held_bytes > 2 * target else target
            if self._held_bytes - _size(last_group) < least:
                return
            yield from self._drop()

    @property
    def held_out(self) -> list[Spooled]:
        """The held-out documents, group by group."""
        return [document for order in sorted(self._groups) for document in self._groups[order]]

    def _drop(self) -> list[Spooled]:
        """Remove the last group in order from the held-out documents and return it."""
        self._limit = -heapq.heappop(self._heap)
        dropped = self._groups.pop(self._limit)
        self._held_bytes -= _size(dropped)
        return dropped


def _size(documents: Iterable[Spooled]) -> int:
    return sum(len(document.content) for document in documents)


class Spool:
    """A file of documents, written once and read any number of times."""

    def __init__(self, path: Path) -> None:
        """Store the path; write nothing."""
        self.path = path
        self.documents = self.bytes = 0
        self.starts: list[int] = []  # byte offsets of the pieces
        self._digests = bytearray()

    def write(self, documents: Iterable[Spooled]) -> None:
        """Write all documents."""
        last = 0  # bytes of text before the last piece
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb") as stream:
                for digest, content in documents:
                    if not self.starts or last + PIECE_BYTES <= self.bytes:
                        self.starts.append(stream.tell())
                        last = self.bytes
                    stream.write(_HEADER.pack(digest, len(content)) + content)
                    self._digests += digest
                    self.documents += 1
                    self.bytes += len(content)

    def __iter__(self) -> Iterator[Spooled]:
        """Read the documents in order."""
        return self._between(0, None)

    @property
    def pieces(self) -> range:
        """Numbers of the pieces, at least one."""
        return range(max(len(self.starts), 1))

    def piece(self, number: int, left_out: frozenset[bytes] = frozenset()) -> Iterator[Spooled]:
        """Read the documents of a piece, without those whose digests are in `left_out`."""
        start = self.starts[number] if self.starts else 0
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else None
        for document in self._between(start, stop):
            if document.digest not in left_out:
                yield document

    def digests(self) -> Iterator[bytes]:
        """Yield the digests in order."""
        for start in range(0, len(self._digests), DIGEST_BYTES):
            yield bytes(self._digests[start : start + DIGEST_BYTES])

    def _between(self, start: int, stop: int | None) -> Iterator[Spooled]:
        with self.path.open("rb") as stream:
            stream.seek(start)
            while (stop is None or start < stop) and (header := stream.read(_HEADER.size)):
                digest, length = _HEADER.unpack(header)
                start += _HEADER.size + length
                yield Spooled(digest, stream.read(length))
