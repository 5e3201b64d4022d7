"""PackedDocuments: whole documents in rows of one length, as a map-style source.

It can be a domain of a MixtureDataset. Rows are planned once from the documents' lengths: windows
of shuffled documents are packed by best fit, longest first.

Shapes: B rows in a batch, P pieces (a document not longer than a row is one piece), L tokens in a
row.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import CorpusError
from mixopt.loading.dataset import Batch
from mixopt.loading.documents import PIECE, Pieces, Scanned, Tokenize, documents_in
from mixopt.loading.packing import best_fit_rows, laid_out, packed_fields, row_samples
from mixopt.loading.sources import CountedUnit
from mixopt.sampling import at_least, domain_key, window_order
from mixopt.system import IntArray, int_array

Long = Literal["split", "truncate"]
WINDOW = 1 << 16  # documents packed together


class PackedDocuments:
    """Rows of `length` tokens with whole documents, except longer ones."""

    def __init__(
        self,
        source: Any,
        *,
        length: int,
        document_end: int | None = None,
        tokenize: Tokenize | None = None,
        long: Long = "split",
        padding: int = 0,
        seed: int = 0,
    ) -> None:
        """Plan the rows.

        Args:
            source: TokenShards, or a dataset with length and index whose samples are lists of
                tokens or have `input_ids` and optionally `labels`, `attention_mask`,
                `assistant_masks`, `completion_mask`. All samples are read once for their lengths
                (for a `datasets.Dataset` of only `input_ids`, the offsets of its column).
            length: Tokens in a row.
            document_end: The end-of-document id of token shards.
            tokenize: Converts a sample to this form.
            long: Treatment of documents longer than a row: `split` or `truncate`.
            padding: Token id of padding.
            seed: Seed of shuffles.

        Raises:
            CorpusError: A source without documents, or samples without tokens.
        """
        if long not in get_args(Long):
            raise CorpusError(f"long={long!r}; it is one of {', '.join(get_args(Long))}")
        self.length = at_least(1, "length", length)
        self.padding = at_least(0, "padding", padding)
        self._long = long
        self._seed = seed
        self._documents = documents_in(source, document_end, tokenize)
        self._pieces = np.concatenate([np.empty(0, PIECE), *self._windows()])
        if not len(self._pieces):
            raise CorpusError("the source has no tokens: there is nothing to pack")
        rows = self._pieces["row"]
        self._firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        self._counts = np.diff(self._firsts, append=len(rows))

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Batch]:
        return row_samples(self.read(rows))

    def read(self, rows: ArrayLike) -> Batch:
        """Return rows as arrays of shape (B, L).

        Returns:
            `input_ids` in their stored dtype; `labels`, not shifted, -100 for tokens without loss,
            the first token of each document, and padding; `position_ids`, from 0 in each document;
            `document`, from 0 in each row, -1 for padding.
        """
        chosen = int_array(rows)
        if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {len(self)}")
        pieces, counts = self._of_rows(chosen % len(self))
        tokens, labels = self._documents.read(pieces)
        packed = laid_out(
            tokens, pieces["length"], counts, self.length, padding=self.padding, labels_T=labels
        )
        return packed_fields(packed)

    def documents(self, row: int) -> list[tuple[int, int, int]]:
        """Return the pieces of a row.

        Returns:
            For each piece: number of the document in the source, first token, end; in the order of
            `document`.
        """
        pieces, _ = self._of_rows(np.array([row]))
        return [
            (int(p["document"]), int(p["before"]), int(p["before"] + p["length"])) for p in pieces
        ]

    def lengths(self, unit: CountedUnit = "tokens", /) -> IntArray:
        """Return the tokens of each row without padding, or those with loss, shape (rows,)."""
        each = self._pieces["length" if unit == "tokens" else "supervised"]
        counts: IntArray = np.add.reduceat(each, self._firsts)
        return counts

    @property
    def summary(self) -> dict[str, float]:
        """Numbers of the packing.

        `documents` with tokens; `tokens` in rows; `rows`; `fill`, the share of rows that is tokens;
        documents `split` into several pieces and `truncated`; tokens `left_out`.
        """
        pieces = self._pieces
        rows = len(self)
        tokens = int(pieces["length"].sum())
        after = pieces["after"] if self._long == "truncate" else np.zeros(1, np.int64)
        return {
            "documents": int(np.count_nonzero(pieces["before"] == 0)),
            "tokens": tokens,
            "rows": rows,
            "fill": tokens / (rows * self.length),
            "split": int(np.count_nonzero(pieces["before"] == self.length)),
            "truncated": int(np.count_nonzero(after)),
            "left_out": int(after.sum()),
        }

    def _of_rows(self, rows: IntArray) -> tuple[Pieces, IntArray]:
        """Return the pieces of rows, and their number in each row."""
        counts = self._counts[rows]
        return self._pieces[np.repeat(self._firsts[rows], counts) + _ordinals(counts)], counts

    def _windows(self) -> Iterator[Pieces]:
        """Yield the pieces of each window, independently of the scanned chunks."""
        number = rows = 0
        waiting = np.empty(0, PIECE)
        document = start = 0
        for scanned in self._documents.scan():
            pieces = self._cut(scanned)
            pieces["start"] += start
            pieces["document"] += document
            document += len(scanned.lengths_D)
            start += int(scanned.lengths_D.sum())
            waiting = np.concatenate([waiting, pieces])
            while len(waiting) >= WINDOW:
                fitted = self._fitted(number, waiting[:WINDOW], rows)
                number += 1
                rows = fitted["row"][-1] + 1
                waiting = waiting[WINDOW:]
                yield fitted
        if len(waiting):
            yield self._fitted(number, waiting, rows)

    def _cut(self, scanned: Scanned) -> Pieces:
        """Return the pieces of documents, with numbers and positions relative to the first."""
        lengths = scanned.lengths_D
        counts = -(-lengths // self.length)
        if self._long == "truncate":
            counts = np.minimum(counts, 1)
        pieces = np.zeros(int(counts.sum()), PIECE)
        pieces["document"] = np.repeat(np.arange(len(lengths)), counts)
        pieces["before"] = _ordinals(counts) * self.length
        remaining = np.repeat(lengths, counts) - pieces["before"]
        pieces["start"] = np.repeat(np.cumsum(lengths) - lengths, counts) + pieces["before"]
        pieces["length"] = np.minimum(remaining, self.length)
        pieces["after"] = remaining - pieces["length"]
        if scanned.carries_T is None:  # the first token of a piece has no context
            pieces["supervised"] = pieces["length"] - 1
        else:
            before = np.append(0, np.cumsum(scanned.carries_T, dtype=np.int64))
            stops = pieces["start"] + pieces["length"]
            pieces["supervised"] = before[stops] - before[pieces["start"] + 1]
        return pieces

    def _fitted(self, number: int, window: Pieces, first: int) -> Pieces:
        """Pack a window; rows, and pieces in rows, are in shuffled order."""
        pieces = window[window_order(domain_key(self._seed, "packing"), number, 1, len(window))[0]]
        opened = best_fit_rows(pieces["length"], self.length)
        _, begins, inverse = np.unique(opened, return_index=True, return_inverse=True)
        pieces["row"] = np.argsort(np.argsort(begins))[inverse] + first
        ordered: Pieces = pieces[np.argsort(pieces["row"], kind="stable")]
        return ordered


def _ordinals(counts: IntArray) -> IntArray:
    """Count from 0 up to each of some counts, in a row."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
