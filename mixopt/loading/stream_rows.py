"""Rows of one lane of a domain from a stream that has no index: packed, shuffled, resumable.

A block of documents is read, packed into rows, and its rows are shuffled; then the next block.
Where a lane is, is then told by the document that the block begins with and by how many rows of it
were taken: a few numbers, and resume reads one block again. (A reservoir that is refilled row by
row would have to be saved whole.) Tokens that filled no row go into the next block, which then
begins with the documents that they are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mixopt.errors import CorpusError
from mixopt.loading.row_format import NOTHING, Form
from mixopt.loading.stream_parts import START, DocumentPlace, Mark, PartSource, StreamPart
from mixopt.sampling import domain_key, window_order
from mixopt.system import StateFields

MOST_LEFT = 1 << 31  # tokens that fill no row


class LanePlace(NamedTuple):
    """Where a lane is in its documents: all that its next row follows from.

    Attributes:
        epoch: Pass of the first document that is needed.
        document: Number of that document in its part.
        carried: Documents from there on that came before the block.
        left: Tokens at their end that go into the block.
        block: Number of the block.
        taken: Rows that were taken of it; 0 where none was read yet.
    """

    epoch: int
    document: int
    carried: int = 0
    left: int = 0
    block: int = 0
    taken: int = 0

    @classmethod
    def read(cls, fields: StateFields, name: str) -> LanePlace:
        """Take it from a state.

        Raises:
            MixoptError: It cannot be right.
        """
        place = cls(*fields.wholes(name, len(cls._fields)))
        if place.left > MOST_LEFT or (place.left > 0) != (place.carried > 0):
            fields.refuse(name, "no place: tokens are left of documents that are carried")
        return place


class LaneRows:
    """Yield the rows of a lane forever, pass after pass.

    Attributes:
        epoch: How often the part was read to its end before the block.
    """

    def __init__(
        self, part: StreamPart, slot: int, form: Form, *, key: int, buffer: int, place: LanePlace
    ) -> None:
        """Begin at a place.

        Args:
            part: Where documents come from.
            slot: Which of the part's lanes this is.
            form: How documents become rows.
            key: 64 bits for the shuffle.
            buffer: Documents of a block.
            place: Where to begin, which the part can still give.
        """
        self._part, self._slot, self._form = part, slot, form
        self._key, self._buffer = key, buffer
        self._begin, self._taken, self.epoch = place, place.taken, place.epoch
        self._block = place.block
        self._carried: list[DocumentPlace] = []
        self._left: NDArray[Any] = NOTHING
        self._rows: list[Any] | None = None

    def __next__(self) -> Any:
        """Return the next row.

        Raises:
            CorpusError: The source cannot be read, gives nothing or is not what it was.
        """
        if self._rows is None:
            self._restore()
        while self._rows is None or self._taken >= len(self._rows):
            self._block += self._rows is not None
            self._load()
        self._taken += 1
        return self._rows[self._taken - 1]

    @property
    def place(self) -> LanePlace:
        """Where the lane is."""
        return self._begin._replace(taken=self._taken)

    def _restore(self) -> None:
        """Read what was left over before the block, and the block where rows of it were taken."""
        begin, taken = self._begin, self._taken
        carried: list[Any] = []
        while len(carried) < begin.carried:
            found = self._part.next(self._slot)
            if found is not None:
                self._carried.append(found[0])
                carried.append(found[1])
        if carried:
            self._left = self._form.tokens(carried)[-begin.left :]
        if taken:
            self._load()
            rows = self._rows or []
            if taken > len(rows):
                raise CorpusError(
                    f"domain {self._part.domain!r}: the state has taken {taken} rows of a block "
                    f"that has {len(rows)} here: its source has changed"
                )
            self._taken = taken

    def _load(self) -> None:
        """Read a block and shuffle its rows."""
        places, documents = self._read_block()
        begin = (self._carried or places)[0]
        self._begin = LanePlace(*begin, len(self._carried), len(self._left), self._block)
        self._part.need(self._slot, begin)
        formed = self._form.rows(documents, self._left)
        self._carried = [*self._carried, *places]
        if formed.rows:
            self._carried = self._carried[len(self._carried) - formed.documents_left :]
        self._left = formed.left
        order = window_order(self._key + self.epoch, self._block, 1, len(formed.rows))[0]
        self._rows, self._taken = [formed.rows[k] for k in order], 0

    def _read_block(self) -> tuple[list[DocumentPlace], list[Any]]:
        """Read documents of one pass."""
        places: list[DocumentPlace] = []
        documents: list[Any] = []
        while len(places) < self._buffer:
            found = self._part.next(self._slot)
            if found is not None:
                places.append(found[0])
                documents.append(found[1])
            elif places:
                break
        self.epoch = places[0].epoch
        return places, documents


class DomainRows:
    """Yield the rows of a domain that one process reads alone, as a stream of one lane."""

    def __init__(self, name: str, source: Any, form: Form, *, seed: int, buffer: int) -> None:
        """Begin at the start of the source.

        Args:
            name: The domain.
            source: An iterable of documents, or a function that returns one.
            form: How documents become rows.
            seed: Of the shuffle.
            buffer: Documents of a block.
        """
        self._source = PartSource(name, opener(source), lanes=1, every=buffer)
        self._form, self._buffer = form, buffer
        self._key = domain_key(seed, f"{name}\n0")
        self._begin(START, LanePlace(0, 0))

    @property
    def epoch(self) -> int:
        """Number of completed passes over the source."""
        return self._rows.epoch

    def __next__(self) -> Any:
        """Return the next row.

        Raises:
            CorpusError: The source cannot be read, or gives nothing.
        """
        return next(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream: the start of the block and the rows taken from it."""
        return {"lane": list(self._rows.place), "mark": self._part.mark.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; the next row reads its block again.

        Raises:
            CorpusError: A field cannot be right; nothing is changed.
        """
        fields = StateFields(state, f"the state of domain {self._source.domain!r}", CorpusError)
        place, mark = LanePlace.read(fields, "lane"), Mark.read(fields.part("mark"))
        if mark.place > place[:2]:
            fields.refuse("mark", "no mark before the lane's place")
        self._begin(mark, place)

    def _begin(self, mark: Mark, place: LanePlace) -> None:
        self._part = StreamPart(self._source, mark, {0: DocumentPlace(*place[:2])})
        self._rows = LaneRows(
            self._part, 0, self._form, key=self._key, buffer=self._buffer, place=place
        )


def opener(source: Any) -> Callable[[], Iterable[Any]]:
    """Return what opens a source at its start: itself, if it is a function."""
    return source if callable(source) else lambda: source
