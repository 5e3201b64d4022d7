"""How the documents of a stream become rows: as they are, cut off their tokens, or fitted whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mixopt.loading.packing import Packed, best_fit, cut

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
    tokenize: Callable[[Any], Any] | None
    padding: int

    def rows(self, documents: Sequence[Any], left: NDArray[Any]) -> FormedRows:
        """Make rows of the tokens left over before and of documents."""
        if self.length is None:
            return FormedRows(list(documents))
        tokens = [self._tokens(document) for document in documents]
        if self.packing == "best_fit":
            return FormedRows(_samples(best_fit(tokens, self.length, padding=self.padding)))
        packed, rest = cut(tokens, self.length, left)
        lengths = (len(one) for one in reversed(tokens))
        return FormedRows(_samples(packed), rest, holding(lengths, len(rest)))

    def tokens(self, documents: Sequence[Any]) -> NDArray[Any]:
        """Return the tokens of documents, one after the other."""
        return np.concatenate([self._tokens(document) for document in documents])

    def _tokens(self, document: Any) -> NDArray[Any]:
        if self.tokenize is not None:
            return np.asarray(self.tokenize(document))
        return np.asarray(document["input_ids"] if isinstance(document, Mapping) else document)


def holding(lengths: Iterable[int], tokens: int) -> int:
    """Return how many of the first lengths hold so many tokens, or all of them."""
    documents = 0
    for length in lengths:
        if tokens <= 0:
            break
        tokens -= length
        documents += 1
    return documents


def _samples(packed: Packed) -> list[dict[str, Any]]:
    return [
        {"input_ids": tokens, "document": document}
        for tokens, document in zip(packed.tokens_RL, packed.document_RL, strict=True)
    ]
