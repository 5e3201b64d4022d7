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

import numpy as np

from mixopt.config import CorpusConfig, SourceConfig, Sources
from mixopt.corpus.domain_text import DomainText, HeldOutSplit, Spooled, content_digest
from mixopt.corpus.sources import of_domain
from mixopt.corpus.token_formats import TokenFile, open_token_files
from mixopt.corpus.token_import import Given, TokenFiles
from mixopt.corpus.token_shards import TokenWriter
from mixopt.corpus.tokenizer import BYTES, Tokenizer, TokenText, token_dtype
from mixopt.system import AnyArray, Say

BYTES_PER_TOKEN = 4  # to convert corpus.max_validation_bytes, except for the byte tokenizer
_HELD_TYPE = np.dtype("<u4")
_Piece = tuple[AnyArray, bytes]  # tokens, and their digest


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
        self.name, self.is_target = name, is_target
        self.left_out, self.equal_to_evaluation = Counter[str](), 0
        size = None if tokenizer is None else tokenizer.vocab_size
        end = source.document_end
        self._source, self._config = source, config
        with of_domain(name):
            files = [
                TokenFiles(opened, config.tokenizer, size, end)
                for opened in _open_files(source)
                if opened
            ]
        self._files, self._held_out_files = files[0], files[-1]
        self._is_named = len(files) > 1
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
        if self.is_target or self._is_named:
            self._held = list(map(_spooled, self._distinct(self._held_out_files, limit)))
            return
        split = HeldOutSplit(self._config.validation_fraction, limit * _HELD_TYPE.itemsize, seed)
        pieces = self._distinct(self._files, self._source.max_tokens)
        for _ in split.training((None, _spooled(piece)) for piece in pieces):
            pass
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
        return {
            "train_documents": self._documents,
            "validation_documents": len(self._held) if self._files.has_documents else 0,
            "empty": self.left_out["empty"],
            "duplicates": self.left_out["duplicates"],
            "equal_to_evaluation": self.equal_to_evaluation,
        }

    def write(self, folder: Path) -> dict[str, int]:
        """Write the shards of its splits; return the tokens of each."""
        written = {}
        if not self.is_target:
            train = self._files.write(
                folder / "train", self._dtype, self._training, may_link=self._is_named
            )
            self._documents, written["training"] = train.documents, train.tokens
        documents = int(self._held_out_files.has_documents)
        name = self._config.tokenizer
        with TokenWriter(folder / "validation", dtype=self._dtype, tokenizer=name) as writer:
            for piece in self._held:
                tokens = np.frombuffer(piece.content, _HELD_TYPE)
                writer.write(tokens, documents=documents, bytes=self._text.bytes(tokens))
        return {**written, "held-out": writer.tokens}

    def _distinct(self, files: TokenFiles, limit: int | None) -> Iterator[_Piece]:
        """Yield the pieces of all files without duplicate documents, up to `limit` tokens."""
        self.left_out = Counter()
        digests, total = set[bytes](), 0
        with of_domain(self.name):
            for tokens in files.pieces():
                digest = token_digest(tokens, self._end)
                if files.has_documents and (digest == EMPTY or digest in digests):
                    self.left_out["empty" if digest == EMPTY else "duplicates"] += 1
                    continue
                digests.update([digest] if files.has_documents else [])
                if limit is not None and total + len(tokens) >= limit:
                    yield tokens[: limit - total], digest
                    break
                total += len(tokens)
                yield tokens, digest
            files.check_unchanged()

    def _training(self) -> Iterator[Given]:
        """Yield the pieces to train on; count those equal to evaluation documents."""
        self.equal_to_evaluation = 0
        documents = int(self._files.has_documents)
        text = self._text if self._text.is_quick else TokenText(None)
        held_out = frozenset() if self._is_named else self.held_out
        for tokens, digest in self._distinct(self._files, self._source.max_tokens):
            is_elsewhere = digest not in held_out and digest in self._elsewhere
            self.equal_to_evaluation += is_elsewhere
            if digest not in held_out and not is_elsewhere:
                yield tokens, documents, text.bytes(tokens)


def read_tokens(
    config: CorpusConfig, evaluation: Sources, tokenizer: Tokenizer | None, seed: int, say: Say
) -> list[DomainTokens]:
    """Open the tokenised domains and targets, and choose their held-out documents."""
    domains = []
    for name, source in {**config.domains, **evaluation}.items():
        if source.is_tokens:
            rooted, is_target = source.under(config.root), name in evaluation
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
    as_text = {digest for text in texts for digest in text.validation.digests()}
    as_text |= {content_digest(text) for domain in tokens for text in domain.held_out_texts()}
    as_tokens = {digest for domain in tokens for digest in domain.held_out}
    if tokenizer is not None:
        documents = (piece.content.decode() for text in texts for piece in text.validation)
        end = tokenizer.end_of_document
        as_tokens |= {token_digest(tokenizer.encode([document]), end) for document in documents}
    for text in texts:
        text.drop_equal_to(as_text)
    for domain in tokens:
        domain.drop_equal_to(as_tokens)


def counted_tokens(domain: str, source: SourceConfig) -> tuple[int, int]:
    """Open the files of a source; return their number, and their tokens up to `max_tokens`."""
    with of_domain(domain):
        files, _ = _open_files(source)
    total = sum(file.tokens for file in files)
    return len(files), total if source.max_tokens is None else min(total, source.max_tokens)


def token_digest(tokens: AnyArray, end: int | None) -> bytes:
    """Return 16 bytes, equal for equal tokens of any integer type; a final `end` is ignored."""
    if end is not None and len(tokens) and int(tokens[-1]) == end:
        tokens = tokens[:-1]
    return hashlib.blake2b(tokens.astype("<u4").tobytes(), digest_size=16).digest()


EMPTY = token_digest(np.empty(0, np.uint32), None)


def _spooled(piece: _Piece) -> Spooled:
    return Spooled(piece[1], piece[0].astype(_HELD_TYPE).tobytes())


def _open_files(source: SourceConfig) -> list[list[TokenFile]]:
    """Open the files of a source, and those of its held-out tokens."""
    names = (source.paths, source.validation_files)
    return [open_token_files(patterns, source.format, source.dtype) for patterns in names]
