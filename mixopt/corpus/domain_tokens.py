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
from mixopt.corpus.documents import Document, HeldOutSplit, Spooled, content_digest
from mixopt.corpus.domain_text import DomainText
from mixopt.corpus.token_formats import TokenFile, find_token_files, open_token_file
from mixopt.corpus.token_writer import (
    DTYPES,
    LinkedFile,
    TokenWriter,
    can_be_linked,
    write_linked,
)
from mixopt.corpus.tokenizer import BYTES, Tokenizer, bpe_vocabulary, open_tokenizer, token_dtype
from mixopt.corpus.vocabulary import TokenText, Vocabulary
from mixopt.errors import CorpusError, PluginError
from mixopt.system import Say, count_text

BYTES_PER_TOKEN = 4  # of corpus.max_validation_bytes, but for a tokenizer of bytes
_HELD = np.dtype("<u4")
_Piece = tuple[NDArray[Any], bytes]  # tokens, and their digest


class TokenFiles:
    """Files of tokens, each id checked as they are read, any number of times."""

    def __init__(
        self, files: Sequence[TokenFile], vocabulary: Vocabulary, document_end: int | None
    ) -> None:
        """Note the sizes and time stamps of the files."""
        if document_end is not None:
            vocabulary.check_id(document_end, "document_end")
        self.files, self.document_end = files, document_end
        self.has_documents = document_end is not None or all(one.ends for one in files)
        self.largest = 0
        self._vocabulary = vocabulary
        self._before = self._stamps()

    def parts(self, file: TokenFile) -> Iterator[NDArray[Any]]:
        """Give the tokens of a file, some at a time."""
        return self._vocabulary.checked(file.path, file.parts())

    def pieces(self, file: TokenFile) -> Iterator[NDArray[Any]]:
        """Give the documents, or blocks, of a file."""
        for tokens in file.pieces(self.parts(file), self.document_end):
            self.largest = max(self.largest, int(tokens.max()))
            yield tokens

    def check_unchanged(self) -> None:
        """Check that no file has changed since it was opened."""
        for file, stamp in self._stamps().items():
            if stamp != self._before[file]:
                raise CorpusError(
                    f"{file}: changed while it was being read; wait until nothing writes to it, "
                    "and read it again"
                )

    def shard_type(self) -> np.dtype[Any]:
        """Return the smaller of uint16 and uint32 that holds all tokens; read them where needed."""
        for one in self.files:
            if one.dtype is None:
                is_large = any(len(part) and int(part.max()) > 0xFFFF for part in one.parts())
            else:
                is_large = one.dtype.itemsize > 2
            if is_large:
                return DTYPES["uint32"]
        return DTYPES["uint16"]

    def _stamps(self) -> dict[Path, tuple[int, int, int] | None]:
        return {file: _stamp(file) for one in self.files for file in one.files}


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
            is_whole = self._is_named and self._source.max_tokens is None
            linked = None
            if is_whole and can_be_linked(self._files.files):
                with _of_domain(self.name):
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
            for tokens in (piece for one in files.files for piece in files.pieces(one)):
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

    def _copy(self, folder: Path) -> int:
        self.left_out, self.equal_to_evaluation = Counter(), 0
        own = frozenset() if self._is_named else self.held_out
        known = int(self._files.has_documents)
        with self._writer(folder) as writer:
            for tokens, digest in self._distinct(self._files, self._source.max_tokens):
                if digest in own:
                    continue
                if digest in self._elsewhere:
                    self.equal_to_evaluation += 1
                    continue
                writer.write(tokens, documents=known, bytes=self._length(tokens))
        self._documents = writer.documents
        return writer.tokens

    def _link(self, folder: Path) -> int | None:
        """Link the files, or return None where a document is left out or links cannot be made."""
        self._documents, length, links = 0, 0, []
        seen = {EMPTY, *self._elsewhere, *self.held_out}
        for one in self._files.files:
            sha256, tokens = hashlib.sha256(), 0
            for piece in self._files.pieces(one):
                if self._files.has_documents:
                    digest = token_digest(piece, self._end)
                    if digest in seen:
                        return None
                    seen.add(digest)
                    self._documents += 1
                sha256.update(piece.tobytes())
                tokens += len(piece)
                length += self._length(piece)
            links.append(LinkedFile(one.path, tokens, sha256.hexdigest()))
        self._files.check_unchanged()
        kind, name = self._files.files[0].dtype, self._config.tokenizer
        assert kind is not None, "the type of what is linked is known"
        try:
            write_linked(
                folder, links, kind, name, documents=self._documents, bytes=length, how="hard"
            )
        except OSError:  # another file system, or a file that may not be linked
            return None
        return sum(one.tokens for one in links)

    def _length(self, tokens: NDArray[Any]) -> int:
        """Return the bytes of training text, where they need no decoding."""
        return self._text.bytes(tokens) if self._text is not None and self._text.is_quick else 0

    def _writer(self, folder: Path) -> TokenWriter:
        return TokenWriter(folder, dtype=self._dtype, tokenizer=self._config.tokenizer)


def known_tokenizer(name: str) -> Tokenizer | None:
    """Return a tokenizer by name or folder; None where its files are not here, or not yet made."""
    try:
        return None if bpe_vocabulary(name) is not None else open_tokenizer(name)
    except (CorpusError, PluginError):
        return None


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


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
