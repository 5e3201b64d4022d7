"""What the ids of a tokenizer stand for, as a hash: whether a model's tokens are a corpus's.

Each id's token is hashed as a byte-level vocabulary writes it, added tokens too, so that raw bytes,
a BPE of the corpus's and a tokenizer of transformers are compared alike. Merges and the splitting
of text are left out: they decide which ids a text becomes, not what an id means.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mixopt.corpus.tokenizer import (
    END_OF_DOCUMENT,
    FILE,
    ByteTokenizer,
    FastTokenizer,
    Tokenizer,
    TransformersTokenizer,
)
from mixopt.errors import CorpusError

# Files of which any says that a folder has a tokenizer.
_SLOW_FILES = ("tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


class VocabularyIdentity(NamedTuple):
    """What the ids of a tokenizer stand for.

    Attributes:
        tokenizer: Its name or folder, for messages.
        size: How many ids there are.
        sha256: The hash of all ids and their tokens, in hexadecimal digits.
    """

    tokenizer: str
    size: int
    sha256: str

    def __str__(self) -> str:
        """Return name, size and the start of the hash."""
        return f"{self.tokenizer!r} ({self.size:,} ids, vocabulary {self.sha256[:8]})"


def identity_of(name: str, tokenizer: Tokenizer) -> VocabularyIdentity:
    """Return what the ids of an open tokenizer stand for.

    Args:
        name: Of the tokenizer, for messages.
        tokenizer: It.

    Raises:
        CorpusError: It does not say its vocabulary.
    """
    return _identity(name, _tokens_of(name, tokenizer), tokenizer.vocab_size)


def folder_vocabulary(folder: Path) -> VocabularyIdentity | None:
    """Return what the ids of the tokenizer in a model's folder stand for; None where there is none.

    Raises:
        CorpusError: Its files cannot be read.
        PluginError: A library that it needs is absent.
    """
    if (folder / FILE).is_file():
        from tokenizers import Tokenizer as Inner

        try:
            inner = Inner.from_file(str(folder / FILE))
        except Exception as error:  # the library raises nothing narrower
            reason = " ".join(str(error).split())
            raise CorpusError(f"{folder / FILE}: cannot be read: {reason}") from error
        return _identity(str(folder), inner.get_vocab(with_added_tokens=True))
    if not any((folder / name).is_file() for name in _SLOW_FILES):
        return None
    return identity_of(str(folder), TransformersTokenizer(str(folder)))


def byte_tokens() -> list[str]:
    """Return the character by which byte-level vocabularies write each byte.

    Printable bytes are the characters of Latin 1 and the others follow from U+0100 on, as in GPT-2.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _tokens_of(name: str, tokenizer: Tokenizer) -> Mapping[str, int]:
    if isinstance(tokenizer, ByteTokenizer):
        return {token: place for place, token in enumerate([*byte_tokens(), END_OF_DOCUMENT])}
    if isinstance(tokenizer, FastTokenizer):
        return tokenizer.inner.get_vocab(with_added_tokens=True)
    if isinstance(tokenizer, TransformersTokenizer):
        found: Mapping[str, int] = tokenizer.inner.get_vocab()
        return found
    raise CorpusError(f"tokenizer {name!r}: {type(tokenizer).__name__} does not say its vocabulary")


def _identity(name: str, ids: Mapping[str, int], size: int | None = None) -> VocabularyIdentity:
    pairs = sorted((place, token) for token, place in ids.items())
    text = "".join(f"{place} {json.dumps(token)}\n" for place, token in pairs)
    last = pairs[-1][0] + 1 if pairs else 0
    return VocabularyIdentity(name, size or last, hashlib.sha256(text.encode()).hexdigest())
