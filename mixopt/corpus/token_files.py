"""The files of a domain of tokens, read piece by piece with each id checked.

A piece is a document where it is known where documents end, and a block of tokens elsewhere. A
document is the same as another when its tokens are, the one that ends it left aside.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.config import SourceConfig
from mixopt.corpus.foreign import Foreign, Stated, has_documents, pieces, read_foreign, token_files
from mixopt.corpus.foreign_files import Unchanged, checked, shard_type
from mixopt.corpus.token_text import TokenText
from mixopt.corpus.tokenizer import Tokenizer, token_dtype
from mixopt.corpus.vocabulary import Vocabulary
from mixopt.errors import CorpusError
from mixopt.system import is_url, list_objects

Piece = tuple[NDArray[Any], bytes]  # tokens, and their digest


@dataclass(frozen=True)
class TokenRules:
    """What holds for the tokens of all domains.

    Attributes:
        vocabulary: The known ids.
        tokenizer: Whose they are; None where its files are not here.
    """

    vocabulary: Vocabulary
    tokenizer: Tokenizer | None

    def end_of(self, source: SourceConfig) -> int | None:
        """Return the id that ends a document, where it is known."""
        known = None if self.tokenizer is None else self.tokenizer.end_of_document
        return known if source.document_end is None else source.document_end

    def text_of(self, source: SourceConfig) -> TokenText | None:
        """Return how its tokens become text."""
        return None if self.tokenizer is None else TokenText(self.tokenizer, source.document_end)


class TokenFiles:
    """Files of tokens, read any number of times."""

    def __init__(
        self, domain: str, patterns: Sequence[str], source: SourceConfig, rules: TokenRules
    ) -> None:
        """Find and open the files; their tokens are not read yet.

        Args:
            domain: Whose they are, for messages.
            patterns: Files, prefixes, globs and folders.
            source: Their format, and what the user states of them.
            rules: What holds for all domains.

        Raises:
            CorpusError: There are none, or they are not of the format or damaged.
        """
        self._domain, self._vocabulary = domain, rules.vocabulary
        if source.document_end is not None:
            rules.vocabulary.check_id(source.document_end, f"domain {domain!r}: document_end")
        self._end, self._document_end = rules.end_of(source), source.document_end
        self.foreign = open_tokens(domain, patterns, source)
        self._unchanged = Unchanged(self.foreign)
        self.has_documents = all(has_documents(one, source.document_end) for one in self.foreign)
        known = rules.tokenizer is not None
        self.dtype = token_dtype(rules.vocabulary.size) if known else shard_type(self.foreign)
        self.largest = 0

    def pieces_of(self, foreign: Foreign) -> Iterator[Piece]:
        """Give the pieces of one file with their digests.

        Raises:
            CorpusError: An id beyond the vocabulary, or a file that cannot be read to its end.
        """
        try:
            for tokens in pieces(checked(foreign, self._vocabulary), self._document_end):
                self.largest = max(self.largest, int(tokens.max()))
                yield tokens, token_digest(tokens, self._end)
        except CorpusError as error:
            raise CorpusError(f"domain {self._domain!r}: {error}") from error

    def distinct(self, most: int | None, left_out: Counter[str]) -> Iterator[Piece]:
        """Give the pieces of all files, documents that came before left out.

        Args:
            most: Tokens after which to stop; the last piece is cut there.
            left_out: Counts the documents that are empty or duplicates.

        Raises:
            CorpusError: As `pieces_of`, or a file changed while it was read.
        """
        seen, given = set[bytes](), 0
        for tokens, digest in (piece for one in self.foreign for piece in self.pieces_of(one)):
            if self.has_documents and (digest == EMPTY or digest in seen):
                left_out["empty" if digest == EMPTY else "duplicates"] += 1
                continue
            if self.has_documents:
                seen.add(digest)
            if most is not None and given + len(tokens) >= most:
                yield tokens[: most - given], digest
                break
            given += len(tokens)
            yield tokens, digest
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Check that no file has changed since it was opened.

        Raises:
            CorpusError: One has.
        """
        try:
            self._unchanged.check()
        except CorpusError as error:
            raise CorpusError(f"domain {self._domain!r}: {error}") from error


def open_tokens(domain: str, patterns: Sequence[str], source: SourceConfig) -> list[Foreign]:
    """Open the files of a source that is tokens.

    Raises:
        CorpusError: There are none, or they are not of the format or damaged.
    """
    assert source.format is not None, "a source of tokens has a format"
    stated = Stated(source.field, source.dtype)
    try:
        paths = token_files(patterns, source.format)
        return [read_foreign(path, source.format, stated) for path in paths]
    except CorpusError as error:
        raise CorpusError(f"domain {domain!r}: {error}") from error


def check_token_files(domain: str, source: SourceConfig) -> None:
    """Check that the files of a source that is tokens are there and sound, but for their ids.

    Of a store it is asked whether there is something of the name; nothing is fetched.

    Raises:
        CorpusError: They are not.
    """
    for patterns in (source.paths, source.validation_files):
        here = [pattern for pattern in patterns if not is_url(pattern)]
        if here:
            open_tokens(domain, here, source)
        for url in set(patterns) - set(here):
            _check_stored(domain, url)


def _check_stored(domain: str, url: str) -> None:
    try:
        list_objects(url if url.endswith(("/", "*")) else f"{url}*")
    except CorpusError as error:
        raise CorpusError(f"domain {domain!r}: {error}") from error


def counted_tokens(domain: str, source: SourceConfig, *, read: bool) -> int | None:
    """Return how many tokens the files of a source have, up to `max_tokens`.

    Args:
        domain: Whose they are, for messages.
        source: One that is tokens.
        read: Read files whose length does not tell.

    Raises:
        CorpusError: A file cannot be read or is damaged.
    """
    if not read and any(map(is_url, source.paths)):
        return None
    total = 0
    for one in open_tokens(domain, source.paths, source):
        if one.tokens is None and not read:
            return None
        total += sum(map(len, one.parts())) if one.tokens is None else one.tokens
    return total if source.max_tokens is None else min(total, source.max_tokens)


def token_digest(tokens: NDArray[Any], end: int | None) -> bytes:
    """Return 16 bytes that are equal for equal tokens, whatever their type.

    Args:
        tokens: A document's.
        end: The id that ends a document, which does not count.
    """
    if end is not None and len(tokens) and int(tokens[-1]) == end:
        tokens = tokens[:-1]
    return hashlib.blake2b(tokens.astype("<u4").tobytes(), digest_size=16).digest()


EMPTY = token_digest(np.empty(0, np.uint32), None)
