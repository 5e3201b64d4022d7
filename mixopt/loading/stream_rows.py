"""Rows of one domain from a stream that has no index: buffered, packed, shuffled, resumable.

A block of documents is read, packed into rows, and its rows are shuffled; then the next block.
Where the stream is, is then told by the source's own state at the start of the block and by how
many rows of it were taken: a few numbers, and resume reads one block again. (A reservoir that is
refilled row by row would have to be saved whole.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

from mixopt.errors import CorpusError, MixoptError
from mixopt.loading.document_fields import document_of, labels_of
from mixopt.loading.packing import best_fit, cut, row_samples
from mixopt.sampling import domain_key, window_order
from mixopt.system import StateFields

MOST_TOKEN = 1 << 40

Packing = Literal["cut", "best_fit"]


class Form(Protocol):
    """Turns documents into rows."""

    def rows(self, documents: list[Any], left: list[int]) -> tuple[list[Any], list[int]]:
        """Pack documents after what was left over; return rows, and what is left over now."""
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

    def rows(self, documents: list[Any], left: list[int]) -> tuple[list[Any], list[int]]:
        """Pack documents; return rows, and tokens left over for the next block."""
        if self.length is None:
            return documents, []
        read = [document_of(one, "a document of a stream", self.tokenize) for one in documents]
        tokens, labels = [one.tokens_T for one in read], labels_of(read)
        if self.packing == "best_fit":
            packed = best_fit(tokens, self.length, padding=self.padding, labels=labels)
            return row_samples(packed), []
        if labels is not None:
            raise CorpusError(
                "a document of a stream: has labels or a mask of loss, which rows cut off tokens do"
                " not keep; give packing='best_fit'"
            )
        packed, rest = cut(tokens, self.length, left)
        return row_samples(packed), [int(token) for token in rest]


class Reader(NamedTuple):
    """Which of several readers of one stream this is."""

    number: int
    of: int


class DomainRows:
    """Yield one domain's rows for ever, pass after pass."""

    def __init__(
        self, name: str, source: Any, form: Form, *, seed: int, buffer: int, reader: Reader
    ) -> None:
        """Begin at the start of the source.

        Args:
            name: The domain.
            source: An iterable of documents, or a function that returns one.
            form: How documents become rows.
            seed: Of the shuffle.
            buffer: Documents of a block.
            reader: Takes each `of`-th document from `number` on.
        """
        self._name, self._source, self._form = name, source, form
        self._buffer, self._reader = buffer, reader
        self._key = domain_key(seed, f"{name}\n{reader.number}")
        self._epoch = self._block = self._taken = self._read = 0
        self._left: list[int] = []
        self._mark: dict[str, Any] | None = None
        self._rows: list[Any] | None = None
        self._documents: Iterator[Any] | None = None

    @property
    def epoch(self) -> int:
        """How often the source was read to its end."""
        return self._epoch

    def __next__(self) -> Any:
        """Return the next row.

        Raises:
            CorpusError: The source gives this reader nothing.
        """
        while self._rows is None or self._taken >= len(self._rows):
            self._load(is_next=self._rows is not None)
        self._taken += 1
        return self._rows[self._taken - 1]

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is: the start of the block and the rows taken of it."""
        return {
            "epoch": self._epoch,
            "block": self._block,
            "taken": self._taken,
            "left": self._start_left if self._rows is not None else self._left,
            "read": self._start_read if self._rows is not None else self._read,
            "source": self._mark,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the block is read again.

        Raises:
            CorpusError: A field cannot be right, or the source cannot go on; nothing is changed.
        """
        fields = self.checked(state)
        before = dict(vars(self))
        try:
            self._go_on(fields)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def checked(self, state: object) -> StateFields:
        """Check the fields of a state, without reading anything.

        Raises:
            CorpusError: One is missing or cannot be right.
        """
        fields = StateFields(state, f"the state of domain {self._name!r}", CorpusError)
        block, read = fields.whole("block"), fields.whole("read")
        for name in ("epoch", "taken"):
            fields.whole(name)
        fields.wholes("left", most=MOST_TOKEN)
        fields.maybe("source", fields.part)
        if read > block * self._buffer:
            fields.refuse("read", f"more documents than {block} blocks of {self._buffer} have")
        return fields

    def _go_on(self, fields: StateFields) -> None:
        taken, source = fields.whole("taken"), fields.get("source")
        self._epoch, self._block = fields.whole("epoch"), fields.whole("block")
        self._left, self._read = fields.wholes("left", most=MOST_TOKEN), fields.whole("read")
        self._mark, self._rows = None if source is None else dict(source), None
        self._taken = 0
        self._documents = self._open()
        if taken:
            self._load(is_next=False)
        if self._rows is not None and taken > len(self._rows):
            fields.refuse("taken", f"more than the {len(self._rows)} rows of the block")
        self._taken = taken

    def _load(self, *, is_next: bool) -> None:
        self._block += is_next
        self._taken = 0
        if self._documents is None:
            self._documents = self._open()
        self._mark = self._source_state()
        self._start_left, self._start_read = self._left, self._read
        documents = list(islice(self._documents, self._buffer))
        if not documents:
            self._next_epoch()
            documents = list(islice(self._documents, self._buffer))
        self._read += len(documents)
        rows, self._left = self._form.rows(documents, self._left)
        order = window_order(self._key + self._epoch, self._block, 1, len(rows))[0]
        self._rows = [rows[k] for k in order]

    def _next_epoch(self) -> None:
        if self._read == 0:
            raise CorpusError(
                f"domain {self._name!r}: reader {self._reader.number} of {self._reader.of} gets no"
                " documents; use fewer workers, or a source of more shards"
            )
        self._epoch += 1
        self._read = self._start_read = 0
        self._mark = None
        self._documents = self._open()
        self._mark = self._source_state()

    def _open(self) -> Iterator[Any]:
        source = self._source() if callable(self._source) else self._source
        if hasattr(source, "set_epoch"):
            source.set_epoch(self._epoch)
        self._opened = source
        if _has_state(source):
            if self._mark is not None:
                self._load_source(source)
            return iter(source)
        mine = islice(iter(source), self._reader.number, None, self._reader.of)
        return islice(mine, self._read, None)

    def _load_source(self, source: Any) -> None:
        try:
            source.load_state_dict(self._mark)
        except MixoptError:
            raise
        except Exception as error:  # of another library, on a state that is not its own
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise CorpusError(
                f"the state of domain {self._name!r}: source: cannot be gone on from: {what}"
            ) from error

    def _source_state(self) -> dict[str, Any] | None:
        if not _has_state(self._opened):
            return None
        state: dict[str, Any] = self._opened.state_dict()
        return state


def _has_state(source: Iterable[Any]) -> bool:
    return hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
