"""The text of one domain: read from its source, deduplicated, split and spooled to disk.

Two documents are the same when their text is, after runs of white space became one space. Held out
are the first groups in an order by a hash of their name (of their content, for a document that is
its own group) and the seed, until they hold the wanted share of the bytes: which side a document
falls on does not depend on the order in which documents come.

A spool holds documents between reading and tokenising, so that memory does not hold a corpus. A
record is the digest of the document, the length of its UTF-8 and the UTF-8; memory holds digests.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.environment import DOMAIN_BYTES, MIN_BYTES, environment_documents
from mixopt.corpus.sources import (
    TextFile,
    is_local,
    read_documents,
    read_validation,
    text_files,
)
from mixopt.corpus.text_files import BadDocuments, Document
from mixopt.errors import CorpusError
from mixopt.system import writing

AT = "at"  # names the file that is being read, beside the spools
PIECE_BYTES = 1 << 26  # of text that one process tokenises at a time
_HEADER = struct.Struct("<16sQ")
_DIGEST = 16  # bytes


class Spooled(NamedTuple):
    """A document as it is kept on disk: its digest, and its content in UTF-8 (or as tokens)."""

    digest: bytes
    content: bytes


def content_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ in white space only."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


class HeldOutSplit:
    """Takes documents one by one, gives back those to train on, and keeps the held-out ones."""

    def __init__(self, fraction: float, max_bytes: int, seed: int) -> None:
        """Choose how much to hold out."""
        self._fraction, self._max_bytes = fraction, max_bytes
        self._key = seed.to_bytes(8, "little")
        self._total = self._held = 0
        self._groups: dict[int, list[Spooled]] = {}
        self._sizes: dict[int, int] = {}
        self._last: list[int] = []
        self._limit = 1 << 64

    def add(self, document: Document, spooled: Spooled) -> Iterator[Spooled]:
        """Take a document and give those that now are for training."""
        place, size = self._place(document, spooled), len(spooled.content)
        self._total += size
        if place >= self._limit:
            yield spooled
            return
        if place not in self._groups:
            self._groups[place], self._sizes[place] = [], 0
            heapq.heappush(self._last, -place)
        self._groups[place].append(spooled)
        self._sizes[place] += size
        self._held += size
        while self._held > self._max_bytes and len(self._last) > 1:
            yield from self._drop()

    def finish(self) -> Iterator[Spooled]:
        """Give the remaining training documents; `kept` are then the held-out ones."""
        wanted = self._fraction * self._total
        while len(self._last) > 1 and self._is_enough_without_last(wanted):
            yield from self._drop()

    @property
    def kept(self) -> list[Spooled]:
        """The documents that are held out, group after group."""
        return [one for place in sorted(self._groups) for one in self._groups[place]]

    def _is_enough_without_last(self, wanted: float) -> bool:
        """Tell whether the last group can go: half will do where it would give twice too much."""
        without = self._held - self._sizes[-self._last[0]]
        return without >= (wanted / 2 if self._held > 2 * wanted else wanted)

    def _place(self, document: Document, spooled: Spooled) -> int:
        name = spooled.digest if document.group is None else document.group.encode()
        digest = hashlib.blake2b(name, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big")

    def _drop(self) -> list[Spooled]:
        """Let go of the last group in order."""
        self._limit = -heapq.heappop(self._last)
        self._held -= self._sizes.pop(self._limit)
        return self._groups.pop(self._limit)


class Spool:
    """A file of documents: written once, in a `with` block, and then read any number of times."""

    def __init__(self, path: Path) -> None:
        """Choose the file; nothing is written yet."""
        self.path = path
        self.documents = self.bytes = 0
        self.starts: list[int] = []  # where pieces begin in the file
        self._digests = bytearray()
        self._last = 0  # bytes of text before the last piece
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Open the file for writing."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        stream, self._stream = self._stream, None
        with writing(self.path):
            if stream is not None:
                stream.close()

    def add(self, document: Spooled) -> None:
        """Append a document."""
        assert self._stream is not None, "a spool is written in its with block"
        digest, content = document
        with writing(self.path):
            self._stream.write(_HEADER.pack(digest, len(content)) + content)
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
        """Read the documents of a piece, but those with these digests."""
        start, *stop = self.starts[number : number + 2] or [0]
        for document in self._between(start, stop[0] if stop else None):
            if document.digest not in left_out:
                yield document

    def digests(self) -> Iterator[bytes]:
        """Give the digests in order."""
        places = range(0, len(self._digests), _DIGEST)
        return (bytes(self._digests[k : k + _DIGEST]) for k in places)

    def _between(self, start: int, stop: int | None) -> Iterator[Spooled]:
        with self.path.open("rb") as stream:
            stream.seek(start)
            while (stop is None or start < stop) and (header := stream.read(_HEADER.size)):
                digest, length = _HEADER.unpack(header)
                start += _HEADER.size + length
                yield Spooled(digest, stream.read(length))


@dataclass
class DomainText:
    """Spooled documents of a domain, and what was left out on the way."""

    name: str
    train: Spool | None
    validation: Spool
    bad: BadDocuments
    left_out: Counter[str] = field(default_factory=Counter)
    held_out: frozenset[bytes] = frozenset()
    equal_to_evaluation: int = 0

    @property
    def is_target(self) -> bool:
        """Whether it is only evaluated."""
        return self.train is None

    def training(self) -> Iterator[Spooled]:
        """Give the documents to train on, without those that are held out."""
        for document in self.train or ():
            if document.digest not in self.held_out:
                yield document

    def drop_equal_to(self, held_out: Iterable[bytes]) -> None:
        """Leave these digests out of the training documents from now on."""
        if self.train is not None:
            self.held_out = frozenset(held_out).intersection(self.train.digests())
            if self.held_out:
                equal = sum(digest in self.held_out for digest in self.train.digests())
                self.equal_to_evaluation = equal

    @property
    def counts(self) -> dict[str, int | str]:
        """What was read and what was left out, for the corpus index."""
        documents = 0 if self.train is None else self.train.documents
        counts: dict[str, int | str] = {
            "train_documents": documents - self.equal_to_evaluation,
            "validation_documents": self.validation.documents,
            "empty": self.left_out["empty"],
            "duplicates": self.left_out["duplicates"],
            "equal_to_evaluation": self.equal_to_evaluation,
            "bad": self.bad.count,
        }
        return counts | ({"first_bad": self.bad.first} if self.bad.first else {})

    @property
    def summary(self) -> str:
        """One line: how much text there is."""
        held_out = f"{self.validation.bytes / 1e6:.2f} MB"
        if self.train is None:
            line = (
                f"{self.name}: {self.validation.documents:,} documents, {held_out}, evaluation only"
            )
        else:
            documents = self.validation.documents + self.train.documents
            trained = f"{self.train.bytes / 1e6:.2f} MB to train on"
            line = f"{self.name}: {documents:,} documents, {trained}, {held_out} held out"
        left_out = {**self.left_out, "bad": self.bad.count}
        counted = ", ".join(
            f"{count:,} {what.removesuffix('s') if count == 1 else what}"
            for what, count in left_out.items()
            if count
        )
        return f"{line} ({counted} left out)" if counted else line


@dataclass(frozen=True)
class ReadJob:
    """A domain or target that is text, to be read, split and spooled."""

    name: str
    source: SourceConfig
    is_target: bool
    config: CorpusConfig
    folder: Path
    seed: int

    @property
    def what(self) -> str:
        """What a message says where the process dies: what it was at."""
        at = self.folder / AT
        where = f": {at.read_text()}" if at.exists() else ""
        return f"domain {self.name!r}{where}: the process that reads it"

    @cached_property
    def files(self) -> list[TextFile]:
        """Its files, where it is files."""
        has_files = self.source.environment is None and is_local(self.source)
        return text_files(self.name, self.source) if has_files else []

    @property
    def most(self) -> int | None:
        """How many bytes of text are read at most."""
        if self.is_target:
            most = self.config.max_validation_bytes
            return min(most, self.source.max_bytes or most)
        of_environment = None if self.source.environment is None else DOMAIN_BYTES
        return self.source.max_bytes or self.config.max_bytes or of_environment

    @property
    def bytes(self) -> float:
        """How many bytes are read, as far as is known before."""
        known = DOMAIN_BYTES if self.source.environment is not None else math.inf
        return min(self.most or math.inf, sum(file.bytes for file in self.files) or known)

    def read(self) -> DomainText:
        """Read its documents once, and keep them in files."""
        config, validation = self.config, Spool(self.folder / "validation")
        train = None if self.is_target else Spool(self.folder / "train")
        text = DomainText(self.name, train, validation, BadDocuments(config.on_bad_document))
        seen: set[bytes] = set()
        own = _distinct(text, self._documents(text), self.most, seen)
        with validation, nullcontext() if train is None else train:
            if self.source.validation is not None:
                given = map(Document, read_validation(self.name, self.source, text.bad))
                most = self.most if train is None else config.max_validation_bytes
                _add_all((one for _, one in _distinct(text, given, most, seen)), validation)
                _check_any(text, validation, "" if train is None else "held-out ")
                if train is not None:
                    _add_all((one for _, one in own), train)
            elif train is None:
                _add_all((one for _, one in own), validation)
                _check_any(text, validation, "")
            else:
                _hold_out(own, train, validation, config, self.seed)
        if train is not None:
            self._check_enough(text, train)
        return text

    def _documents(self, text: DomainText) -> Iterator[Document]:
        if self.source.environment is not None:
            return environment_documents(self.source.environment)
        documents = read_documents(self.name, self.source, text.bad, self.folder / AT)
        return map(Document, documents)

    def _check_enough(self, text: DomainText, train: Spool) -> None:
        total = train.bytes + text.validation.bytes
        least = min(MIN_BYTES, self.source.max_bytes or self.config.max_bytes or MIN_BYTES)
        if self.source.environment is not None and total < 0.99 * least:
            raise CorpusError(
                f"domain {self.name!r}: the installed packages have {total / 1e6:.2f} MB of"
                f" {self.source.environment!r}, less than {least / 1e6:.2f} MB; leave it out, use"
                f" it under evaluation, or accept it with max_bytes: {total // 10_000 * 10_000}"
            )
        if train.documents == 0 and text.validation.documents > 0:
            raise CorpusError(
                f"domain {self.name!r}: its {text.validation.documents} documents are all held"
                " out, so none is left to train on; name files of held-out documents as"
                " 'validation'"
            )
        _check_any(text, train, "")


def _hold_out(
    documents: Iterator[tuple[Document, Spooled]],
    train: Spool,
    validation: Spool,
    config: CorpusConfig,
    seed: int,
) -> None:
    split = HeldOutSplit(config.validation_fraction, config.max_validation_bytes, seed)
    for document, spooled in documents:
        _add_all(split.add(document, spooled), train)
    _add_all(split.finish(), train)
    _add_all(split.kept, validation)


def _distinct(
    text: DomainText, documents: Iterator[Document], limit: int | None, seen: set[bytes]
) -> Iterator[tuple[Document, Spooled]]:
    """Give documents not seen before, up to `limit` bytes; the last one is cut there."""
    given = 0
    for document in documents:
        digest = content_digest(document.text)
        if not document.text.strip() or digest in seen:
            text.left_out["duplicates" if digest in seen else "empty"] += 1
            continue
        seen.add(digest)
        content = document.text.encode()
        if limit is not None and given + len(content) >= limit:
            content = content[: limit - given].decode("utf-8", errors="ignore").encode()
            yield document, Spooled(digest, content)
            return
        given += len(content)
        yield document, Spooled(digest, content)


def _add_all(documents: Iterable[Spooled], spool: Spool) -> None:
    for document in documents:
        spool.add(document)


def _check_any(text: DomainText, spool: Spool, what: str) -> None:
    if spool.documents == 0:
        bad = f" ({text.bad.count} bad ones skipped, the first {text.bad.first})"
        raise CorpusError(
            f"domain {text.name!r}: no {what}documents{bad if text.bad.count else ''};"
            " give it some, or leave it out"
        )
