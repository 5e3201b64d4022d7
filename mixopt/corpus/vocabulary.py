"""The ids of a tokenizer: how many there are, what each stands for, how long its text is.

What ids stand for is a hash of each id's token as a byte-level vocabulary writes it, added tokens
too, so that raw bytes, a BPE of the corpus's and a tokenizer of transformers are compared alike.
Merges and the splitting of text are left out: they decide which ids a text becomes, not what an id
means.

Shapes: V ids.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.tokenizer import (
    CONFIG,
    END_OF_DOCUMENT,
    FILE,
    ByteTokenizer,
    FastTokenizer,
    Tokenizer,
    bpe_vocabulary,
    open_tokenizer,
    read_inner,
)
from mixopt.errors import MixoptError
from mixopt.system import IntArray, write_json

if TYPE_CHECKING:
    import tokenizers

_USUAL = 50_000  # ids of a tokenizer of which nothing is known


def known_size(tokenizer: str) -> int | None:
    """Return the ids of a tokenizer that is built in, or whose file is on this machine."""
    try:
        known = bpe_vocabulary(tokenizer)
        return known or open_tokenizer(tokenizer, download=False).vocab_size
    except (MixoptError, ImportError):
        return None


def known_vocabulary(tokenizer: str) -> int:
    """Return the ids of a tokenizer, or 50,000 where they are not known on this machine."""
    return known_size(tokenizer) or _USUAL


class VocabularyIdentity(NamedTuple):
    """What the ids of a tokenizer stand for."""

    tokenizer: str
    size: int
    sha256: str

    def __str__(self) -> str:
        """Return name, size and the start of the hash."""
        return f"{self.tokenizer!r} ({self.size:,} ids, vocabulary {self.sha256[:8]})"


def identity_of(name: str, tokenizer: Tokenizer) -> VocabularyIdentity:
    """Return what the ids of an open tokenizer stand for."""
    return _identity(name, _inner(tokenizer), tokenizer.vocab_size)


def folder_vocabulary(folder: Path) -> VocabularyIdentity | None:
    """Return what the ids of the tokenizer in a model's folder stand for, if it has one."""
    if not (folder / FILE).is_file():
        return None
    inner = read_inner(folder / FILE, str(folder / FILE))
    ids = inner.get_vocab(with_added_tokens=True).values()
    return _identity(str(folder), inner, max(ids, default=-1) + 1)


def _identity(name: str, inner: tokenizers.Tokenizer, size: int) -> VocabularyIdentity:
    ids = inner.get_vocab(with_added_tokens=True)
    pairs = sorted((place, token) for token, place in ids.items())
    text = "".join(f"{place} {json.dumps(token)}\n" for place, token in pairs)
    return VocabularyIdentity(name, size, hashlib.sha256(text.encode()).hexdigest())


def export_tokenizer(tokenizer: Tokenizer, folder: Path, *, length: int) -> None:
    """Write a tokenizer as `AutoTokenizer.from_pretrained` reads it, with the same ids."""
    inner = _inner(tokenizer)
    inner.save(str(folder / FILE))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": inner.id_to_token(tokenizer.end_of_document),
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / CONFIG, about)


class TokenText:
    """The text of tokens, of a tokenizer whose files are here.

    A byte-level vocabulary writes each byte of a token as a character, so that lengths are looked
    up; of any other the tokens are decoded. Special tokens stand for no text.
    """

    def __init__(self, tokenizer: Tokenizer, document_end: int | None = None) -> None:
        """Find which tokens are text and how long each is."""
        self._tokenizer = tokenizer
        ends = [tokenizer.end_of_document, *([] if document_end is None else [document_end])]
        special = set(ends)
        if isinstance(tokenizer, FastTokenizer):
            added = tokenizer.inner.get_added_tokens_decoder()
            special |= {place for place, token in added.items() if token.special}
        self._special = np.array(sorted(special), np.int64)
        self._bytes_V = _byte_lengths(tokenizer)
        if self._bytes_V is not None:
            self._bytes_V[self._special] = 0

    @property
    def is_quick(self) -> bool:
        """Whether bytes are known without decoding."""
        return self._bytes_V is not None

    def bytes(self, tokens: NDArray[Any]) -> int:
        """Return the length of the text of some tokens, in UTF-8."""
        if self._bytes_V is not None:
            return int(self._bytes_V[tokens].sum())
        return len(self.text(tokens).encode())

    def text(self, tokens: NDArray[Any]) -> str:
        """Return the text of some tokens."""
        return self._tokenizer.decode(tokens[~np.isin(tokens, self._special)])


def _byte_lengths(tokenizer: Tokenizer) -> IntArray | None:
    """Return the bytes of each id, shape (V,), where each token is the same bytes everywhere."""
    if isinstance(tokenizer, ByteTokenizer):
        return np.ones(tokenizer.vocab_size, np.int64)
    if type(tokenizer.inner.decoder).__name__ != "ByteLevel":
        return None
    bytes_V = np.zeros(tokenizer.vocab_size, np.int64)
    for token, place in tokenizer.inner.get_vocab(with_added_tokens=True).items():
        bytes_V[place] = len(token)
    for place, added in tokenizer.inner.get_added_tokens_decoder().items():
        bytes_V[place] = len(added.content.encode())
    return bytes_V


def _inner(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Return the library's tokenizer: for bytes a BPE without merges, whose ids are the bytes."""
    if isinstance(tokenizer, FastTokenizer):
        return tokenizer.inner
    from tokenizers import AddedToken, Tokenizer as Inner, decoders, models, pre_tokenizers

    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))  # byte-level vocabularies write other bytes by these
    ids = {chr(byte if byte in printable else next(others)): byte for byte in range(256)}
    inner = Inner(models.BPE(ids, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True, normalized=False)])
    return inner
