"""Assign documents to rows, for all rows of a domain.

Documents come in the order of their source. A window of them is shuffled, longest first, into
rows by best fit; then the next window. Memory is that of a window while a plan is made, so that a
plan of any size can be written as it is made and mapped when it is read.

Shapes: D documents, P pieces (a document that is no longer than a row is one), R rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import CorpusError
from mixopt.loading.row_fitting import best_fit_rows
from mixopt.sampling import domain_key, window_order
from mixopt.system import BoolArray, IntArray

Long = Literal["split", "truncate", "error"]
Records = NDArray[np.void]

# Of a piece: its place in the concatenated documents; its document, and the tokens of the document
# before it, in it and after it.
PIECE = np.dtype(
    [("start", "<i8"), ("document", "<i8"), ("before", "<i8"), ("length", "<i8"), ("after", "<i8")]
)
ROW = np.dtype([("first", "<i8"), ("pieces", "<i4"), ("tokens", "<i4"), ("supervised", "<i4")])
UNKNOWN = -1


class Scanned(NamedTuple):
    """Documents that were looked at.

    Attributes:
        lengths_D: Tokens of each document.
        carries_T: Whether a token carries loss, for the tokens of all of them; None where all do.
        is_counted: Whether that is known.
    """

    lengths_D: IntArray
    carries_T: BoolArray | None = None
    is_counted: bool = True


@dataclass(frozen=True)
class PackingSummary:
    """The result of packing a source.

    Attributes:
        documents: Documents that have tokens.
        tokens: Tokens in rows.
        rows: Rows.
        fill: The share of the rows that is tokens, not padding.
        split: Documents that are in several pieces.
        truncated: Documents whose end is left out.
        left_out: Tokens that are left out.
    """

    documents: int
    tokens: int
    rows: int
    fill: float
    split: int
    truncated: int
    left_out: int


class Window(NamedTuple):
    """Rows of a window of documents; `first` counts from the window's first piece."""

    pieces_P: Records
    rows_R: Records


class _Counted(NamedTuple):
    """Pieces, and how many tokens of each carry loss."""

    pieces_P: Records
    supervised_P: IntArray

    def between(self, start: int, stop: int) -> _Counted:
        return _Counted(self.pieces_P[start:stop], self.supervised_P[start:stop])


