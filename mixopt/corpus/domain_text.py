"""The text of domains: read, deduplicated, split and spooled to disk, then tokenised.

Documents are duplicates if their texts are equal after runs of white space become one space. One
process reads a domain, and spools are tokenised in pieces of a fixed size, which become shards: the
result does not depend on the number of processes or on their timing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.environment import DOMAIN_BYTES, environment_documents
from mixopt.corpus.reader_context import Document, ReaderContext
from mixopt.corpus.sources import is_local, read_documents, read_validation, text_files
from mixopt.corpus.spooled_documents import Grouped, HeldOutSplit, Spool, Spooled, content_digest
from mixopt.corpus.token_shards import TokenShards, TokenWriter
from mixopt.corpus.tokenizer import Tokenizer, saved_tokenizer, token_dtype
from mixopt.errors import CorpusError
from mixopt.system import Say, in_processes, steady_progress

PARALLEL_BYTES = 32_000_000  # of text; below, starting processes costs more than it saves
_BATCH_BYTES = 4_000_000  # of text, tokenised in one call


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
        self.name = name
        self.is_target = is_target
        self.train = None if is_target else Spool(folder / "train")
        self.validation = Spool(folder / "validation")
        self.reading = ReaderContext(name, source, config.on_bad_document)
        self.left_out = Counter[str]()
        self.held_out = frozenset[bytes]()
        self.equal_to_evaluation = 0
        self._source = source
        self._config = config
        self._seed = seed

    @property
    def at(self) -> Path:
        """A file beside the spools with the name of the input file that is being read."""
        return self.validation.path.with_name("at")

    @property
    def max_bytes(self) -> int | None:
        """Maximum bytes of text to read; None: no limit."""
        if self.is_target:
            max_target = self._config.max_validation_bytes
            return min(max_target, self._source.max_bytes or max_target)
        limit = self._source.max_bytes or self._config.max_bytes
        if limit is None and self._source.environment is not None:
            return DOMAIN_BYTES
        return limit

    def expected_bytes(self) -> float:
        """Estimate the bytes to read; inf if unknown."""
        size = math.inf
        if self._source.environment is not None:
            size = DOMAIN_BYTES
        elif is_local(self._source):
            files = text_files(self.name, self._source)
            size = sum(file.bytes for file in files) or math.inf
        return min(self.max_bytes or math.inf, size)

    def read(self) -> DomainText:
        """Read all documents into the spools."""
        digests = set[bytes]()
        if self.train is None:
            self._read_target(digests)
        elif self._source.validation is None:
            self._split(self.train, digests)
        else:
            self._read_splits(self.train, digests)
        return self

    def _read_target(self, digests: set[bytes]) -> None:
        """Read the documents of a target, from `validation` if the source has it."""
        if self._source.validation is None:
            documents = self._documents()
        else:
            documents = self._validation_documents()
        self.validation.write(_ungrouped(self._distinct(documents, self.max_bytes, digests)))
        self._check_any(self.validation)

    def _split(self, train: Spool, digests: set[bytes]) -> None:
        """Read the documents of a domain, and hold out some of them."""
        config = self._config
        split = HeldOutSplit(config.validation_fraction, config.max_validation_bytes, self._seed)
        train.write(split.training(self._distinct(self._documents(), self.max_bytes, digests)))
        self.validation.write(split.held_out)
        self._check_train(train)

    def _read_splits(self, train: Spool, digests: set[bytes]) -> None:
        """Read the held-out documents from `validation`, then those to train on."""
        limit = self._config.max_validation_bytes
        held_out = self._distinct(self._validation_documents(), limit, digests)
        self.validation.write(_ungrouped(held_out))
        self._check_any(self.validation, "held-out ")
        train.write(_ungrouped(self._distinct(self._documents(), self.max_bytes, digests)))
        self._check_train(train)

    def _documents(self) -> Iterator[Document]:
        if self._source.environment is not None:
            return environment_documents(self._source.environment)
        return map(Document, read_documents(self._source, self.reading, self.at))

    def _validation_documents(self) -> Iterator[Document]:
        return map(Document, read_validation(self._source, self.reading))

    def training(self) -> Iterator[Spooled]:
        """Yield the documents to train on, without held-out ones."""
        for document in self.train or ():
            if document.digest not in self.held_out:
                yield document

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
        if self.reading.first_bad:
            counts["first_bad"] = self.reading.first_bad
        return counts

    @property
    def summary(self) -> str:
        """The size of the text, in one line."""
        documents = self.validation.documents
        held_out = f"{self.validation.bytes / 1e6:.2f} MB"
        size = f"{held_out}, evaluation only"
        if self.train is not None:
            documents += self.train.documents
            size = f"{self.train.bytes / 1e6:.2f} MB to train on, {held_out} held out"
        line = f"{self.name}: {documents:,} documents, {size}"
        left_out = self._left_out_counts()
        return f"{line} ({left_out} left out)" if left_out else line

    def _left_out_counts(self) -> str:
        """Return the counts above 0 of documents left out, such as `2 duplicates, 1 bad`."""
        counts = []
        for kind, count in {**self.left_out, "bad": self.reading.bad}.items():
            label = kind.removesuffix("s") if count == 1 else kind
            if count:
                counts.append(f"{count:,} {label}")
        return ", ".join(counts)

    def _distinct(
        self, documents: Iterator[Document], limit: int | None, digests: set[bytes]
    ) -> Iterator[Grouped]:
        """Yield documents not in `digests`, up to `limit` bytes; truncate the last one."""
        size = 0
        for text, group in documents:
            digest = content_digest(text)
            content = text.encode()
            if digest in digests:
                self.left_out["duplicates"] += 1
                continue
            if not text.strip():
                self.left_out["empty"] += 1
                continue
            digests.add(digest)
            if limit is not None and size + len(content) >= limit:
                truncated = content[: limit - size].decode("utf-8", errors="ignore")
                yield group, Spooled(digest, truncated.encode())
                return
            size += len(content)
            yield group, Spooled(digest, content)

    def _check_train(self, train: Spool) -> None:
        if train.documents == 0 and self.validation.documents > 0:
            raise CorpusError(
                f"domain {self.name!r}: all of its {self.validation.documents} documents are held"
                " out, so none is left to train on; name files of held-out documents as"
                " 'validation'"
            )
        self._check_any(train)

    def _check_any(self, spool: Spool, kind: str = "") -> None:
        if spool.documents > 0:
            return
        skipped = ""
        if self.reading.bad:
            first = self.reading.first_bad
            skipped = f" ({self.reading.bad} bad ones skipped, the first: {first})"
        raise CorpusError(
            f"domain {self.name!r}: no {kind}documents{skipped};"
            " add documents, or leave the domain out"
        )


def _ungrouped(documents: Iterable[Grouped]) -> Iterator[Spooled]:
    return (document for _, document in documents)


def read_texts(texts: Sequence[DomainText], workers: int, say: Say) -> list[DomainText]:
    """Read all domains and targets."""
    sizes = {text.name: text.expected_bytes() for text in texts}
    if workers > 1 and len(texts) > 1 and sum(sizes.values()) >= PARALLEL_BYTES:
        largest_first = sorted(texts, key=lambda text: -sizes[text.name])
        read = in_processes(DomainText.read, largest_first, workers, died=_crash_error)
    else:
        read = (text.read() for text in texts)
    results: dict[str, DomainText] = {}
    unreported = list(sizes)
    with steady_progress("reading", len(texts)) as update:
        for text in read:
            results[text.name] = text
            update(len(results), text.name)
            while unreported and unreported[0] in results:
                say(results[unreported.pop(0)].summary)
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
    splits = _splits(texts, path, name)
    jobs = list(chain.from_iterable(split.pieces for split in splits))
    size = sum(split.spool.bytes for split in splits)
    if workers == 1 or size < PARALLEL_BYTES:
        written: Iterator[int] = (job.write(tokenizer) for job in jobs)
    else:
        written = in_processes(_Piece.write, jobs, workers, died=_crash_error)
    with steady_progress("tokenising", len(jobs)) as update:
        done = 0
        counts = dict[str, int]()
        for split in splits:
            counts[split.label] = sum(islice(written, len(split.pieces)))
            done += len(split.pieces)
            update(done, split.text.name)
            _join(split, name)
            if split.spool is split.text.validation:  # the last split of a domain
                yield split.text, counts
                counts = {}


class _Split(NamedTuple):
    """A split of a domain to tokenise, and the folder of its shards."""

    text: DomainText
    label: str
    spool: Spool
    folder: Path
    pieces: list[_Piece]


def _splits(texts: Sequence[DomainText], path: Path, name: str) -> list[_Split]:
    """Return the splits of all domains and targets, each domain's held-out one last."""

    def split(text: DomainText, label: str, spool: Spool, left_out: frozenset[bytes]) -> _Split:
        pieces = [_Piece(text.name, spool, k, left_out, path, name) for k in spool.pieces]
        return _Split(text, label, spool, path / text.name / spool.path.name, pieces)

    splits = []
    for text in texts:
        if text.train is not None:
            splits.append(split(text, "training", text.train, text.held_out))
        splits.append(split(text, "held-out", text.validation, frozenset()))
    return splits


def _join(split: _Split, name: str) -> None:
    """Join the shards of the pieces into one folder."""
    parts = [TokenShards.open(piece.folder, verify=False) for piece in split.pieces]
    with TokenWriter(split.folder, dtype=parts[0].dtype, tokenizer=name) as writer:
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
            batch = []
            size = 0
    if batch:
        yield batch
