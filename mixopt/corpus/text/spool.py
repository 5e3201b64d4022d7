"""Documents on disk between reading and tokenizing, so that memory does not hold a corpus.

A record is the digest of the document, the length of its UTF-8 and the UTF-8. Digests are in a
file of their own too, which is read without the documents.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from mixopt.errors import RunError

_HEADER = struct.Struct("<16sQ")
DIGEST = 16  # bytes
PIECE_BYTES = 1 << 26  # of text that one process tokenises at a time


class Spooled(NamedTuple):
    """A document as it was spooled."""

    digest: bytes
    content: bytes


class Spool:
    """A file of documents: written once, in a `with` block, and then read any number of times."""

    def __init__(
        self, path: Path, documents: int = 0, bytes: int = 0, starts: Sequence[int] = ()
    ) -> None:
        """Choose the file; nothing is written yet.

        Args:
            path: The file.
            documents: How many it has, if another process has written it.
            bytes: Of text in them.
            starts: Where its pieces begin in the file.
        """
        self.starts = list(starts)
        self.path = path
        self.documents, self.bytes = documents, bytes
        self._digests = bytearray()
        self._last = 0  # bytes of text before the last piece
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Open the file for writing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("wb")
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                stream.close()
                self._beside.write_bytes(self._digests)
                self._digests.clear()
        except OSError as full:
            raise self._unwritable(full) from full

    def add(self, digest: bytes, content: bytes) -> None:
        """Append a document.

        Raises:
            RunError: The disk is full.
        """
        assert self._stream is not None, "a spool is written in its with block"
        try:
            self._stream.write(_HEADER.pack(digest, len(content)) + content)
        except OSError as error:
            raise self._unwritable(error) from error
        if not self.starts or self._last + PIECE_BYTES <= self.bytes:
            self.starts.append(self.bytes + self.documents * _HEADER.size)
            self._last = self.bytes
        self._digests += digest
        self.documents += 1
        self.bytes += len(content)

    def __iter__(self) -> Iterator[Spooled]:
        """Read the documents in order."""
        return self._between(0, None)

    def piece(self, number: int, left_out: frozenset[bytes] = frozenset()) -> Iterator[Spooled]:
        """Read the documents of a piece, but those with these digests.

        Pieces begin where the text before them is a multiple of a fixed size, or a little more.
        """
        start, *stop = self.bounds(number)
        found = self._between(start, stop[0] if stop else None)
        return (document for document in found if document.digest not in left_out)

    def bounds(self, number: int) -> list[int]:
        """Return where a piece begins in the file, and where it ends unless it is the last."""
        return self.starts[number : number + 2] or [0]

    def _between(self, start: int, stop: int | None) -> Iterator[Spooled]:
        with self.path.open("rb") as stream:
            stream.seek(start)
            while (stop is None or start < stop) and (header := stream.read(_HEADER.size)):
                digest, length = _HEADER.unpack(header)
                start += _HEADER.size + length
                yield Spooled(digest, stream.read(length))

    def digests(self) -> Iterator[bytes]:
        """Read the digests in order, and not the documents."""
        with self._beside.open("rb") as stream:
            while block := stream.read(1024 * DIGEST):
                yield from (block[k : k + DIGEST] for k in range(0, len(block), DIGEST))

    @property
    def _beside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.digests")

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written: {error.strerror or error}")
