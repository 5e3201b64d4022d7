"""Documents on disk between reading and tokenizing, so that memory does not hold a corpus.

A record is the digest of the document, the length of its UTF-8 and the UTF-8.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from mixopt.errors import RunError

_HEADER = struct.Struct("<16sQ")


class Spooled(NamedTuple):
    """A document as it was spooled."""

    digest: bytes
    content: bytes


class Spool:
    """A file of documents: written once, in a `with` block, and then read any number of times."""

    def __init__(self, path: Path) -> None:
        """Choose the file; nothing is written yet."""
        self.path = path
        self.documents = self.bytes = 0
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
        self.documents += 1
        self.bytes += len(content)

    def __iter__(self) -> Iterator[Spooled]:
        """Read the documents in order."""
        with self.path.open("rb") as stream:
            while header := stream.read(_HEADER.size):
                digest, length = _HEADER.unpack(header)
                yield Spooled(digest, stream.read(length))

    def digests(self) -> Iterator[bytes]:
        """Read the digests in order, and not the documents."""
        with self.path.open("rb") as stream:
            while header := stream.read(_HEADER.size):
                digest, length = _HEADER.unpack(header)
                yield digest
                stream.seek(length, os.SEEK_CUR)

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written: {error.strerror or error}")
