"""PackedDocuments: whole documents in rows of one length, as a map-style source.

A domain of a MixtureDataset may be one. Which documents are in which row is planned once, from
their lengths; the plan of a large domain of token shards is kept in this node's cache, where the
other processes find it.

Shapes: B rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import CorpusError
from mixopt.loading.collate import Batch
from mixopt.loading.document_sources import documents_in
from mixopt.loading.packing import laid_out, packed_fields
from mixopt.loading.packing_plan import UNKNOWN, Long, Packer, PackingPlan, PackingSummary
from mixopt.loading.plan_files import plan_of
from mixopt.loading.row_sources import CountedUnit
from mixopt.sampling import at_least
from mixopt.system import IntArray


class PackedDocuments:
    """Rows of `length` tokens with whole documents, except those longer than a row."""

    def __init__(
        self,
        source: Any,
        *,
        length: int,
        document_end: int | None = None,
        tokenize: Callable[[Any], Any] | None = None,
        lengths: ArrayLike | None = None,
        long: Long = "split",
        padding: int = 0,
        seed: int = 0,
        window: int = 1 << 16,
    ) -> None:
        """Plan the rows.

        Args:
            source: TokenShards, or a dataset with a length and an index whose samples are lists of
                tokens or have `input_ids` and, if you like, `labels`, `attention_mask`,
                `assistant_masks`, `completion_mask`.
            length: Tokens of a row.
            document_end: The id that ends a document of token shards.
            tokenize: Turns a sample into such a one.
            lengths: Tokens of each sample; without them all samples are read once (of a
                `datasets.Dataset` of `input_ids` alone, the offsets of its column).
            long: What becomes of documents that are longer than a row: `split` into pieces,
                `truncate`, or `error`.
            padding: Token id where a row is not full.
            seed: Of the shuffles.
            window: Documents that are put into rows together.

        Raises:
            CorpusError: A source without documents, samples that are no tokens, or a document that
                is longer than a row, with `long="error"`.
        """
        if long not in get_args(Long):
            raise CorpusError(f"long={long!r}; it is one of {', '.join(get_args(Long))}")
        self.length = at_least(1, "length", length)
        self.padding = at_least(0, "padding", padding)
        self._packer = Packer(length, long, seed, at_least(1, "window", window))
        self._documents = documents_in(source, document_end, tokenize, lengths)
        if not len(self):
            raise CorpusError("the source has no tokens: there is nothing to pack")

    def __getstate__(self) -> dict[str, Any]:
        """Send how rows are planned to another process, with a plan that is not in a file."""
        state = dict(vars(self))
        if self._plan.is_mapped:
            del state["_plan"]
        return state

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._plan.rows_R)

    def __getitem__(self, row: int) -> Batch:
        """Return a row; its fields are those of `read`, each of shape (L,)."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Batch]:
        """Return rows.

        Raises:
            IndexError: One is not there.
            CorpusError: A document is not as long as it was.
        """
        fields = self.read(rows)
        return [
            dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)
        ]

    def read(self, rows: ArrayLike) -> Batch:
        """Return rows as arrays of shape (B, L).

        Returns:
            `input_ids`, in the type they are stored in; `labels`, -100 where a token carries no
            loss, for the first of each document and padding too, not shifted; `position_ids`, from
            0 in each document; `document`, from 0 in each row, -1 for padding.
        """
        chosen = np.asarray(rows, np.int64)
        if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {len(self)}")
        pieces, counts = self._plan.of_rows(chosen % len(self))
        tokens, labels = self._documents.read(pieces)
        packed = laid_out(
            tokens, pieces["length"], counts, self.length, padding=self.padding, labels_T=labels
        )
        return packed_fields(packed)

    def documents(self, row: int) -> list[tuple[int, int, int]]:
        """Return the pieces of a row: for each, its document and its bounds there.

        Returns:
            Number of the document in the source, first token, end; in the order of `document`.
        """
        pieces, _ = self._plan.of_rows(np.array([row]))
        return [(p["document"], p["before"], p["before"] + p["length"]) for p in pieces]

    def lengths(self, unit: CountedUnit = "tokens", /) -> IntArray | None:
        """Return the tokens of each row without padding, or those that carry loss.

        Returns:
            Shape (rows,); None where that is not known before rows are read.
        """
        counts = self._plan.rows_R[unit].view()  # of a file, where the plan is in one
        counts.flags.writeable = False
        return None if counts[0] == UNKNOWN else counts

    @property
    def summary(self) -> PackingSummary:
        """The fill of rows, and the treatment of long documents."""
        return self._plan.summary(self._packer)

    @cached_property
    def _plan(self) -> PackingPlan:
        return plan_of(self._documents, self._packer)
