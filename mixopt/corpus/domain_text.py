"""The text of domains: read, deduplicated, split and spooled to disk, then tokenised.

Documents are duplicates if their texts are equal after runs of white space become one space. Groups
are ordered by a hash of their name (by default the document's content) and the seed; the first
groups are held out until they hold the requested share of the bytes, in any order of documents.

A spool keeps documents between reading and tokenising, as digest, length and UTF-8; memory holds
only digests. One process reads a domain, and spools are tokenised in pieces of a fixed size, which
become shards: the result does not depend on the number of processes or on their timing.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.environment import DOMAIN_BYTES, environment_documents
from mixopt.corpus.sources import is_local, read_documents, read_validation, text_files
from mixopt.corpus.text_files import Document, ReaderContext
from mixopt.corpus.token_shards import TokenShards, TokenWriter
from mixopt.corpus.tokenizer import Tokenizer, saved_tokenizer, token_dtype
from mixopt.errors import CorpusError
from mixopt.system import Say, in_processes, steady_progress, writing

PARALLEL_BYTES = 32_000_000  # of text; below, starting processes costs more than it saves
PIECE_BYTES = 1 << 26  # of text that one process tokenises at a time
DIGEST_BYTES = 16  # of a document's digest
_BATCH_BYTES = 4_000_000
_HEADER = struct.Struct("<16sQ")


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
        self._fraction, self._max_bytes = fraction, max_bytes
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
            without = self._held_bytes - _size(self._groups[-self._heap[0]])
            # If more than twice the target is held, accept down to half of it.
            if without < (target / 2 if self._held_bytes > 2 * target else target):
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
        start, *stop = self.starts[number : number + 2] or [0]
        for document in self._between(start, stop[0] if stop else None):
            if document.digest not in left_out:
                yield document

    def digests(self) -> Iterator[bytes]:
        """Return the digests in order."""
        starts = range(0, len(self._digests), DIGEST_BYTES)
        return (bytes(self._digests[k : k + DIGEST_BYTES]) for k in starts)

    def _between(self, start: int, stop: int | None) -> Iterator[Spooled]:
        with self.path.open("rb") as stream:
            stream.seek(start)
            while (stop is None or start < stop) and (header := stream.read(_HEADER.size)):
                digest, length = _HEADER.unpack(header)
                start += _HEADER.size + length
                yield Spooled(digest, stream.read(length))


class DomainText:
    """A domain or target of text, read once into spools."""

    def __init__(
        self,
        name: str,
        source: SourceConfig,
        config: CorpusConfig,
        folder: Path,
        seed: int,
        *,
        is_target: bool,
    ) -> None:
        """Set the paths of the spools; read nothing."""
        self.name, self.is_target = name, is_target
        self.train = None if is_target else Spool(folder / "train")
        self.validation = Spool(folder / "validation")
        self.reading = ReaderContext(name, source, config.on_bad_document)
        self.left_out = Counter[str]()
        self.held_out = frozenset[bytes]()
        self.equal_to_evaluation = 0
        self._source, self._config, self._seed = source, config, seed

    @property
    def at(self) -> Path:
        """A file beside the spools with the name of the input file that is being read."""
        return self.validation.path.with_name("at")

    @property
    def max_bytes(self) -> int | None:
        """Maximum bytes of text to read; None: no limit."""
        if self.is_target:
            limit = self._config.max_validation_bytes
            return min(limit, self._source.max_bytes or limit)
        of_environment = None if self._source.environment is None else DOMAIN_BYTES
        return self._source.max_bytes or self._config.max_bytes or of_environment

    def expected_bytes(self) -> float:
        """Estimate the bytes to read; inf if unknown."""
        size: float = DOMAIN_BYTES
        if self._source.environment is None:
            files = text_files(self.name, self._source) if is_local(self._source) else []
            size = sum(file.bytes for file in files) or math.inf
        return min(self.max_bytes or math.inf, size)

    def read(self) -> DomainText:
        """Read all documents into the spools."""
        config, source, train, validation = self._config, self._source, self.train, self.validation
        digests: set[bytes] = set()
        if source.environment is not None:
            documents = environment_documents(source.environment)
        else:
            documents = map(Document, read_documents(source, self.reading, self.at))
        main = held_out = self._distinct(documents, self.max_bytes, digests)
        limit = config.max_validation_bytes
        if train is not None and source.validation is None:
            split = HeldOutSplit(config.validation_fraction, limit, self._seed)
            train.write(split.training(main))
            validation.write(split.held_out)
        else:
            if source.validation is not None:
                documents = map(Document, read_validation(source, self.reading))
                most = self.max_bytes if train is None else limit
                held_out = self._distinct(documents, most, digests)
            validation.write(document for _, document in held_out)
            self._check_any(validation, "" if train is None else "held-out ")
            if train is not None:
                train.write(document for _, document in main)
        if train is None:
            return self
        if train.documents == 0 and validation.documents > 0:
            raise CorpusError(
                f"domain {self.name!r}: all of its {validation.documents} documents are held out,"
                " so none is left to train on; name files of held-out documents as 'validation'"
            )
        self._check_any(train)
        return self

    def training(self) -> Iterator[Spooled]:
        """Return the documents to train on, without held-out ones."""
        return (document for document in self.train or () if document.digest not in self.held_out)

    def drop_equal_to(self, held_out: Iterable[bytes]) -> None:
        """Drop training documents with these digests."""
        if self.train is not None:
            self.held_out = frozenset(held_out).intersection(self.train.digests())
            self.equal_to_evaluation = len(self.held_out)

    @property
    def counts(self) -> dict[str, int | str]:
        """Counts of documents read and left out, for the corpus index."""
        documents = 0 if self.train is None else self.train.documents
        counts: dict[str, int | str] = {
            "train_documents": documents - self.equal_to_evaluation,
            "validation_documents": self.validation.documents,
            "empty": self.left_out["empty"],
            "duplicates": self.left_out["duplicates"],
            "equal_to_evaluation": self.equal_to_evaluation,
            "bad": self.reading.bad,
        }
        first_bad = self.reading.first_bad
        return counts | ({"first_bad": first_bad} if first_bad else {})

    @property
    def summary(self) -> str:
        """The size of the text, in one line."""
        documents, held_out = self.validation.documents, f"{self.validation.bytes / 1e6:.2f} MB"
        size = f"{held_out}, evaluation only"
        if self.train is not None:
            documents += self.train.documents
            size = f"{self.train.bytes / 1e6:.2f} MB to train on, {held_out} held out"
        counted = ", ".join(
            f"{count:,} {kind.removesuffix('s') if count == 1 else kind}"
            for kind, count in {**self.left_out, "bad": self.reading.bad}.items()
            if count
        )
        line = f"{self.name}: {documents:,} documents, {size}"
        return f"{line} ({counted} left out)" if counted else line

    def _distinct(
        self, documents: Iterator[Document], limit: int | None, digests: set[bytes]
    ) -> Iterator[Grouped]:
        """Yield documents not in `digests`, up to `limit` bytes; truncate the last one."""
        size = 0
        for text, group in documents:
            digest, content = content_digest(text), text.encode()
            if not text.strip() or digest in digests:
                self.left_out["duplicates" if digest in digests else "empty"] += 1
                continue
            digests.add(digest)
            if limit is not None and size + len(content) >= limit:
                content = content[: limit - size].decode("utf-8", errors="ignore").encode()
                yield group, Spooled(digest, content)
                return
            size += len(content)
            yield group, Spooled(digest, content)

    def _check_any(self, spool: Spool, kind: str = "") -> None:
        if spool.documents == 0:
            reading = self.reading
            bad = f" ({reading.bad} bad ones skipped, the first: {reading.first_bad})"
            raise CorpusError(
                f"domain {self.name!r}: no {kind}documents{bad if reading.bad else ''};"
                " add documents, or leave the domain out"
            )


def read_texts(texts: Sequence[DomainText], workers: int, say: Say) -> list[DomainText]:
    """Read all domains and targets."""
    sizes = {text.name: text.expected_bytes() for text in texts}
    if workers > 1 and len(texts) > 1 and sum(sizes.values()) >= PARALLEL_BYTES:
        largest_first = sorted(texts, key=lambda text: -sizes[text.name])
        read = in_processes(DomainText.read, largest_first, workers, died=_crash_error)
    else:
        read = (text.read() for text in texts)
    results: dict[str, DomainText] = {}
    unsaid = list(sizes)
    with steady_progress("reading", len(texts)) as update:
        for text in read:
            results[text.name] = text
            update(len(results), text.name)
            while unsaid and unsaid[0] in results:
                say(results[unsaid.pop(0)].summary)
    return [results[name] for name in sizes]


def _crash_error(job: DomainText | _Piece) -> CorpusError:
    where = ""
    if isinstance(job, DomainText) and job.at.exists():
        where = f"{job.at.read_text()}: "
    return CorpusError(
        f"domain {job.name!r}: {where}the process that reads or tokenises it died: it was killed,"
        " ran out of memory, or crashed on a damaged file"
    )


class _Piece(NamedTuple):
    """A piece of a spooled split to tokenise."""

    name: str
    spool: Spool
    number: int
    left_out: frozenset[bytes]
    corpus: Path
    tokenizer: str

    @property
    def folder(self) -> Path:
        """The folder of its shards until all pieces are done."""
        return self.spool.path.with_name(f"{self.spool.path.name}.pieces") / str(self.number)

    def write(self, tokenizer: Tokenizer | None = None) -> int:
        """Write its shards; return the number of tokens."""
        tokenizer = tokenizer or saved_tokenizer(self.corpus, self.tokenizer)
        dtype = token_dtype(tokenizer.vocab_size)
        with TokenWriter(self.folder, dtype=dtype, tokenizer=self.tokenizer) as writer:
            for batch in _batches(self.spool.piece(self.number, self.left_out)):
                tokens = tokenizer.encode([content.decode() for content in batch])
                writer.write(tokens, documents=len(batch), bytes=sum(map(len, batch)))
        return writer.tokens


def write_texts(
    texts: Sequence[DomainText], tokenizer: Tokenizer, path: Path, name: str, workers: int
) -> Iterator[tuple[DomainText, dict[str, int]]]:
    """Write the shards of all domains; yield each domain with its tokens by split."""
    splits = [
        (text, split, [_Piece(text.name, spool, n, left_out, path, name) for n in spool.pieces])
        for text in texts
        for split, spool, left_out in (
            ("train", text.train, text.held_out),
            ("validation", text.validation, frozenset[bytes]()),
        )
        if spool is not None
    ]
    jobs = [job for _, _, pieces in splits for job in pieces]
    if workers == 1 or sum(pieces[0].spool.bytes for _, _, pieces in splits) < PARALLEL_BYTES:
        written: Iterator[int] = (job.write(tokenizer) for job in jobs)
    else:
        written = in_processes(_Piece.write, jobs, workers, died=_crash_error)
    with steady_progress("tokenising", len(jobs)) as update:
        done, counts = 0, dict[str, int]()
        for text, split, pieces in splits:
            label = "training" if split == "train" else "held-out"
            counts[label] = sum(next(written) for _ in pieces)
            done += len(pieces)
            update(done, text.name)
            _join(pieces, path / text.name / split, name)
            if split == "validation":
                yield text, counts
                counts = {}


def _join(pieces: Sequence[_Piece], folder: Path, name: str) -> None:
    """Join the shards of the pieces into one folder."""
    parts = [TokenShards.open(piece.folder, verify=False) for piece in pieces]
    with TokenWriter(folder, dtype=parts[0].dtype, tokenizer=name) as writer:
        for part in parts:
            for shard in part.shards:
                writer.take(part.path / shard.file, shard, is_moved=True)
            writer.documents += part.documents
            writer.bytes += part.bytes


def _batches(documents: Iterable[Spooled]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        batch.append(document.content)
        size += len(document.content)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
