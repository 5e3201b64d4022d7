"""Turn documents into rows of one length: cut their concatenation, or fit them whole.

`cut` wastes nothing and splits documents at row ends. `best_fit` keeps a document whole where it
is not longer than a row (best-fit decreasing, as in Ding et al. 2024, "Fewer truncations improve
language modeling") and pads what is left.

Shapes: R rows, L tokens of a row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

PADDING = -1


class Packed(NamedTuple):
    """Rows of documents.

    Attributes:
        tokens_RL: The tokens.
        document_RL: Which document of its row a token is of, from 0; -1 for padding.
    """

    tokens_RL: NDArray[Any]
    document_RL: NDArray[np.int32]


def cut(documents: Iterable[ArrayLike], length: int, left: ArrayLike = ()) -> tuple[Packed, Any]:
    """Concatenate documents and cut rows off.

    Args:
        documents: Tokens of each document, ended by the end-of-document id.
        length: Tokens of a row.
        left: What was left over before.

    Returns:
        The rows, and the tokens that do not fill one, which go into the next call.
    """
    pieces = [np.asarray(piece) for piece in (left, *documents)]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return _empty(length), np.empty(0, np.int64)
    tokens = np.concatenate(pieces)
    number = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    rows = len(tokens) // length
    document = number[: rows * length].reshape(rows, length)
    document = document - document[:, :1]
    packed = Packed(tokens[: rows * length].reshape(rows, length), document.astype(np.int32))
    return packed, tokens[rows * length :]


def best_fit(documents: Iterable[ArrayLike], length: int, *, padding: int = 0) -> Packed:
    """Put each document, or each piece of a longer one, into the fullest row that has room.

    Args:
        documents: Tokens of each document, ended by the end-of-document id.
        length: Tokens of a row.
        padding: Token id where a row is not full.

    Returns:
        The rows.
    """
    pieces = [
        np.asarray(document)[start : start + length]
        for document in documents
        for start in range(0, len(np.asarray(document)), length)
    ]
    order = sorted(range(len(pieces)), key=lambda k: (-len(pieces[k]), k))
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for k in order:
        size = len(pieces[k])
        at = bisect_left(free, (size, -1))
        room, row = free.pop(at) if at < len(free) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(k)
        if room > size:
            insort(free, (room - size, row))
    return _laid_out(rows, pieces, length, padding)


def _laid_out(
    rows: Sequence[Sequence[int]], pieces: Sequence[NDArray[Any]], length: int, padding: int
) -> Packed:
    if not rows:
        return _empty(length)
    tokens = np.full((len(rows), length), padding, np.result_type(*pieces))
    document = np.full((len(rows), length), PADDING, np.int32)
    for r, row in enumerate(rows):
        start = 0
        for number, k in enumerate(row):
            stop = start + len(pieces[k])
            tokens[r, start:stop] = pieces[k]
            document[r, start:stop] = number
            start = stop
    return Packed(tokens, document)


def documents_of(tokens_RL: NDArray[Any], document_end: int | None) -> NDArray[np.int32]:
    """Number the documents of each row by the ends in it, shape (R, L)."""
    ends = tokens_RL == document_end
    document = np.zeros(tokens_RL.shape, np.int32)
    np.cumsum(ends[:, :-1], axis=1, out=document[:, 1:], dtype=np.int32)
    return document


def cumulative_lengths(document_RL: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return where documents begin in the concatenated rows, and their end (cu_seqlens).

    Padding at the end of a row counts as a document of its own, so that nothing attends across.
    """
    rows, length = document_RL.shape
    begins = np.ones((rows, length), bool)
    begins[:, 1:] = document_RL[:, 1:] != document_RL[:, :-1]
    return np.append(np.flatnonzero(begins), rows * length).astype(np.int32)


def _empty(length: int) -> Packed:
    return Packed(np.empty((0, length), np.int64), np.empty((0, length), np.int32))
