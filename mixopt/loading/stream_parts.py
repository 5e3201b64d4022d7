"""One part of a streamed source, read once and dealt to the lanes that share it, pass after pass.

Document i of a pass goes to lane i modulo their number, so which documents a lane gets does not
depend on which process reads it. A process that has some of the lanes reads the part once and drops
the documents of the others.

Where to begin again is a mark: a place with the state that the source itself gives there
(`state_dict`, as a `datasets.IterableDataset` has), kept every so many documents. A source without
one is read from the start of the pass, and what was taken is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mixopt.errors import CorpusError, MixoptError
from mixopt.system import StateFields


class DocumentPlace(NamedTuple):
    """Of a document in a part: the pass, and its number in it, both from 0."""

    epoch: int
    document: int


class Mark(NamedTuple):
    """Where a part can be read from.

    Attributes:
        place: Of the first document.
        last_pass: Documents of the pass before; 0 in the first.
        source: The source's own state there; None for the start of the pass.
    """

    place: DocumentPlace
    last_pass: int
    source: Mapping[str, Any] | None

    def state(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "epoch": self.place.epoch,
            "document": self.place.document,
            "last_pass": self.last_pass,
            "source": self.source,
        }

    @classmethod
    def read(cls, fields: StateFields) -> Mark:
        """Take it from a state.

        Raises:
            MixoptError: A field is missing or cannot be right.
        """
        place = DocumentPlace(fields.whole("epoch"), fields.whole("document"))
        source = fields.maybe("source", lambda name: fields.part(name).content)
        if source is None and place.document:
            fields.refuse("source", "no state, in the middle of a pass")
        return cls(place, fields.whole("last_pass"), source)


START = Mark(DocumentPlace(0, 0), 0, None)


@dataclass(frozen=True)
class PartSource:
    """What a part is read from.

    Attributes:
        domain: For messages.
        open: Returns the source at the start of a pass, or where its own state is loaded.
        lanes: How many share the part.
        every: Documents between two marks.
    """

    domain: str
    open: Callable[[], Iterable[Any]]
    lanes: int
    every: int


class StreamPart:
    """Deals the documents of a part to some of its lanes, which are slots 0 to lanes - 1 of it."""

    def __init__(self, source: PartSource, mark: Mark, starts: Mapping[int, DocumentPlace]) -> None:
        """Begin at a mark; nothing is read yet.

        Args:
            source: What is read.
            mark: Where to begin.
            starts: The first document of each slot that is read here, at the mark or after it.
        """
        self._source, self._starts, self._needed = source, starts, dict(starts)
        self._queues: dict[int, deque[tuple[DocumentPlace, Any] | None]] = {
            s: deque() for s in starts
        }
        self._marks = deque([mark])
        self._documents: Iterator[Any] | None = None
        self._stateful: Any = None
        self._epoch, self._index = mark.place
        self._last_pass = mark.last_pass

    @property
    def domain(self) -> str:
        """The domain, for messages."""
        return self._source.domain

    @property
    def mark(self) -> Mark:
        """The latest mark that is before all documents that are still needed."""
        return self._marks[0]

    def next(self, slot: int) -> tuple[DocumentPlace, Any] | None:
        """Return a slot's next document and its place, or None at the end of a pass.

        Raises:
            CorpusError: The source cannot be read, has shrunk, or gives the slot nothing.
        """
        queue = self._queues[slot]
        while not queue:
            self._read()
        return queue.popleft()

    def need(self, slot: int, place: DocumentPlace) -> None:
        """Note the first document that a slot's state begins at; earlier marks are let go."""
        self._needed[slot] = place
        least = min(self._needed.values())
        while len(self._marks) > 1 and self._marks[1].place <= least:
            self._marks.popleft()

    def _read(self) -> None:
        """Read one document, or the end of a pass."""
        try:
            documents = self._opened()
            if self._index % self._source.every == 0:
                self._set_mark()
            document = next(documents, _END)
        except OSError as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise CorpusError(
                f"domain {self._source.domain!r}: document {self._index} of pass {self._epoch} of"
                f" its source cannot be read: {what}"
            ) from error
        if document is _END:
            self._end_pass()
            return
        slot = self._index % self._source.lanes
        place = DocumentPlace(self._epoch, self._index)
        if slot in self._queues and place >= self._starts[slot]:
            self._queues[slot].append((place, document))
        self._index += 1

    def _set_mark(self) -> None:
        place = DocumentPlace(self._epoch, self._index)
        if place <= self._marks[-1].place:
            return
        if self._index == 0:
            self._marks.append(Mark(place, self._last_pass, None))
        elif self._stateful is not None:
            self._marks.append(Mark(place, self._last_pass, self._stateful.state_dict()))

    def _end_pass(self) -> None:
        for slot, start in self._starts.items():
            if start == (0, slot) >= (self._epoch, self._index):
                raise CorpusError(
                    f"domain {self._source.domain!r}: its source, or a part of it, has"
                    f" {self._index} documents for {self._source.lanes} lanes; use fewer lanes="
                )
            if start.epoch == self._epoch and start.document >= self._index:
                self._refuse_shrunk(
                    f"the state is at document {start.document} of pass {start.epoch}"
                )
        if self._index < self._last_pass:
            self._refuse_shrunk(f"the pass before had {self._last_pass}")
        for queue in self._queues.values():
            queue.append(None)
        self._last_pass = self._index
        self._epoch, self._index, self._documents = self._epoch + 1, 0, None

    def _refuse_shrunk(self, before: str) -> None:
        raise CorpusError(
            f"domain {self._source.domain!r}: its source, or a part of it, ended after "
            f"{self._index} documents in pass {self._epoch}; {before}: part of it is missing"
        )

    def _opened(self) -> Iterator[Any]:
        if self._documents is None:
            source = self._source.open()
            if hasattr(source, "set_epoch"):
                source.set_epoch(self._epoch)
            self._stateful = source if has_exact_state(source) else None
            mark = self._marks[0]
            if self._index and mark.source is not None:  # begun at a mark
                self._load(source, mark.source)
            self._documents = iter(source)
        return self._documents

    def _load(self, source: Any, state: Mapping[str, Any]) -> None:
        try:
            source.load_state_dict(dict(state))
        except MixoptError:
            raise
        except Exception as error:  # of another library, on a state that is not its own
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise CorpusError(
                f"the state of domain {self._source.domain!r}: source: cannot be resumed: {what}"
            ) from error


_END = object()


def has_exact_state(source: Any) -> bool:
    """Whether a source says where it is, so that it resumes with the next document.

    `datasets` leaves the content of a shuffle buffer out of its state, and batches of mapped tables
    of the formats that are tables; these are read from the start of the pass.
    """
    if not (hasattr(source, "state_dict") and hasattr(source, "load_state_dict")):
        return False
    formatting = getattr(source, "_formatting", None)
    return not (getattr(formatting, "is_table", False) or _has_buffer(source))


def _has_buffer(source: Any) -> bool:
    waiting = [getattr(source, "_ex_iterable", None)]
    while waiting:
        one = waiting.pop()
        if type(one).__name__ == "BufferShuffledExamplesIterable":
            return True
        waiting += getattr(one, "ex_iterables", None) or []
        inner = getattr(one, "ex_iterable", None)
        waiting += [] if inner is None else [inner]
    return False
