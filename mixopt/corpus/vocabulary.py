"""The ids of a tokenizer, where known without a network; tokens are checked against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.tokenizer import BYTES, ByteTokenizer, FastTokenizer, bpe_vocabulary, plain_name
from mixopt.errors import CorpusError, MixoptError

_LARGEST = 1 << 32  # ids that a shard can have
_USUAL = 50_000  # ids of a tokenizer of which nothing is known


class Vocabulary(NamedTuple):
    """The ids of a tokenizer.

    Attributes:
        tokenizer: Its name.
        size: How many ids there are; all that a shard can have where it is not known.
    """

    tokenizer: str
    size: int

    @classmethod
    def of(cls, tokenizer: str, size: int | None = None) -> Vocabulary:
        """Return what is known of a tokenizer.

        Args:
            tokenizer: Its name.
            size: Its ids, where the caller knows them.

        Raises:
            CorpusError: The size is not a number of ids.
        """
        if size is not None and not 1 <= size <= _LARGEST:
            raise CorpusError(f"vocab_size {size}; a tokenizer has from 1 to 2**32 ids")
        return cls(tokenizer, size or _known_size(tokenizer) or _LARGEST)

    def check_id(self, token: int, what: str) -> None:
        """Check one id.

        Raises:
            CorpusError: It is none of the tokenizer's.
        """
        if not 0 <= token < self.size:
            raise CorpusError(f"{what} {token}: {self._reason()}")

    def checked(self, source: Path, parts: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Give tokens, some at a time, that are all the tokenizer's.

        Args:
            source: Where they are from, for the message.
            parts: Integers.

        Raises:
            CorpusError: One is not; with its position and value.
        """
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
        if self.size == _LARGEST:
            return "an id is from 0 to 2**32 - 1"
        return f"{self.tokenizer!r} has the ids 0 to {self.size - 1}"


def known_vocabulary(tokenizer: str) -> int:
    """Return the ids of a tokenizer, or 50,000 where they are not known on this machine."""
    return _known_size(tokenizer) or _USUAL


def _known_size(tokenizer: str) -> int | None:
    """Return the ids of a tokenizer that is built in, or whose file is on this machine."""
    try:
        if plain_name(tokenizer) == BYTES:
            return ByteTokenizer.vocab_size
        trained = bpe_vocabulary(tokenizer)
        file = _file_of(tokenizer)
        return FastTokenizer.from_file(file, tokenizer).vocab_size if file else trained
    except (MixoptError, ImportError):
        return None


def _file_of(tokenizer: str) -> Path | None:
    local = Path(tokenizer).expanduser()
    for path in (local, local / "tokenizer.json"):
        if path.is_file():
            return path
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(tokenizer, "tokenizer.json")
    except (ImportError, OSError, ValueError):
        return None
    return Path(found) if isinstance(found, str) else None
