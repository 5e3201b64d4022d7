"""Form rows from the documents of a stream: unchanged, cut from their tokens, or packed whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import CorpusError
from mixopt.loading.document_fields import TokenDocument, Tokenize, document_of, labels_of
from mixopt.loading.packing import best_fit, cut, row_samples

Packing = Literal["cut", "best_fit"]

NOTHING: NDArray[Any] = np.empty(0, np.int64)


class FormedRows(NamedTuple):
    """Rows of some documents.

    Attributes:
        rows: The rows.
        left: Tokens that fill no row and go into the next ones.
        documents_left: How many of the last documents those tokens are of, where there are rows.
    """

    rows: list[Any]
    left: NDArray[Any] = NOTHING
    documents_left: int = 0


class Form(Protocol):
    """Turns documents into rows."""

    def rows(self, documents: Sequence[Any], left: NDArray[Any]) -> FormedRows:
        """Make rows of the tokens left over before and of documents."""
        ...

    def tokens(self, documents: Sequence[Any]) -> NDArray[Any]:
        """Return the tokens of documents, one after the other."""
        ...


@dataclass(frozen=True)
class RowFormat:
    """How documents become rows.

    Attributes:
        length: Tokens of a row; None where a document is a row.
        packing: `cut` or `best_fit`.
        tokenize: Turns a document into tokens that end with the end-of-document id; None where
            it has `input_ids`.
        padding: Token id where a row of `best_fit` is not full.
    """

    length: int | None
    packing: Packing
    tokenize: Tokenize | None
    padding: int

    def rows(self, documents: Sequence[Any], left: NDArray[Any]) -> FormedRows:
        """Make rows of the tokens left over before and of documents."""
        if self.length is None:
            return FormedRows(list(documents))
        read = self._read(documents)
        tokens, labels = [one.tokens_T for one in read], labels_of(read)
        if self.packing == "best_fit":
            packed = best_fit(tokens, self.length, padding=self.padding, labels=labels)
            return FormedRows(row_samples(packed))
        if labels is not None:
            raise CorpusError(
                "a document of a stream: has labels or a mask of loss, which rows cut off tokens do"
                " not keep; give packing='best_fit'"
            )
        packed, rest = cut(tokens, self.length, left)
        lengths = (len(one) for one in reversed(tokens))
        return FormedRows(row_samples(packed), rest, holding(lengths, len(rest)))

    def tokens(self, documents: Sequence[Any]) -> NDArray[Any]:
        """Return the tokens of documents, one after the other."""
        return np.concatenate([one.tokens_T for one in self._read(documents)])

    def _read(self, documents: Sequence[Any]) -> list[TokenDocument]:
        return [document_of(one, "a document of a stream", self.tokenize) for one in documents]


def holding(lengths: Iterable[int], tokens: int) -> int:
    """Return how many of the first lengths hold so many tokens, or all of them."""
    documents = 0
    for length in lengths:
        if tokens <= 0:
            break
        tokens -= length
        documents += 1
    return documents