@dataclass(frozen=True)
class Packer:
    """How documents are put into rows.

    Attributes:
        length: Tokens of a row.
        long: What becomes of longer documents.
        seed: Of the shuffles.
        window: Pieces that are put into rows together.
    """

    length: int
    long: Long
    seed: int
    window: int

    def windows(self, scanned: Iterable[Scanned]) -> Iterator[Window]:
        """Yield the rows of one window after the other, however much was scanned at once.

        Raises:
            CorpusError: A document is longer than a row, and `long` is "error".
        """
        number = held = 0
        waiting: list[_Counted] = []
        for some in self._pieces(scanned):
            waiting.append(some)
            held += len(some.pieces_P)
            if held < self.window:
                continue
            joined = _joined(waiting)
            whole = held // self.window * self.window
            for start in range(0, whole, self.window):
                yield self._fitted(number, joined.between(start, start + self.window))
                number += 1
            waiting, held = [joined.between(whole, held)], held - whole
        if held:
            yield self._fitted(number, _joined(waiting))

    def _pieces(self, scanned: Iterable[Scanned]) -> Iterator[_Counted]:
        document = start = 0
        for some in scanned:
            lengths = some.lengths_D
            if self.long == "error" and (lengths > self.length).any():
                place = int(np.argmax(lengths > self.length))
                raise CorpusError(
                    f"document {document + place} has {lengths[place]} tokens, a row"
                    f" {self.length}: give long='split' or 'truncate', or longer rows"
                )
            pieces = self._cut(lengths)
            supervised = _supervised(pieces, some)
            pieces["start"] += start
            pieces["document"] += document
            yield _Counted(pieces, supervised)
            document += len(lengths)
            start += int(lengths.sum())

    def _cut(self, lengths_D: IntArray) -> Records:
        """Return the pieces of documents, numbered and placed from the first of them."""
        counts = -(-lengths_D // self.length)
        if self.long == "truncate":
            counts = np.minimum(counts, 1)
        pieces = np.zeros(int(counts.sum()), PIECE)
        pieces["document"] = np.repeat(np.arange(len(lengths_D)), counts)
        number = np.arange(len(pieces)) - np.repeat(np.cumsum(counts) - counts, counts)
        before = number * self.length
        left = np.repeat(lengths_D, counts) - before
        pieces["before"] = before
        pieces["start"] = np.repeat(np.cumsum(lengths_D) - lengths_D, counts) + before
        pieces["length"] = np.minimum(left, self.length)
        pieces["after"] = left - pieces["length"]
        return pieces

    def _fitted(self, number: int, some: _Counted) -> Window:
        """Fit a window; rows, and pieces in a row, stand in the order of the shuffle."""
        shuffled = window_order(domain_key(self.seed, "packing"), number, 1, len(some.pieces_P))[0]
        pieces, supervised = some.pieces_P[shuffled], some.supervised_P[shuffled]
        opened = best_fit_rows(pieces["length"], self.length)
        _, first, inverse = np.unique(opened, return_index=True, return_inverse=True)
        row = np.argsort(np.argsort(first))[inverse]
        order = np.argsort(row, kind="stable")
        rows = np.zeros(len(first), ROW)
        rows["pieces"] = np.bincount(row)
        rows["first"] = np.cumsum(rows["pieces"]) - rows["pieces"]
        rows["tokens"] = np.bincount(row, weights=pieces["length"])
        rows["supervised"] = np.bincount(row, weights=supervised)
        if (supervised == UNKNOWN).any():
            rows["supervised"] = UNKNOWN
        return Window(pieces[order], rows)


@dataclass(frozen=True)
class PackingPlan:
    """All rows, in memory or mapped.

    Attributes:
        pieces_P: What each piece is, those of a row one after the other.
        rows_R: What each row is.
        is_mapped: Whether they are in files.
    """

    pieces_P: Records
    rows_R: Records
    is_mapped: bool = False

    @classmethod
    def of(cls, windows: Iterable[Window]) -> PackingPlan:
        """Join windows in memory."""
        pieces, rows = [np.empty(0, PIECE)], [np.empty(0, ROW)]
        for window in numbered(windows):
            pieces.append(window.pieces_P)
            rows.append(window.rows_R)
        return cls(np.concatenate(pieces), np.concatenate(rows))

    def of_rows(self, rows: IntArray) -> tuple[Records, IntArray]:
        """Return the pieces of some rows, and how many each has."""
        chosen = self.rows_R[rows]
        counts = chosen["pieces"].astype(np.int64)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.pieces_P[np.repeat(chosen["first"], counts) + within], counts

    def summary(self, packer: Packer) -> PackingSummary:
        """Say what was made of the documents."""
        pieces, rows = self.pieces_P, len(self.rows_R)
        tokens = int(self.rows_R["tokens"].sum(dtype=np.int64))
        after = pieces["after"] if packer.long == "truncate" else np.zeros(1, np.int64)
        return PackingSummary(
            documents=int(np.count_nonzero(pieces["before"] == 0)),
            tokens=tokens,
            rows=rows,
            fill=tokens / (rows * packer.length),
            split=int(np.count_nonzero(pieces["before"] == packer.length)),
            truncated=int(np.count_nonzero(after)),
            left_out=int(after.sum()),
        )


def numbered(windows: Iterable[Window]) -> Iterator[Window]:
    """Yield windows of which `first` counts from the first piece of all of them."""
    before = 0
    for pieces, rows in windows:
        rows["first"] += before
        before += len(pieces)
        yield Window(pieces, rows)


def _supervised(pieces_P: Records, scanned: Scanned) -> IntArray:
    """Count the tokens of each piece that carry loss; its first has nothing before it."""
    if not scanned.is_counted:
        return np.full(len(pieces_P), UNKNOWN)
    if scanned.carries_T is None:
        return np.asarray(pieces_P["length"] - 1, np.int64)
    before = np.append(0, np.cumsum(scanned.carries_T, dtype=np.int64))
    stops = pieces_P["start"] + pieces_P["length"]
    return np.asarray(before[stops] - before[pieces_P["start"] + 1], np.int64)


def _joined(parts: Sequence[_Counted]) -> _Counted:
    return _Counted(*map(np.concatenate, zip(*parts, strict=True)))
