"""The two parts of a preparation that take long, in this process or in several at once.

Reading: a domain is read, deduplicated, split and spooled, by one process. Writing: what is spooled
is tokenised in pieces of a fixed size, which become shards. Neither depends on how many processes
work or on which is ready first, so that the shards do not either. Little text is not worth a
process; but files that libraries in C decode are read in one at any rate, since a damaged file may
end the process that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mixopt.corpus.domain_text import DomainText, ReadJob, Spool, Spooled
from mixopt.corpus.token_shards import TokenShards
from mixopt.corpus.token_writer import TokenWriter
from mixopt.corpus.tokenizer import Tokenizer, saved_tokenizer, token_dtype
from mixopt.errors import CorpusError
from mixopt.system import Say, in_processes, steady_progress, usable_cores

MIN_BYTES = 32_000_000  # of text from which processes are worth their start
_BATCH_BYTES = 4_000_000
_DEADLY = ("parquet", "arrow")  # builders whose libraries may die of a damaged file


def read_texts(jobs: Sequence[ReadJob], workers: int, say: Say) -> list[DomainText]:
    """Read all domains and targets."""
    sizes = [job.bytes for job in jobs]
    is_worth_it = workers > 1 and len(jobs) > 1 and sum(sizes) >= MIN_BYTES
    largest_first = sorted(range(len(jobs)), key=lambda place: -sizes[place])
    apart = [place for place in largest_first if is_worth_it or _is_deadly(jobs[place])]
    here = [place for place in range(len(jobs)) if place not in apart]
    read = in_processes(_read, [jobs[place] for place in apart], workers, died=_died)
    texts = chain((jobs[place].read() for place in here), read)
    found: dict[int, DomainText] = {}
    with steady_progress("reading", len(jobs)) as update:
        number = 0
        for place, text in zip([*here, *apart], texts, strict=True):
            found[place] = text
            update(len(found), jobs[place].name)
            while number in found:
                say(found[number].summary)
                number += 1
    return [found[place] for place in range(len(jobs))]


def _is_deadly(job: ReadJob) -> bool:
    """Tell whether a library that decodes its files may die of a damaged one."""
    return any(file.builder in _DEADLY for file in job.files)


def _read(job: ReadJob) -> DomainText:
    return job.read()


def _died(job: ReadJob | PieceJob) -> CorpusError:
    return CorpusError(f"{job.what} died: it was killed, ran out of memory, or met a damaged file")


@dataclass(frozen=True)
class PieceJob:
    """A piece of a spooled split, to be tokenised."""

    domain: str
    spool: Spool
    number: int
    left_out: frozenset[bytes]
    corpus: Path
    tokenizer: str

    @property
    def what(self) -> str:
        """What a message says where the process dies."""
        return f"domain {self.domain!r}: the process that tokenises it"

    @property
    def folder(self) -> Path:
        """Where its shards are until all pieces are there."""
        return self.spool.path.with_name(f"{self.spool.path.name}.pieces") / str(self.number)

    def write(self, tokenizer: Tokenizer) -> int:
        """Write its shards; return how many tokens there are."""
        documents = self.spool.piece(self.number, self.left_out)
        return write_tokens(documents, tokenizer, self.folder, self.tokenizer)


def write_texts(
    texts: Sequence[DomainText], tokenizer: Tokenizer, path: Path, name: str, workers: int
) -> Iterator[tuple[DomainText, dict[str, int]]]:
    """Write the shards of all domains."""
    splits = {
        (text.name, what): [
            PieceJob(text.name, spool, n, left_out, path, name)
            for n in range(max(len(spool.starts), 1))
        ]
        for text in texts
        for what, spool, left_out in _spools(text)
    }
    jobs = [job for pieces in splits.values() for job in pieces]
    size = sum(spool.bytes for text in texts for _, spool, _ in _spools(text))
    if workers == 1 or size < MIN_BYTES:
        written: Iterator[int] = (job.write(tokenizer) for job in jobs)
    else:
        # The library's threads are of use where few pieces are left for many cores.
        threads = max(2, -(-usable_cores() // workers))
        written = in_processes(_write, jobs, workers, died=_died, threads=threads)
    with steady_progress("tokenising", len(jobs)) as update:
        done = 0
        for text in texts:
            counts = {}
            for what, _, _ in _spools(text):
                pieces = splits[text.name, what]
                counts[what] = sum(next(written) for _ in pieces)
                done += len(pieces)
                update(done, text.name)
                split = "train" if what == "training" else "validation"
                _join(pieces, path / text.name / split, name)
            yield text, counts


def _spools(text: DomainText) -> Iterator[tuple[str, Spool, frozenset[bytes]]]:
    if text.train is not None:
        yield "training", text.train, text.held_out
    yield "held-out", text.validation, frozenset()


def _write(job: PieceJob) -> int:
    return job.write(saved_tokenizer(job.corpus, job.tokenizer))


def _join(pieces: Sequence[PieceJob], folder: Path, name: str) -> None:
    """Make shards of the pieces."""
    parts = [TokenShards.open(piece.folder, verify=False) for piece in pieces]
    with TokenWriter(folder, dtype=parts[0].dtype, tokenizer=name) as writer:
        for part in parts:
            for shard in part.shards:
                writer.take(part.path / shard.file, shard, is_moved=True)
        writer.documents = sum(part.documents for part in parts)
        writer.bytes = sum(part.bytes for part in parts)


def write_tokens(
    documents: Iterable[Spooled], tokenizer: Tokenizer, folder: Path, name: str
) -> int:
    """Write the tokens of documents to a folder of shards; return how many there are."""
    dtype = token_dtype(tokenizer.vocab_size)
    with TokenWriter(folder, dtype=dtype, tokenizer=name) as writer:
        for batch in _batches(documents):
            tokens = tokenizer.encode([document.decode() for document in batch])
            writer.write(tokens, documents=len(batch), bytes=sum(map(len, batch)))
    return writer.tokens


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
