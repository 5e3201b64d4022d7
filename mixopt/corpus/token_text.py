"""Bytes of text behind tokens, so that losses can be given in bits per byte.

A byte-level vocabulary writes each byte of a token as a character, so that lengths are looked up;
of any other the tokens are decoded. Special tokens, such as a document's first or last one, stand
for no text.

Shapes: V ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.corpus.tokenizer import ByteTokenizer, FastTokenizer, Tokenizer
from mixopt.system import IntArray


class TokenText:
    """The text of tokens, of a tokenizer whose files are here."""

    def __init__(self, tokenizer: Tokenizer, document_end: int | None = None) -> None:
        """Find which tokens are text and how long each is.

        Args:
            tokenizer: Whose tokens they are.
            document_end: The id that ends a document, where it is another than the tokenizer's.
        """
        self._tokenizer = tokenizer
        ends = [tokenizer.end_of_document, *([] if document_end is None else [document_end])]
        self._special = np.array(sorted({*_special_ids(tokenizer), *ends}), np.int64)
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
    if not isinstance(tokenizer, FastTokenizer):
        return None
    if type(tokenizer.inner.decoder).__name__ != "ByteLevel":
        return None
    bytes_V = np.zeros(tokenizer.vocab_size, np.int64)
    for token, place in tokenizer.inner.get_vocab(with_added_tokens=True).items():
        bytes_V[place] = len(token)
    for place, added in tokenizer.inner.get_added_tokens_decoder().items():
        bytes_V[place] = len(added.content.encode())
    return bytes_V


def _special_ids(tokenizer: Tokenizer) -> set[int]:
    if isinstance(tokenizer, FastTokenizer):
        added = tokenizer.inner.get_added_tokens_decoder()
        return {place for place, token in added.items() if token.special}
    inner = getattr(tokenizer, "inner", None)
    return set() if inner is None else set(inner.all_special_ids)
