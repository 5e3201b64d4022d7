"""Pack documents into rows of one length, whole if not longer than a row.

The fields that separate documents for a model are computed from document numbers only, so that they
also work for rows that were packed elsewhere.

Shapes: R rows, L tokens in a row, P documents or pieces, T tokens in total.
"""

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.system import AnyArray, IntArray, PlainDict, PlainMapping, int_array

PADDING = -1
NO_LOSS = -100


class Packed(NamedTuple):
    """Packed rows: `document_RL` numbers documents from 0 in each row, -1 is padding.

    `labels_RL` are the tokens with loss, -100 elsewhere; None if all carry loss.
    """

    tokens_RL: AnyArray
    document_RL: NDArray[np.int32]
    labels_RL: NDArray[np.int64] | None = None


def best_fit(
    documents: Sequence[ArrayLike],
    length: int,
    *,
    padding: int = 0,
    labels: Sequence[ArrayLike] | None = None,
) -> Packed:
    """Pack documents, or pieces of longer ones, by best fit."""
    pieces = _pieces(documents, length)
    if not pieces:
        return Packed(np.empty((0, length), np.int64), np.empty((0, length), np.int32))
    lengths_P = np.array(list(map(len, pieces)))
    row_P = best_fit_rows(lengths_P, length)
    order = np.argsort(row_P, kind="stable")

    def joined(parts: list[AnyArray]) -> AnyArray:
        return np.concatenate([parts[k] for k in order])

    return laid_out(
        joined(pieces),
        lengths_P[order],
        np.bincount(row_P),
        length,
        padding=padding,
        labels_T=None if labels is None else joined(_pieces(labels, length)),
    )


def best_fit_rows(lengths_P: ArrayLike, length: int) -> IntArray:
    """Pack documents by best fit, longest first."""
    lengths = int_array(lengths_P)
    order = np.argsort(-lengths, kind="stable")
    rows_by_room: defaultdict[int, deque[int]] = defaultdict(deque)
    rooms = list[int]()  # free space of rows, sorted
    opened = 0  # rows
    row = np.empty(len(lengths), np.int64)
    for place, size in zip(order.tolist(), lengths[order].tolist(), strict=True):
        tightest = bisect_left(rooms, size)
        if tightest < len(rooms):
            room = rooms[tightest]
            rows = rows_by_room[room]
            number = rows.popleft()
            if not rows:
                del rooms[tightest]
        else:
            room = length
            number = opened
            opened += 1
        if room > size:
            rows = rows_by_room[room - size]
            if not rows:
                insort(rooms, room - size)
            rows.append(number)
        row[place] = number
    return row


def laid_out(
    tokens_T: AnyArray,
    lengths_P: IntArray,
    pieces_R: IntArray,
    length: int,
    *,
    padding: int = 0,
    labels_T: AnyArray | None = None,
) -> Packed:
    """Write tokens to rows."""
    firsts = np.cumsum(pieces_R) - pieces_R
    stops = np.cumsum(np.add.reduceat(lengths_P, firsts)).tolist()
    number_P = np.arange(len(lengths_P), dtype=np.int32) - np.repeat(firsts, pieces_R)
    document_T = np.repeat(number_P.astype(np.int32), lengths_P)
    labels = None if labels_T is None else int_array(labels_T)
    return Packed(
        _rows(tokens_T, stops, length, padding),
        _rows(document_T, stops, length, PADDING),
        None if labels is None else _rows(labels, stops, length, NO_LOSS),
    )


def packed_fields(packed: Packed) -> PlainDict:
    """Return a model's inputs for rows, each of shape (R, L)."""
    document = packed.document_RL
    begins = _begins(document)
    carried = packed.tokens_RL if packed.labels_RL is None else packed.labels_RL
    labels = carried.astype(np.int64)
    labels[begins | (document == PADDING)] = NO_LOSS
    return {
        "input_ids": packed.tokens_RL,
        "labels": labels,
        "position_ids": positions_in(document),
        "document": document,
    }


def positions_in(document_RL: AnyArray) -> IntArray:
    """Return the position of each token in its document, from document numbers."""
    place = np.broadcast_to(np.arange(document_RL.shape[1]), document_RL.shape)
    first = np.maximum.accumulate(np.where(_begins(document_RL), place, 0), axis=1)
    return np.asarray(place - first)


def row_samples(fields: PlainMapping) -> list[PlainDict]:
    """Return the fields of each row."""
    rows = zip(*fields.values(), strict=True)
    return [dict(zip(fields, row, strict=True)) for row in rows]


def batch_bounds(document_RL: NDArray[np.int32]) -> PlainDict:
    """Return `cu_seqlens` of the concatenated rows, and `max_seqlen`."""
    bounds = cumulative_lengths(document_RL)
    return {"cu_seqlens": bounds, "max_seqlen": int(np.diff(bounds).max(initial=0))}


def documents_of(tokens_RL: AnyArray, document_end: int | None) -> NDArray[np.int32]:
    """Number the documents of each row by end-of-document ids, shape (R, L)."""
    ends = tokens_RL == document_end
    document = np.zeros(tokens_RL.shape, np.int32)
    np.cumsum(ends[:, :-1], axis=1, out=document[:, 1:], dtype=np.int32)
    return document


def cumulative_lengths(document_RL: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the document boundaries in the concatenated rows (cu_seqlens)."""
    begins = _begins(document_RL)
    return np.append(np.flatnonzero(begins), begins.size).astype(np.int32)


def _begins(document_RL: AnyArray) -> NDArray[np.bool_]:
    begins = np.ones(document_RL.shape, bool)
    np.not_equal(document_RL[:, 1:], document_RL[:, :-1], out=begins[:, 1:])
    return begins


def _pieces(documents: Iterable[ArrayLike], length: int) -> list[AnyArray]:
    arrays = map(np.asarray, documents)
    return [a[start : start + length] for a in arrays for start in range(0, len(a), length)]


def _rows(values_T: AnyArray, stops_R: Sequence[int], length: int, fill: int) -> AnyArray:
    rows = np.full((len(stops_R), length), fill, values_T.dtype)
    start = 0
    for row, stop in zip(rows, stops_R, strict=True):
        row[: stop - start] = values_T[start:stop]
        start = stop
    return rows
