"""Domains that are tokens already: what is held out of each, and their shards.

Held out are documents, by a hash of their tokens, as documents of text are by their content; where
it is not known where documents end, blocks of tokens, whose first and last documents are cut. Files
are read twice, to choose what is held out and to write the rest, and never kept in memory. Where
`validation` names the held-out tokens and nothing of the rest is left out, files become shards by
hard links. Where the tokenizer is not here, losses are known in nats per token alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.domain_text import DomainText, HeldOutSplit, Spooled, content_digest
from mixopt.corpus.text_files import Document
from mixopt.corpus.token_formats import TokenFile, find_token_files, open_token_file
from mixopt.corpus.token_import import TokenFiles
from mixopt.corpus.token_writer import TokenWriter
from mixopt.corpus.tokenizer import BYTES, Tokenizer, token_dtype
from mixopt.corpus.vocabulary import TokenText, Vocabulary
from mixopt.errors import CorpusError
from mixopt.system import Say, count_text

BYTES_PER_TOKEN = 4  # of corpus.max_validation_bytes, but for a tokenizer of bytes
_HELD = np.dtype("<u4")
_Piece = tuple[NDArray[Any], bytes]  # tokens, and their digest


class DomainTokens:
    """A domain or target of tokens: read, and then written."""

    def __init__(
        self, name: str, source: SourceConfig, config: CorpusConfig, tokenizer: Tokenizer | None
    ) -> None:
        """Open its files."""
        self.name, self.is_target = name, False
        self.left_out, self.equal_to_evaluation = Counter[str](), 0
        size = None if tokenizer is None else tokenizer.vocab_size
        vocabulary = Vocabulary.of(config.tokenizer, size)
        ends = source.document_end
        self._source, self._config = source, config
        with _of_domain(name):
            self._files = TokenFiles(_opened(source.paths, source), vocabulary, ends)
            named = source.validation_files
            self._held_out_files = (
                TokenFiles(_opened(named, source), vocabulary, ends) if named else self._files
            )
        self._is_named = bool(named)
        self._text = None if tokenizer is None else TokenText(tokenizer, ends)
        own = None if tokenizer is None else tokenizer.end_of_document
        self._end = own if ends is None else ends
        known = tokenizer is not None
        self._dtype = token_dtype(vocabulary.size) if known else self._files.shard_type()
        self._held: list[Spooled] = []
        self._elsewhere: frozenset[bytes] = frozenset()
        self._documents = 0
        self._most = config.max_validation_bytes
        if config.tokenizer != BYTES:
            self._most = max(self._most // BYTES_PER_TOKEN, 1)

    def split(self, seed: int) -> None:
        """Choose what is held out; the seed says which documents come first."""
        if self._is_named:
            self._hold(self._distinct(self._held_out_files, self._most))
            return
        chosen = HeldOutSplit(self._config.validation_fraction, self._most * _HELD.itemsize, seed)
        for tokens, digest in self._distinct(self._files, self._source.max_tokens, Counter()):
            for _ in chosen.add(Document(""), Spooled(digest, tokens.astype(_HELD).tobytes())):
                pass
        for _ in chosen.finish():
            pass
        self._held = chosen.kept

    def hold_all(self) -> None:
        """Take it for a target, all of which is held out; raises as `split`."""
        self.is_target = True
        most = min(self._most, self._source.max_tokens or self._most)
        self._hold(self._distinct(self._held_out_files, most))

    @property
    def held_out(self) -> frozenset[bytes]:
        """Digests of what is held out."""
        return frozenset(held.digest for held in self._held)

    def held_out_texts(self) -> Iterator[str]:
        """Give the documents that are held out as text, where they are known."""
        if self._text is not None and self._held_out_files.has_documents:
            for held in self._held:
                yield self._text.text(np.frombuffer(held.content, _HELD))

    def drop_equal_to(self, held_out: Iterable[bytes]) -> None:
        """Leave documents with these digests out of the training tokens from now on."""
        self._elsewhere = frozenset(held_out)

    @property
    def vocab_size(self) -> int:
        """The largest id that was read, and one."""
        return 1 + max(self._files.largest, self._held_out_files.largest)

    @property
    def counts(self) -> dict[str, int]:
        """What was read and what was left out, for the corpus index."""
        return {
            "train_documents": self._documents,
            "validation_documents": len(self._held) if self._files.has_documents else 0,
            "empty": self.left_out["empty"],
            "duplicates": self.left_out["duplicates"],
            "equal_to_evaluation": self.equal_to_evaluation,
        }

    def write(self, folder: Path) -> dict[str, int]:
        """Write the shards of its splits, and return their tokens."""
        written = {}
        if not self.is_target:
            linked = self._link(folder / "train")
            written["training"] = self._copy(folder / "train") if linked is None else linked
        known = int(self._held_out_files.has_documents)
        with self._writer(folder / "validation") as writer:
            for held in self._held:
                tokens = np.frombuffer(held.content, _HELD)
                length = 0 if self._text is None else self._text.bytes(tokens)
                writer.write(tokens, documents=known, bytes=length)
        return {**written, "held-out": writer.tokens}

    def _hold(self, pieces: Iterator[_Piece]) -> None:
        self._held = [Spooled(digest, t.astype(_HELD).tobytes()) for t, digest in pieces]

    def _distinct(
        self, files: TokenFiles, most: int | None, left_out: Counter[str] | None = None
    ) -> Iterator[_Piece]:
        """Give the pieces of all files, documents that came before left out."""
        left_out = self.left_out if left_out is None else left_out
        seen, given = set[bytes](), 0
        with _of_domain(self.name):
            for tokens in files.pieces():
                digest = token_digest(tokens, self._end)
                if files.has_documents and (digest == EMPTY or digest in seen):
                    left_out["empty" if digest == EMPTY else "duplicates"] += 1
                    continue
                if files.has_documents:
                    seen.add(digest)
                if most is not None and given + len(tokens) >= most:
                    yield tokens[: most - given], digest
                    break
                given += len(tokens)
                yield tokens, digest
            files.check_unchanged()

    def _training(self) -> Iterator[NDArray[Any]]:
        """Give the pieces to train on, and count what is left out."""
        self.left_out, self.equal_to_evaluation = Counter(), 0
        own = frozenset() if self._is_named else self.held_out
        for tokens, digest in self._distinct(self._files, self._source.max_tokens):
            if digest in own:
                continue
            if digest in self._elsewhere:
                self.equal_to_evaluation += 1
                continue
            yield tokens

    def _copy(self, folder: Path) -> int:
        known = int(self._files.has_documents)
        with self._writer(folder) as writer:
            for tokens in self._training():
                writer.write(tokens, documents=known, bytes=self._length(tokens))
        self._documents = writer.documents
        return writer.tokens

    def _link(self, folder: Path) -> int | None:
        """Link the files; return None where a document is left out, or links cannot be made."""
        is_whole = self._is_named and self._source.max_tokens is None
        if not (is_whole and self._files.can_be_linked):
            return None
        number = length = 0
        for tokens in self._training():
            if self.left_out or self.equal_to_evaluation:
                return None
            number, length = number + 1, length + self._length(tokens)
        self._documents = number if self._files.has_documents else 0
        name, documents = self._config.tokenizer, self._documents
        is_less = bool(self.left_out or self.equal_to_evaluation)
        if is_less or not self._files.link(folder, name, documents=documents, bytes=length):
            return None
        return sum(one.tokens for one in self._files.files)

    def _length(self, tokens: NDArray[Any]) -> int:
        """Return the bytes of training text, where they need no decoding."""
        return self._text.bytes(tokens) if self._text is not None and self._text.is_quick else 0

    def _writer(self, folder: Path) -> TokenWriter:
        return TokenWriter(folder, dtype=self._dtype, tokenizer=self._config.tokenizer)


def read_tokens(
    config: CorpusConfig,
    evaluation: Mapping[str, SourceConfig],
    tokenizer: Tokenizer | None,
    seed: int,
    say: Say,
) -> list[DomainTokens]:
    """Open the domains and targets that are tokens, and choose what is held out."""
    found = []
    for name, source in {**config.domains, **evaluation}.items():
        if source.is_tokens:
            domain = DomainTokens(name, source.under(config.root), config, tokenizer)
            domain.hold_all() if name in evaluation else domain.split(seed)
            say(f"{name}: {count_text(len(domain.held_out))} pieces of tokens are held out")
            found.append(domain)
    return found


def keep_apart(
    texts: Sequence[DomainText], tokens: Sequence[DomainTokens], tokenizer: Tokenizer | None
) -> None:
    """Leave what is held out of any domain out of the training tokens and text of all."""
    if not tokens:
        return
    as_text = {digest for text in texts for digest in text.validation.digests()}
    as_text |= {content_digest(text) for domain in tokens for text in domain.held_out_texts()}
    as_tokens = {digest for domain in tokens for digest in domain.held_out}
    if tokenizer is not None:
        documents = (one.content.decode() for text in texts for one in text.validation)
        end = tokenizer.end_of_document
        as_tokens |= {token_digest(tokenizer.encode([document]), end) for document in documents}
    for text in texts:
        text.drop_equal_to(as_text)
    for domain in tokens:
        domain.drop_equal_to(as_tokens)


def check_token_files(domain: str, source: SourceConfig) -> None:
    """Check that the files of a source that is tokens are there and sound, but for their ids."""
    with _of_domain(domain):
        for patterns in (source.paths, source.validation_files):
            _opened(patterns, source)


def counted_tokens(domain: str, source: SourceConfig) -> tuple[int, int]:
    """Return how many files a source of tokens has, and how many tokens, up to `max_tokens`."""
    with _of_domain(domain):
        files = _opened(source.paths, source)
    total = sum(one.tokens for one in files)
    return len(files), total if source.max_tokens is None else min(total, source.max_tokens)


def token_digest(tokens: NDArray[Any], end: int | None) -> bytes:
    """Return 16 bytes that are equal for equal tokens, whatever their type."""
    if end is not None and len(tokens) and int(tokens[-1]) == end:
        tokens = tokens[:-1]
    return hashlib.blake2b(tokens.astype("<u4").tobytes(), digest_size=16).digest()


EMPTY = token_digest(np.empty(0, np.uint32), None)


def _opened(patterns: Sequence[str], source: SourceConfig) -> list[TokenFile]:
    assert source.format is not None, "a source of tokens has a format"
    return [
        open_token_file(path, source.format, source.dtype)
        for path in find_token_files(patterns, source.format)
    ]


@contextmanager
def _of_domain(name: str) -> Iterator[None]:
    """Let errors name the domain."""
    try:
        yield
    except CorpusError as error:
        raise CorpusError(f"domain {name!r}: {error}") from error
