"""Measure the sizes of a corpus's domains without tokenising them.

Bytes of text come from files (mixopt.corpus.text.file_sizes), from the metadata of a data set, or
from reading where nothing else is possible; tokens from the tokens per byte of a sample. Duplicates
are counted, since finding them takes reading all. A BPE that the run will train has no tokens yet:
its domains are counted in bytes, which the run turns into tokens by what it prepares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.text import (
    BadDocuments,
    Environment,
    FileSize,
    Reading,
    TextFile,
    is_local,
    published_size,
    text_files,
)
from mixopt.corpus.token_files import counted_tokens, open_tokens
from mixopt.corpus.tokenizer import BYTES, Tokenizer, bpe_vocabulary, open_tokenizer, plain_name
from mixopt.errors import CorpusError
from mixopt.system import Say, close_children, silent

SAMPLE = 16_000_000  # bytes of text that are read of a domain
TOKENIZED = 2_000_000  # bytes of them that are tokenised
_FILES = 16  # that are read of a domain
_HOW = {
    "whole": "all text read",
    "length": "length of the files",
    "metadata": "metadata of the files",
    "sample": "a sample of the text",
    "others": "other files of the domain",
}


@dataclass(frozen=True)
class DomainCount:
    """How large a domain is.

    Attributes:
        name: The domain.
        files: Files that it is made of; 0 where it is not of files.
        bytes: Of text, in UTF-8; 0 of tokens.
        tokens: Of the configured tokenizer; None where that has yet to be trained.
        how: How the bytes were found.
        is_exact: Whether no part was estimated.
    """

    name: str
    files: int
    bytes: int
    tokens: int | None
    how: str
    is_exact: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "domain": self.name, "files": self.files, "bytes": self.bytes, "tokens": self.tokens,
            "how": self.how, "exact": self.is_exact,
        }  # fmt: skip

    @property
    def stated(self) -> int | dict[str, int]:
        """What an inventory file says of it."""
        return {"bytes": self.bytes} if self.tokens is None else self.tokens


@dataclass
class _Sample:
    """Texts that are kept for the tokens per byte, up to a number of bytes."""

    most: int
    texts: list[str] = field(default_factory=list)
    bytes: int = 0

    def keep(self, text: str) -> None:
        if self.bytes < self.most:
            content = text.encode()[: self.most - self.bytes]
            self.bytes += len(content)
            self.texts.append(content.decode(errors="ignore"))


def count_domains(config: CorpusConfig, say: Say = silent) -> list[DomainCount]:
    """Return the size of each training domain, in order.

    Args:
        config: Domains and tokenizer; `max_bytes` does not count, since the sizes are of the whole.
        say: Called with a line for each domain.

    Raises:
        CorpusError: A source that cannot be read, or has no sizes.
    """
    is_text = not all(source.is_tokens for source in config.sources.values())
    is_here = is_text and not bpe_vocabulary(config.tokenizer)
    tokenizer = open_tokenizer(config.tokenizer) if is_here else None
    is_bytes = plain_name(config.tokenizer) == BYTES
    found = []
    try:
        for name, source in config.sources.items():
            if not source.has_text:
                raise CorpusError(
                    f"domain {name!r}: its text is not available here; state its tokens"
                )
            rooted = source.under(config.root)
            if source.is_tokens:
                found.append(_count_tokens(name, rooted))
                say(f"{name}: {found[-1].tokens:,} tokens")
                continue
            found.append(_count(name, rooted, tokenizer, is_bytes))
            say(f"{name}: {found[-1].bytes:,} bytes of text, {found[-1].how}")
    finally:
        close_children()
    return found


def inventory_of(counts: list[DomainCount]) -> Mapping[str, int | dict[str, int]]:
    """Return what an inventory file says of the domains."""
    return {count.name: count.stated for count in counts}


def _count_tokens(name: str, source: SourceConfig) -> DomainCount:
    whole = source.model_copy(update={"max_tokens": None})
    files = len(open_tokens(name, source.paths, source))
    tokens = counted_tokens(name, whole, read=True)
    return DomainCount(name, files, 0, tokens, "tokens in the files", is_exact=True)


def _count(
    name: str, source: SourceConfig, tokenizer: Tokenizer | None, is_bytes: bool
) -> DomainCount:
    sample = _Sample(TOKENIZED)
    files, sizes = _sizes(name, source, sample)
    text, documents = sum(s.text for s in sizes), sum(s.documents for s in sizes)
    if text < 1:
        raise CorpusError(f"domain {name!r}: no text was found; give it some, or leave it out")
    exact = all(size.is_exact for size in sizes)
    if is_bytes:
        tokens: float | None = text + documents
    else:
        tokens = None if tokenizer is None else text * _rate(name, tokenizer, sample)
        exact = exact and tokenizer is None
    how = ", ".join(_HOW.get(how, how) for how in dict.fromkeys(size.how for size in sizes))
    return DomainCount(
        name, files, round(text), None if tokens is None else round(tokens), how, exact
    )


def _rate(name: str, tokenizer: Tokenizer, sample: _Sample) -> float:
    """Return the tokens per byte of a sample, the end of each document included."""
    if not sample.bytes:
        raise CorpusError(
            f"domain {name!r}: its metadata gives bytes, but there is no text to tokenise: state "
            "its tokens"
        )
    return len(tokenizer.encode(sample.texts)) / sample.bytes


def _sizes(name: str, source: SourceConfig, sample: _Sample) -> tuple[int, list[FileSize]]:
    if source.environment is not None:
        return 0, [_read(source.environment, sample)]
    reading = Reading(name, source.column, BadDocuments("skip"))
    if not is_local(source):
        return 0, [published_size(source, reading, sample.most, sample.keep)]
    files = text_files(name, source)
    return len(files), list(_of_files(files, reading, sample))


def _read(environment: str, sample: _Sample) -> FileSize:
    text = documents = 0
    for document in Environment().documents(environment):
        text, documents = text + len(document.text.encode()), documents + 1
        sample.keep(document.text)
    return FileSize(text, documents, "whole")


def _of_files(files: list[TextFile], reading: Reading, sample: _Sample) -> Iterator[FileSize]:
    """Measure files spread over all, and take the others by their length."""
    spread = {round(k * (len(files) - 1) / max(_FILES - 1, 1)) for k in range(_FILES)}
    chosen = set(range(len(files))) if len(files) <= _FILES else spread
    most, kept = SAMPLE // len(chosen), sample.most
    measured: dict[tuple[str, str], list[tuple[int, FileSize]]] = {}
    for turn, place in enumerate(sorted(chosen), start=1):
        file = files[place]
        sample.most = kept * turn // len(chosen)
        size = file.size(reading, most, sample.keep)
        measured.setdefault(_kind(file), []).append((file.bytes, size))
        yield size
    for place, file in enumerate(files):
        if place not in chosen:
            yield _by_others(file, measured, reading)


def _kind(file: TextFile) -> tuple[str, str]:
    return file.builder, file.suffix


def _by_others(
    file: TextFile,
    measured: Mapping[tuple[str, str], list[tuple[int, FileSize]]],
    reading: Reading,
) -> FileSize:
    length = file.bytes
    if file.is_plain_text:
        return FileSize(length, 1, "length")
    known = measured.get(_kind(file))
    if known is None:
        return file.size(reading, SAMPLE // _FILES, lambda _: None)
    share = length / max(sum(size for size, _ in known), 1)
    return FileSize(
        share * sum(s.text for _, s in known), share * sum(s.documents for _, s in known), "others"
    )
