"""Tokenised domains: split off held-out tokens and write shards.

Documents are held out by a hash of their tokens, as documents of text by a hash of their content;
if document ends are unknown, blocks of tokens are held out, whose first and last documents are cut.
Files are read twice, to choose the held-out part and to write the rest, and never kept in memory.
If `validation` names the held-out tokens and no other tokens are dropped, files become shards by
hard links. Without the tokenizer on this machine, losses are in nats per token only.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixopt.config import CorpusConfig, SourceConfig, Sources
from mixopt.corpus.domain_text import DomainText
from mixopt.corpus.sources import of_domain
from mixopt.corpus.spooled_documents import DIGEST_BYTES, HeldOutSplit, Spooled, content_digest
from mixopt.corpus.token_formats import TokenFile, open_token_files
from mixopt.corpus.token_import import CountedTokens, TokenFiles
from mixopt.corpus.token_shards import TokenWriter
from mixopt.corpus.tokenizer import BYTES, Tokenizer, TokenText, token_dtype
from mixopt.system import AnyArray, Say

BYTES_PER_TOKEN = 4  # to convert corpus.max_validation_bytes, except for the byte tokenizer
_HELD_TYPE = np.dtype("<u4")
_EMPTY = hashlib.blake2b(digest_size=DIGEST_BYTES).digest()  # digest of a document without tokens


class _Piece(NamedTuple):
    """A document or block of tokens, and its digest."""

    tokens: AnyArray
    digest: bytes

    def spooled(self) -> Spooled:
        """Return the piece as a held-out document."""
        return Spooled(self.digest, self.tokens.astype(_HELD_TYPE).tobytes())


class DomainTokens:
    """A tokenised domain or target: its files, the held-out part and its shards."""

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
        self.name = name
        self.is_target = is_target
        self.left_out = Counter[str]()
        self.equal_to_evaluation = 0
        self._source = source
        self._config = config
        size = None if tokenizer is None else tokenizer.vocab_size
        end = source.document_end
        with of_domain(name):
            files, validation_files = _open_files(source)
            self._files = TokenFiles(files, config.tokenizer, size, end)
            self._held_out_files = self._files
            if validation_files:
                self._held_out_files = TokenFiles(validation_files, config.tokenizer, size, end)
        self._has_validation = bool(validation_files)
        self._text = TokenText(tokenizer, end)
        self._end = tokenizer.end_of_document if tokenizer and end is None else end
        self._dtype = self._files.dtype if size is None else token_dtype(size)
        self._held: list[Spooled] = []
        self._elsewhere: frozenset[bytes] = frozenset()
        self._documents = 0

    def hold_out(self, seed: int) -> None:
        """Choose the held-out documents; the seed determines their order."""
        limit = self._config.max_validation_bytes
        if self._config.tokenizer != BYTES:
            limit = max(limit // BYTES_PER_TOKEN, 1)
        if self.is_target:
            limit = min(limit, self._source.max_tokens or limit)
        if self.is_target or self._has_validation:
            self._held = [piece.spooled() for piece in self._distinct(self._held_out_files, limit)]
            return
        split = HeldOutSplit(self._config.validation_fraction, limit * _HELD_TYPE.itemsize, seed)
        pieces = self._distinct(self._files, self._source.max_tokens)
        ungrouped = ((None, piece.spooled()) for piece in pieces)
        for _ in split.training(ungrouped):
            pass  # until the split is final
        self._held = split.held_out

    @property
    def held_out(self) -> frozenset[bytes]:
        """Digests of the held-out documents or blocks."""
        return frozenset(piece.digest for piece in self._held)

    def held_out_texts(self) -> Iterator[str]:
        """Yield the held-out documents as text; none without document ends."""
        if self._held_out_files.has_documents:
            for piece in self._held:
                yield self._text.text(np.frombuffer(piece.content, _HELD_TYPE))

    def drop_equal_to(self, held_out: Iterable[bytes]) -> None:
        """Drop training documents with these digests."""
        self._elsewhere = frozenset(held_out)

    @property
    def vocab_size(self) -> int:
        """The largest id that was read, plus 1."""
        return 1 + max(self._files.largest, self._held_out_files.largest)

    @property
    def counts(self) -> dict[str, int]:
        """Counts of documents read and left out, for the corpus index."""
        validation_documents = len(self._held) if self._files.has_documents else 0
        return {
            "train_documents": self._documents,
            "validation_documents": validation_documents,
            "empty": self.left_out["empty"],
            "duplicates": self.left_out["duplicates"],
            "equal_to_evaluation": self.equal_to_evaluation,
        }

    def write(self, folder: Path) -> dict[str, int]:
        """Write the shards of its splits; return the tokens of each."""
        written = {}
        if not self.is_target:
            train = self._files.write(
                folder / "train", self._dtype, self._training, may_link=self._has_validation
            )
            self._documents = train.documents
            written["training"] = train.tokens
        documents = int(self._held_out_files.has_documents)
        name = self._config.tokenizer
        with TokenWriter(folder / "validation", dtype=self._dtype, tokenizer=name) as writer:
            for piece in self._held:
                tokens = np.frombuffer(piece.content, _HELD_TYPE)
                writer.write(tokens, documents=documents, bytes=self._text.bytes(tokens))
        written["held-out"] = writer.tokens
        return written

    def _distinct(self, files: TokenFiles, limit: int | None) -> Iterator[_Piece]:
        """Yield the pieces of all files without duplicate documents, up to `limit` tokens."""
        self.left_out = Counter()
        digests = set[bytes]()
        total = 0
        with of_domain(self.name):
            for tokens in files.pieces():
                digest = token_digest(tokens, self._end)
                if files.has_documents:
                    if digest == _EMPTY:
                        self.left_out["empty"] += 1
                        continue
                    if digest in digests:
                        self.left_out["duplicates"] += 1
                        continue
                    digests.add(digest)
                if limit is not None and total + len(tokens) >= limit:
                    yield _Piece(tokens[: limit - total], digest)
                    break
                total += len(tokens)
                yield _Piece(tokens, digest)
            files.check_unchanged()

    def _training(self) -> Iterator[CountedTokens]:
        """Yield the pieces to train on; count those equal to evaluation documents."""
        self.equal_to_evaluation = 0
        documents = int(self._files.has_documents)
        text = self._text if self._text.is_quick else TokenText(None)
        held_out = frozenset() if self._has_validation else self.held_out
        for tokens, digest in self._distinct(self._files, self._source.max_tokens):
            if digest in held_out:
                continue
            if digest in self._elsewhere:
                self.equal_to_evaluation += 1
                continue
            yield CountedTokens(tokens, documents, text.bytes(tokens))


def read_tokens(
    config: CorpusConfig, evaluation: Sources, tokenizer: Tokenizer | None, seed: int, say: Say
) -> list[DomainTokens]:
    """Open the tokenised domains and targets, and choose their held-out documents."""
    domains = []
    for name, source in {**config.domains, **evaluation}.items():
        if source.is_tokens:
            rooted = source.under(config.root)
            is_target = name in evaluation
            domain = DomainTokens(name, rooted, config, tokenizer, is_target=is_target)
            domain.hold_out(seed)
            say(f"{name}: {len(domain.held_out):,} pieces of tokens held out")
            domains.append(domain)
    return domains


def keep_apart(
    texts: Sequence[DomainText], tokens: Sequence[DomainTokens], tokenizer: Tokenizer | None
) -> None:
    """Drop documents held out of any domain from the training tokens and text of all domains."""
    if not tokens:
        return
    text_digests = _held_out_as_text(texts, tokens)
    for text in texts:
        text.drop_equal_to(text_digests)
    token_digests = _held_out_as_tokens(texts, tokens, tokenizer)
    for domain in tokens:
        domain.drop_equal_to(token_digests)


def _held_out_as_text(texts: Sequence[DomainText], tokens: Sequence[DomainTokens]) -> set[bytes]:
    """Return the content digests of all held-out documents."""
    digests = set[bytes]()
    for text in texts:
        digests.update(text.validation.digests())
    for domain in tokens:
        digests.update(map(content_digest, domain.held_out_texts()))
    return digests


def _held_out_as_tokens(
    texts: Sequence[DomainText], tokens: Sequence[DomainTokens], tokenizer: Tokenizer | None
) -> set[bytes]:
    """Return the token digests of all held-out documents; text needs the tokenizer."""
    digests = set[bytes]()
    for domain in tokens:
        digests.update(domain.held_out)
    if tokenizer is None:
        return digests
    for text in texts:
        for document in text.validation:
            encoded = tokenizer.encode([document.content.decode()])
            digests.add(token_digest(encoded, tokenizer.end_of_document))
    return digests


def counted_tokens(domain: str, source: SourceConfig) -> tuple[int, int]:
    """Open the files of a source; return their number, and their tokens up to `max_tokens`."""
    with of_domain(domain):
        files, _ = _open_files(source)
    total = sum(file.tokens for file in files)
    if source.max_tokens is not None:
        total = min(total, source.max_tokens)
    return len(files), total


def token_digest(tokens: AnyArray, end: int | None) -> bytes:
    """Return 16 bytes, equal for equal tokens of any integer type; a final `end` is ignored."""
    if end is not None and len(tokens) and int(tokens[-1]) == end:
        tokens = tokens[:-1]
    content = tokens.astype("<u4").tobytes()
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _open_files(source: SourceConfig) -> tuple[list[TokenFile], list[TokenFile]]:
    """Open the files of a source, and those of its held-out tokens."""
    files = open_token_files(source.paths, source.format, source.dtype)
    validation_files = open_token_files(source.validation_files, source.format, source.dtype)
    return files, validation_files
