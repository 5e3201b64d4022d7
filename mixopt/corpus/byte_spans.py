"""Byte offsets of the ends of a text's tokens, in UTF-8.

Tokenizers say it in characters, and a byte-level BPE may cut a character between two tokens, both
of which then have all of it. There the characters of the tokens themselves count: each stands for
one byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from mixopt.system import IntArray

LAST_BYTE = "\u0143"  # of the characters by which a byte-level vocabulary writes bytes


def byte_ends(text: str, tokens: Sequence[str], offsets: Sequence[tuple[int, int]]) -> IntArray:
    """Return the bytes of a text up to the end of each token, shape (T,).

    Args:
        text: What was encoded.
        tokens: The tokens as the vocabulary writes them.
        offsets: First and last character of each, as the tokenizer says.
    """
    size = len(text.encode())
    if sum(map(len, tokens)) == size and all(max(token) <= LAST_BYTE for token in tokens):
        return np.array(list(accumulate(map(len, tokens))), dtype=np.int64)
    bytes_C = np.array([0, *accumulate(len(character.encode()) for character in text)])
    return bytes_C[[stop for _, stop in offsets]]
