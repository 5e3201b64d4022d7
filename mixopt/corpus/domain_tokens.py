"""A domain imported as tokens: its held-out part, and its shards.

Held out are documents, by a hash of their tokens, as documents of text are by their content; where
it is not known where documents end, blocks of tokens, whose first and last documents are cut.
Files are read twice, to choose what is held out and to write the rest, and never kept in memory.
Where `validation` names the held-out tokens and nothing of the rest is left out, its files become
shards by links.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.foreign import Foreign
from mixopt.corpus.linked_shards import LinkedFile, can_be_linked, write_linked
from mixopt.corpus.text import Document, HeldOutSplit, Spooled
from mixopt.corpus.token_files import EMPTY, Piece, TokenFiles, TokenRules
from mixopt.corpus.token_writer import TokenWriter
from mixopt.corpus.tokenizer import BYTES

BYTES_PER_TOKEN = 4  # of corpus.max_validation_bytes, but for a tokenizer of bytes
_HELD = np.dtype("<u4")


class DomainTokens:
    """A domain or target of tokens: read, and then written."""

    def __init__(
        self, name: str, source: SourceConfig, config: CorpusConfig, rules: TokenRules
    ) -> None:
        """Open its files.

        Args:
            name: The domain or target.
            source: Where its tokens are, relative files under `corpus.root`.
            config: Fractions and limits.
            rules: What holds for all domains.

        Raises:
            CorpusError: A file is missing, damaged or of another format.
        """
        self.name, self.is_target = name, False
        self.left_out, self.equal_to_evaluation = Counter[str](), 0
        self._source, self._config = source, config
        self._files = TokenFiles(name, source.paths, source, rules)
        named = source.validation_files
        self._named = TokenFiles(name, named, source, rules) if named else None
        self._text = rules.text_of(source)
        self._held: list[Spooled] = []
        self._elsewhere: frozenset[bytes] = frozenset()
        self._documents = 0
        self._most = config.max_validation_bytes
        if config.tokenizer != BYTES:
            self._most = max(self._most // BYTES_PER_TOKEN, 1)

    def split(self, seed: int) -> None:
        """Choose what is held out.

        Args:
            seed: Which documents come first.

        Raises:
            CorpusError: A file cannot be read, has changed, or has an id beyond the vocabulary.
        """
        if self._named is not None:
            self._hold(self._named.distinct(self._most, self.left_out))
            return
        chosen = HeldOutSplit(self._config.validation_fraction, self._most * _HELD.itemsize, seed)
        for tokens, digest in self._files.distinct(self._source.max_tokens, Counter()):
            held = Spooled(digest, tokens.astype(_HELD).tobytes())
            for _ in chosen.add(Document(""), held):
                pass
        for _ in chosen.finish():
            pass
        self._held = [held for _, held in chosen.kept]

    def hold_all(self) -> None:
        """Take it for a target, all of which is held out.

        Raises:
            CorpusError: As `split`.
        """
        self.is_target = True
        files = self._named or self._files
        most = min(self._most, self._source.max_tokens or self._most)
        self._hold(files.distinct(most, self.left_out))

    @property
    def held_out(self) -> frozenset[bytes]:
        """Digests of what is held out."""
        return frozenset(held.digest for held in self._held)

    def held_out_texts(self) -> Iterator[str]:
        """Give the documents that are held out as text, where they are known."""
        files = self._named or self._files
        if self._text is not None and files.has_documents:
            for held in self._held:
                yield self._text.text(_tokens_of(held))

    def drop_equal_to(self, held_out: Iterable[bytes]) -> None:
        """Leave documents with these digests out of the training tokens from now on."""
        self._elsewhere = frozenset(held_out)

    @property
    def vocab_size(self) -> int:
        """The largest id that was read, and one."""
        return 1 + max(files.largest for files in (self._files, self._named) if files is not None)

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
        """Write the shards of its splits, and return their tokens.

        Args:
            folder: The domain's in the corpus.

        Raises:
            CorpusError: A file cannot be read any more, or has changed.
            RunError: The disk is full or the folder cannot be written.
        """
        written = {}
        if not self.is_target:
            written["training"] = self._write_training(folder / "train")
        written["held-out"] = self._write_held_out(folder / "validation")
        return written

    def _hold(self, pieces: Iterator[Piece]) -> None:
        self._held = [Spooled(digest, t.astype(_HELD).tobytes()) for t, digest in pieces]

    def _write_held_out(self, folder: Path) -> int:
        with self._writer(folder) as writer:
            known = (self._named or self._files).has_documents
            for held in self._held:
                tokens = _tokens_of(held)
                length = 0 if self._text is None else self._text.bytes(tokens)
                writer.write(tokens, documents=int(known), bytes=length)
        return writer.tokens

    def _write_training(self, folder: Path) -> int:
        is_whole = self._named is not None and self._source.max_tokens is None
        if is_whole and can_be_linked(self._files.foreign):
            linked = self._link(folder)
            if linked is not None:
                return linked
        return self._copy(folder)

    def _copy(self, folder: Path) -> int:
        self.left_out, self.equal_to_evaluation = Counter(), 0
        own = self.held_out if self._named is None else frozenset()
        known = int(self._files.has_documents)
        with self._writer(folder) as writer:
            for tokens, digest in self._files.distinct(self._source.max_tokens, self.left_out):
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
        self._documents, length, files = 0, 0, []
        seen = {EMPTY, *self._elsewhere, *self.held_out}
        for one in self._files.foreign:
            digest, tokens = hashlib.sha256(), 0
            for piece, known in self._files.pieces_of(one):
                if self._files.has_documents:
                    if known in seen:
                        return None
                    seen.add(known)
                    self._documents += 1
                digest.update(piece.tobytes())
                tokens += len(piece)
                length += self._length(piece)
            files.append(_linked(one, tokens, digest.hexdigest()))
        self._files.check_unchanged()
        kind, name = self._files.foreign[0].dtype, self._config.tokenizer
        assert kind is not None, "the type of what is linked is known"
        try:
            write_linked(
                folder, files, kind, name, documents=self._documents, bytes=length, how="hard"
            )
        except OSError:  # another file system, or a file that may not be linked
            return None
        return sum(one.tokens for one in files)

    def _length(self, tokens: NDArray[Any]) -> int:
        """Return the bytes of training text, where they need no decoding."""
        return self._text.bytes(tokens) if self._text is not None and self._text.is_quick else 0

    def _writer(self, folder: Path) -> TokenWriter:
        dtype = self._files.dtype
        return TokenWriter(folder, dtype=dtype, tokenizer=self._config.tokenizer)


def _tokens_of(held: Spooled) -> NDArray[Any]:
    return np.frombuffer(held.content, _HELD)


def _linked(foreign: Foreign, tokens: int, sha256: str) -> LinkedFile:
    assert foreign.file is not None, "only what is a shard's is linked"
    return LinkedFile(foreign.file, tokens, sha256)
