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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.tokenizer import (
    BYTES,
    CONFIG,
    END_OF_DOCUMENT,
    FILE,
    ByteTokenizer,
    FastTokenizer,
    Tokenizer,
    bpe_vocabulary,
    plain_name,
    read_inner,
)
from mixopt.errors import CorpusError, MixoptError
from mixopt.system import IntArray, write_json

if TYPE_CHECKING:
    import tokenizers

_MAX_IDS = 1 << 32  # ids that a shard can have
_USUAL = 50_000  # ids of a tokenizer of which nothing is known


class Vocabulary(NamedTuple):
    """How many ids a tokenizer has; all that a shard can have where it is not known."""

    tokenizer: str
    size: int

    @classmethod
    def of(cls, tokenizer: str, size: int | None = None) -> Vocabulary:
        """Return what is known of a tokenizer."""
        if size is not None and not 1 <= size <= _MAX_IDS:
            raise CorpusError(f"vocab_size {size}; a tokenizer has from 1 to 2**32 ids")
        return cls(tokenizer, size or _known_size(tokenizer) or _MAX_IDS)

    def check_id(self, token: int, what: str) -> None:
        """Check one id."""
        if not 0 <= token < self.size:
            raise CorpusError(f"{what} {token}: {self._reason()}")

    def checked(self, source: Path, parts: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Give tokens, some at a time, that are all the tokenizer's."""
        place = 0
        for part in parts:
            if len(part) and not 0 <= int(part.min()) <= int(part.max()) < self.size:
                wrong = int(np.flatnonzero((part < 0) | (part >= self.size))[0])
                raise CorpusError(
                    f"{source}: token {place + wrong} is {int(part[wrong])}: {self._reason()};"
                    " is this its tokenizer, and dtype its type?"
                )
            place += len(part)
            yield part

    def _reason(self) -> str:
        if self.size == _MAX_IDS:
            return "an id is from 0 to 2**32 - 1"
        return f"{self.tokenizer!r} has the ids 0 to {self.size - 1}"


def known_vocabulary(tokenizer: str) -> int:
    """Return the ids of a tokenizer, or 50,000 where they are not known on this machine."""
    return _known_size(tokenizer) or _USUAL


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
    if isinstance(tokenizer, ByteTokenizer):
        ids = {token: place for place, token in enumerate([*byte_tokens(), END_OF_DOCUMENT])}
    else:
        ids = tokenizer.inner.get_vocab(with_added_tokens=True)
    return _identity(name, ids, tokenizer.vocab_size)


def folder_vocabulary(folder: Path) -> VocabularyIdentity | None:
    """Return what the ids of the tokenizer in a model's folder stand for, if it has one."""
    if not (folder / FILE).is_file():
        return None
    ids = read_inner(folder / FILE, str(folder / FILE)).get_vocab(with_added_tokens=True)
    return _identity(str(folder), ids, max(ids.values(), default=-1) + 1)


def byte_tokens() -> list[str]:
    """Return the character by which byte-level vocabularies write each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def export_tokenizer(tokenizer: Tokenizer, folder: Path, *, length: int) -> None:
    """Write a tokenizer as `AutoTokenizer.from_pretrained` reads it, with the same ids."""
    inner = _of_bytes() if isinstance(tokenizer, ByteTokenizer) else tokenizer.inner
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


def _of_bytes() -> tokenizers.Tokenizer:
    """Return a byte-level BPE without merges, whose ids are the bytes."""
    from tokenizers import AddedToken, Tokenizer as Inner, decoders, models, pre_tokenizers

    inner = Inner(models.BPE({token: byte for byte, token in enumerate(byte_tokens())}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True, normalized=False)])
    return inner


def _identity(name: str, ids: Mapping[str, int], size: int) -> VocabularyIdentity:
    pairs = sorted((place, token) for token, place in ids.items())
    text = "".join(f"{place} {json.dumps(token)}\n" for place, token in pairs)
    return VocabularyIdentity(name, size, hashlib.sha256(text.encode()).hexdigest())


def _known_size(tokenizer: str) -> int | None:
    """Return the ids of a tokenizer that is built in, or whose file is on this machine."""
    try:
        if plain_name(tokenizer) == BYTES:
            return ByteTokenizer.vocab_size
        file = _file_of(tokenizer)
        if file is None:
            return bpe_vocabulary(tokenizer)
        return FastTokenizer.from_file(file, tokenizer).vocab_size
    except (MixoptError, ImportError):
        return None


def _file_of(tokenizer: str) -> Path | None:
    local = Path(tokenizer).expanduser()
    for path in (local, local / FILE):
        if path.is_file():
            return path
    try:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(tokenizer, FILE)
    except (ImportError, OSError, ValueError):
        return None
    return Path(cached) if isinstance(cached, str) else None
