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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.domain_text import DomainText, HeldOutSplit, Spooled, content_digest
from mixopt.corpus.sources import of_domain
from mixopt.corpus.token_formats import TokenFile, open_token_files
from mixopt.corpus.token_import import Given, TokenFiles
from mixopt.corpus.token_writer import TokenWriter
from mixopt.corpus.tokenizer import BYTES, Tokenizer, TokenText, token_dtype
from mixopt.system import Say, count_text

BYTES_PER_TOKEN = 4  # of corpus.max_validation_bytes, but for a tokenizer of bytes
_HELD = np.dtype("<u4")
_Piece = tuple[NDArray[Any], bytes]  # tokens, and their digest


class DomainTokens:
    """A domain or target of tokens: read, and then written."""

    def __init__(
        self,
        name: str,
        source: SourceConfig,
        config: CorpusConfig,
        tokenizer: Tokenizer | None,
        *,
        is_target: bool,
    ) -> None:
        """Open its files."""
        self.name, self.is_target = name, is_target
        self.left_out, self.equal_to_evaluation = Counter[str](), 0
        size = None if tokenizer is None else tokenizer.vocab_size
        end = source.document_end
        self._source, self._config = source, config
        with of_domain(name):
            files = [
                TokenFiles(_opened(patterns, source), config.tokenizer, size, end)
                for patterns in (source.paths, source.validation_files)
                if patterns
            ]
        self._files, self._held_out_files = files[0], files[-1]
        self._is_named = len(files) > 1
        self._text = None if tokenizer is None else TokenText(tokenizer, end)
        self._end = tokenizer.end_of_document if tokenizer and end is None else end
        self._dtype = self._files.dtype if size is None else token_dtype(size)
        self._held: list[Spooled] = []
        self._elsewhere: frozenset[bytes] = frozenset()
        self._documents = 0

    def hold_out(self, seed: int) -> None:
        """Choose what is held out; the seed says which documents come first."""
        most = self._config.max_validation_bytes
        if self._config.tokenizer != BYTES:
            most = max(most // BYTES_PER_TOKEN, 1)
        if self.is_target:
            most = min(most, self._source.max_tokens or most)
        if self.is_target or self._is_named:
            self._held = list(map(_spooled, self._distinct(self._held_out_files, most)))
            return
        chosen = HeldOutSplit(self._config.validation_fraction, most * _HELD.itemsize, seed)
        for piece in self._distinct(self._files, self._source.max_tokens):
            list(chosen.add(_spooled(piece)))
        list(chosen.finish())
        self._held = chosen.kept

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
            train = self._files.write(
                folder / "train", self._dtype, self._training, may_link=self._is_named
            )
            self._documents, written["training"] = train.documents, train.tokens
        known = int(self._held_out_files.has_documents)
        name = self._config.tokenizer
        with TokenWriter(folder / "validation", dtype=self._dtype, tokenizer=name) as writer:
            for held in self._held:
                tokens = np.frombuffer(held.content, _HELD)
                length = 0 if self._text is None else self._text.bytes(tokens)
                writer.write(tokens, documents=known, bytes=length)
        return {**written, "held-out": writer.tokens}

    def _distinct(self, files: TokenFiles, most: int | None) -> Iterator[_Piece]:
        """Give the pieces of all files, documents that came before left out."""
        self.left_out = Counter()
        seen, given = set[bytes](), 0
        with of_domain(self.name):
            for tokens in files.pieces():
                digest = token_digest(tokens, self._end)
                if files.has_documents and (digest == EMPTY or digest in seen):
                    self.left_out["empty" if digest == EMPTY else "duplicates"] += 1
                    continue
                seen.update([digest] if files.has_documents else [])
                if most is not None and given + len(tokens) >= most:
                    yield tokens[: most - given], digest
                    break
                given += len(tokens)
                yield tokens, digest
            files.check_unchanged()

    def _training(self) -> Iterator[Given]:
        """Give the pieces to train on, and count what is left out."""
        self.equal_to_evaluation = 0
        known = int(self._files.has_documents)
        text = self._text if self._text is not None and self._text.is_quick else None
        own = frozenset() if self._is_named else self.held_out
        for tokens, digest in self._distinct(self._files, self._source.max_tokens):
            is_elsewhere = digest not in own and digest in self._elsewhere
            self.equal_to_evaluation += is_elsewhere
            if digest not in own and not is_elsewhere:
                yield tokens, known, text.bytes(tokens) if text is not None else 0


def read_tokens(
    config: CorpusConfig,
    evaluation: Mapping[str, SourceConfig],
    tokenizer: Tokenizer | None,
    seed: int,
    say: Say,
) -> list[DomainTokens]:
    """Open the domains and targets that are tokens, and choose what is held out."""
    domains = []
    for name, source in {**config.domains, **evaluation}.items():
        if source.is_tokens:
            rooted, is_target = source.under(config.root), name in evaluation
            domain = DomainTokens(name, rooted, config, tokenizer, is_target=is_target)
            domain.hold_out(seed)
            say(f"{name}: {count_text(len(domain.held_out))} pieces of tokens are held out")
            domains.append(domain)
    return domains


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


def counted_tokens(domain: str, source: SourceConfig) -> tuple[int, int]:
    """Open the files of a source; return how many, and their tokens up to `max_tokens`."""
    with of_domain(domain):
        files, _ = (_opened(named, source) for named in (source.paths, source.validation_files))
    total = sum(one.tokens for one in files)
    return len(files), total if source.max_tokens is None else min(total, source.max_tokens)


def token_digest(tokens: NDArray[Any], end: int | None) -> bytes:
    """Return 16 bytes that are equal for equal tokens, whatever their type."""
    if end is not None and len(tokens) and int(tokens[-1]) == end:
        tokens = tokens[:-1]
    return hashlib.blake2b(tokens.astype("<u4").tobytes(), digest_size=16).digest()


EMPTY = token_digest(np.empty(0, np.uint32), None)


def _spooled(piece: _Piece) -> Spooled:
    return Spooled(piece[1], piece[0].astype(_HELD).tobytes())


def _opened(patterns: Sequence[str], source: SourceConfig) -> list[TokenFile]:
    return open_token_files(patterns, source.format, source.dtype)
