"""The two parts of a preparation that take long, in this process or in several at once.

Reading: a domain is read, deduplicated, split and spooled, by one process. Writing: what is spooled
is tokenised in pieces of a fixed size, which become shards. Neither depends on how many processes
work or on which is ready first, so that the shards do not either. Little text is not worth a
process, and is prepared in this one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.linked_shards import LinkedFile, write_linked
from mixopt.corpus.text import (
    DIGEST,
    DOMAIN_BYTES,
    DomainText,
    Environment,
    Spool,
    Spooled,
    is_local,
    read_domain,
    read_target,
    text_files,
)
from mixopt.corpus.token_shards import TokenShards
from mixopt.corpus.token_writer import TokenWriter
from mixopt.corpus.tokenizer import Tokenizer, saved_tokenizer, token_dtype
from mixopt.errors import CorpusError
from mixopt.system import Say, Update, in_children, steady_progress, usable_cores

LEAST_BYTES = 32_000_000  # of text from which processes are worth their start
_THREADS = "RAYON_NUM_THREADS"  # of the library that tokenises, in one process
_BATCH_BYTES = 4_000_000
_TRAINING = "training"


@dataclass(frozen=True)
class ReadJob:
    """A domain or target that is text.

    Attributes:
        name: What it is called.
        source: Where its documents are, files under `corpus.root`.
        is_target: Whether all of it is held out.
    """

    name: str
    source: SourceConfig
    is_target: bool

    def bytes(self, config: CorpusConfig) -> float:
        """Return how many bytes are read at most, as far as is known before."""
        most = self.source.max_bytes or config.max_bytes or math.inf
        if self.is_target:
            most = min(most, config.max_validation_bytes)
        if self.source.environment is not None:
            return min(most, DOMAIN_BYTES)
        if is_local(self.source):
            return min(most, sum(file.bytes for file in text_files(self.name, self.source)))
        return most

    def read(
        self, config: CorpusConfig, environment: Environment, folder: Path, seed: int
    ) -> DomainText:
        """Read, split and spool it."""
        if self.is_target:
            return read_target(self.name, self.source, config, environment, folder)
        return read_domain(self.name, self.source, config, environment, folder, seed)


def read_texts(
    jobs: Sequence[ReadJob], config: CorpusConfig, folder: Path, seed: int, workers: int, say: Say
) -> list[DomainText]:
    """Read all domains and targets.

    Args:
        jobs: The domains, then the targets.
        config: Fractions, limits and policy.
        folder: Where they are spooled.
        seed: Which documents are held out.
        workers: Processes at once.
        say: Receives a line for each.

    Raises:
        CorpusError: A source that cannot be used, or a process that died.
    """
    with steady_progress("reading", len(jobs)) as update:
        return _read(jobs, config, folder, seed, workers, say, update)


def _read(
    jobs: Sequence[ReadJob],
    config: CorpusConfig,
    folder: Path,
    seed: int,
    workers: int,
    say: Say,
    update: Update,
) -> list[DomainText]:
    sizes = [job.bytes(config) for job in jobs] if workers > 1 and len(jobs) > 1 else []
    if not sizes or sum(sizes) < LEAST_BYTES:
        environment = Environment()
        texts = []
        for job in jobs:
            texts.append(job.read(config, environment, folder / job.name, seed))
            say(texts[-1].summary)
            update(len(texts), job.name)
        return texts
    order = sorted(range(len(jobs)), key=lambda place: -sizes[place])
    calls = [_read_call(jobs[place], config, folder, seed) for place in order]

    def died(turn: int, how: str) -> CorpusError:
        return CorpusError(f"domain {jobs[order[turn]].name!r}: the process that reads it {how}")

    found: dict[int, DomainText] = {}
    said = 0
    answers = in_children(f"{__name__}:text_read", calls, workers, died=died)
    for place, answer in zip(order, answers, strict=True):
        found[place] = DomainText.from_json(json.loads(answer), folder / jobs[place].name)
        update(len(found), jobs[place].name)
        while said in found:
            say(found[said].summary)
            said += 1
    return [found[place] for place in range(len(jobs))]


def text_read(
    name: str, is_target: bool, config: Mapping[str, Any], folder: str, seed: int
) -> Iterator[bytes]:
    """Read a domain; runs in a child."""
    checked = CorpusConfig.model_validate(config)
    job = ReadJob(name, checked.domains[name], is_target)
    text = job.read(checked, Environment(), Path(folder), seed)
    yield json.dumps(text.to_json()).encode()


def write_texts(
    texts: Sequence[DomainText], tokenizer: Tokenizer, path: Path, name: str, workers: int
) -> Iterator[tuple[DomainText, dict[str, int]]]:
    """Write the shards of all domains.

    Args:
        texts: What was read; its spools are in a folder on the disk of `path`.
        tokenizer: Of the corpus, and saved there.
        path: The folder of the corpus.
        name: What the tokenizer is called.
        workers: Processes at once.

    Yields:
        Each domain with its tokens by split, `training` and `held-out`.

    Raises:
        CorpusError: A process died.
        RunError: The disk is full or the folder cannot be written.
    """
    splits = [split for text in texts for split in _splits(text, path)]
    pieces = [(split, number) for split in splits for number in range(split.pieces)]
    if workers == 1 or sum(split.spool.bytes for split in splits) < LEAST_BYTES:
        written: Iterator[int] = (split.write(number, tokenizer, name) for split, number in pieces)
    else:
        written = _written_by_children(pieces, path, name, workers)
    with steady_progress("tokenising", len(pieces)) as update:
        counted = _counted(written, pieces, update)
        for text in texts:
            own = [split for split in splits if split.text is text]
            yield (
                text,
                {s.what: s.join([next(counted) for _ in range(s.pieces)], name) for s in own},
            )


def _counted(
    written: Iterator[int], pieces: Sequence[tuple[_SpooledSplit, int]], update: Update
) -> Iterator[int]:
    """Hand on what is written of each piece, and report it."""
    for number, (tokens, piece) in enumerate(zip(written, pieces, strict=True), start=1):
        update(number, piece[0].text.name)
        yield tokens


@dataclass(frozen=True)
class _SpooledSplit:
    """What is trained on or held out of a domain, and where its shards go."""

    text: DomainText
    what: str
    spool: Spool
    folder: Path

    @property
    def pieces(self) -> int:
        return max(len(self.spool.starts), 1)

    @property
    def left_out(self) -> frozenset[bytes]:
        return self.text.left_out_digests if self.what == _TRAINING else frozenset()

    def piece(self, number: int) -> Path:
        """Return the folder of a piece until all are there."""
        return self.spool.path.with_name(f"{self.spool.path.name}.pieces") / str(number)

    def write(self, number: int, tokenizer: Tokenizer, name: str) -> int:
        documents = self.spool.piece(number, self.left_out)
        return write_tokens(documents, tokenizer, self.piece(number), name)

    def join(self, written: Sequence[int], name: str) -> int:
        """Make shards of the pieces."""
        parts = [TokenShards.open(self.piece(n), verify=False) for n in range(self.pieces)]
        shards = [
            LinkedFile(part.path / shard.file, shard.tokens, shard.sha256)
            for part in parts
            for shard in part.shards
        ]
        write_linked(
            self.folder, shards, parts[0].dtype, name,
            documents=sum(part.documents for part in parts),
            bytes=sum(part.bytes for part in parts), how="moved",
        )  # fmt: skip
        return sum(written)


def _splits(text: DomainText, path: Path) -> list[_SpooledSplit]:
    held_out = _SpooledSplit(text, "held-out", text.validation, path / text.name / "validation")
    if text.train is None:
        return [held_out]
    return [_SpooledSplit(text, _TRAINING, text.train, path / text.name / "train"), held_out]


def _written_by_children(
    pieces: Sequence[tuple[_SpooledSplit, int]], path: Path, name: str, workers: int
) -> Iterator[int]:
    # The library's threads are of use where few pieces are left for many cores.
    threads = max(2, -(-usable_cores() // workers))
    calls = []
    for split, number in pieces:
        digests = split.spool.path.with_name(f"{split.what}.left_out")
        if number == 0:
            digests.write_bytes(b"".join(sorted(split.left_out)))
        given = {"spool": str(split.spool.path), "start": split.spool.bounds(number)}
        given |= {"left_out": str(digests), "folder": str(split.piece(number))}
        calls.append({**given, "corpus": str(path), "tokenizer": name, "threads": threads})

    def died(turn: int, how: str) -> CorpusError:
        who = pieces[turn][0].text.name
        return CorpusError(f"domain {who!r}: the process that tokenises it {how}")

    return map(int, in_children(f"{__name__}:piece_written", calls, workers, died=died))


def piece_written(
    spool: str,
    start: Sequence[int],
    left_out: str,
    folder: str,
    corpus: str,
    tokenizer: str,
    threads: int,
) -> Iterator[bytes]:
    """Tokenise and write a piece of a split; runs in a child."""
    os.environ.setdefault(_THREADS, str(threads))
    content = Path(left_out).read_bytes()
    digests = frozenset(content[k : k + DIGEST] for k in range(0, len(content), DIGEST))
    documents = Spool(Path(spool), starts=start).piece(0, digests)
    opened = saved_tokenizer(Path(corpus), tokenizer)
    yield str(write_tokens(documents, opened, Path(folder), tokenizer)).encode()


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


def _read_call(job: ReadJob, config: CorpusConfig, folder: Path, seed: int) -> dict[str, Any]:
    alone = config.model_copy(update={"domains": {job.name: job.source}})
    content = alone.model_dump(mode="json", exclude_defaults=True)
    where = {"name": job.name, "is_target": job.is_target, "folder": str(folder / job.name)}
    return {**where, "config": content, "seed": seed}
