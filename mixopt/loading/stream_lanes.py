"""The lanes of a stream: each reads its own documents of every domain, block after block.

A source is divided into parts of whole shards, as many as divide the lanes; document i of a part
goes to lane i modulo the part's lanes, so which documents a lane gets does not depend on which
process reads it, and a process reads a part once for all its lanes. Where a lane begins again is a
mark: a document with the state that the source itself gives there, kept every so many documents; a
source without one is read from the start of the pass.

A lane reads a block of documents, packs it and shuffles its rows. Where it is, is then told by the
document that the block begins with and by how many rows of it were taken. Tokens that filled no row
go into the next block, which then begins with the documents that they are of.

Shapes: G lanes that are read here, S samples of a lane in a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import CorpusError, MixoptError, SamplerError
from mixopt.loading.documents import TokenDocument, Tokenize, document_of, labels_of
from mixopt.loading.packing import best_fit, cut, row_samples
from mixopt.loading.sources import check_is_one
from mixopt.sampling import domain_key, window_order
from mixopt.system import IntArray

LaneKey = tuple[str, int]  # a domain and the number of a lane
Packing = Literal["cut", "best_fit"]

_END = object()
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio


class DocumentPlace(NamedTuple):
    """Of a document in a part: the pass, and its number in it, both from 0."""

    epoch: int
    document: int


class Mark(NamedTuple):
    """Where a part can be read from: a document, the length of the pass before, the source."""

    epoch: int = 0
    document: int = 0
    last_pass: int = 0
    source: Mapping[str, Any] | None = None


class LanePlace(NamedTuple):
    """Where a lane is in its documents: all that its next row follows from.

    Attributes:
        epoch: Pass of the first document that is needed.
        document: Number of that document in its part.
        carried: Documents from there on that came before the block.
        left: Tokens at their end that go into the block.
        block: Number of the block.
        taken: Rows that were taken of it; 0 where none was read yet.
        mark: Where the part can be read from to get there.
    """

    epoch: int
    document: int
    carried: int = 0
    left: int = 0
    block: int = 0
    taken: int = 0
    mark: Mark = Mark()


Places = dict[LaneKey, LanePlace]


class DividedSource:
    """The parts of a domain's source.

    Attributes:
        domain: For messages.
        parts: How many there are; they divide the lanes.
        lanes: Lanes of a part.
        every: Documents between two marks.
    """

    def __init__(self, domain: str, source: Any, lanes: int, block: int) -> None:
        check_is_one(domain, source)
        if getattr(source, "_distributed", None) is not None:
            raise SamplerError(
                f"domain {domain!r}: its source was given to ranks by split_dataset_by_node; give"
                " all of it, the stream divides it among ranks"
            )
        if not (callable(source) or isinstance(source, Iterable)):
            raise CorpusError(
                f"domain {domain!r}: {type(source).__name__} cannot be iterated over; a source is a"
                " streaming data set, an iterable of documents, or a function that returns one"
            )
        self.domain, self._source = domain, source
        self._has_shards = hasattr(source, "num_shards") and hasattr(source, "shard")
        shards = source.num_shards if self._has_shards else 1
        self.parts = next(n for n in range(min(shards, lanes), 0, -1) if lanes % n == 0)
        self.lanes = lanes // self.parts
        self.every = block * self.lanes

    def open(self, part: int) -> Iterable[Any]:
        """Return the documents of a part, from the start of a pass."""
        if self._has_shards:
            opened: Iterable[Any] = self._source.shard(
                num_shards=self.parts, index=part, contiguous=False
            )
            return opened
        documents: Iterable[Any] = self._source() if callable(self._source) else self._source
        return documents

    def at_start(self, lanes: Iterable[int]) -> Places:
        """Return the places of lanes that have read nothing."""
        return {(self.domain, lane): LanePlace(0, lane % self.lanes) for lane in lanes}


@dataclass(frozen=True)
class LanePlan:
    """What all lanes of a stream have in common.

    Attributes:
        sources: Of each domain.
        seed: Of the shuffles.
        block: Documents of a lane's block.
        length: Tokens of a row; None where a document is a row.
        packing: `cut` or `best_fit`.
        tokenize: Turns a document into tokens that end with the end-of-document id; None where
            it has `input_ids`.
        padding: Token id where a row of `best_fit` is not full.
    """

    sources: Mapping[str, DividedSource]
    seed: int
    block: int
    length: int | None
    packing: Packing
    tokenize: Tokenize | None
    padding: int

    def rows(
        self, documents: Sequence[Any], left: NDArray[Any]
    ) -> tuple[list[Any], NDArray[Any], list[int]]:
        """Make rows of the tokens left over before and of documents; return what is left now."""
        if self.length is None:
            return list(documents), left, []
        read = self.read(documents)
        tokens, labels = [one.tokens_T for one in read], labels_of(read)
        if self.packing == "best_fit":
            packed = best_fit(tokens, self.length, padding=self.padding, labels=labels)
            return row_samples(packed), left, []
        if labels is not None:
            raise CorpusError(
                "a document of a stream: has labels or a mask of loss, which rows cut off tokens do"
                " not keep; give packing='best_fit'"
            )
        packed, rest = cut(tokens, self.length, left)
        return row_samples(packed), rest, [len(one) for one in tokens]

    def read(self, documents: Sequence[Any]) -> list[TokenDocument]:
        """Return the tokens of documents."""
        return [document_of(one, "a document of a stream", self.tokenize) for one in documents]


class StreamPart:
    """Deals the documents of a part to some of its lanes, its slots."""

    def __init__(self, source: DividedSource, number: int, places: Mapping[int, LanePlace]) -> None:
        self.source, self._number = source, number
        mark = min((place.mark for place in places.values()), key=lambda mark: mark[:2])
        starts = {slot: DocumentPlace(*place[:2]) for slot, place in places.items()}
        self._starts, self._needed = starts, dict(starts)
        self._queues: dict[int, deque[tuple[DocumentPlace, Any] | None]] = {
            slot: deque() for slot in starts
        }
        self._marks = deque([mark])
        self._documents: Iterator[Any] | None = None
        self._stateful: Any = None
        self._epoch, self._index, self._last_pass, _ = mark

    @property
    def mark(self) -> Mark:
        """The latest mark that is before all documents that are still needed."""
        return self._marks[0]

    def next(self, slot: int) -> tuple[DocumentPlace, Any] | None:
        """Return a slot's next document and its place, or None at the end of a pass."""
        queue = self._queues[slot]
        while not queue:
            self._read()
        return queue.popleft()

    def need(self, slot: int, place: DocumentPlace) -> None:
        """Note the first document that a slot's state begins at; earlier marks are let go."""
        self._needed[slot] = place
        least = min(self._needed.values())
        while len(self._marks) > 1 and self._marks[1][:2] <= least:
            self._marks.popleft()

    def _read(self) -> None:
        """Read one document, or the end of a pass."""
        try:
            documents = self._opened()
            if self._index % self.source.every == 0:
                self._set_mark()
            document = next(documents, _END)
        except OSError as error:
            raise CorpusError(
                f"domain {self.source.domain!r}: document {self._index} of pass {self._epoch} of"
                f" its source cannot be read: {_text_of(error)}"
            ) from error
        if document is _END:
            self._end_pass()
            return
        slot = self._index % self.source.lanes
        place = DocumentPlace(self._epoch, self._index)
        if slot in self._queues and place >= self._starts[slot]:
            self._queues[slot].append((place, document))
        self._index += 1

    def _opened(self) -> Iterator[Any]:
        if self._documents is None:
            source = self.source.open(self._number)
            if hasattr(source, "set_epoch"):
                source.set_epoch(self._epoch)
            self._stateful = source if _has_exact_state(source) else None
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
            raise CorpusError(
                f"the state of domain {self.source.domain!r}: source: cannot be resumed:"
                f" {_text_of(error)}"
            ) from error

    def _set_mark(self) -> None:
        if (self._epoch, self._index) <= self._marks[-1][:2]:
            return
        if self._index == 0:
            self._marks.append(Mark(self._epoch, 0, self._last_pass))
        elif self._stateful is not None:
            state = self._stateful.state_dict()
            self._marks.append(Mark(self._epoch, self._index, self._last_pass, state))

    def _end_pass(self) -> None:
        for slot, start in self._starts.items():
            if start == (0, slot) >= (self._epoch, self._index):
                raise CorpusError(
                    f"domain {self.source.domain!r}: its source, or a part of it, has"
                    f" {self._index} documents for {self.source.lanes} lanes; use fewer lanes="
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
            f"domain {self.source.domain!r}: its source, or a part of it, ended after "
            f"{self._index} documents in pass {self._epoch}; {before}: part of it is missing"
        )


class LaneRows:
    """Yield the rows of a lane of a domain forever, pass after pass."""

    def __init__(
        self, part: StreamPart, slot: int, plan: LanePlan, key: int, place: LanePlace
    ) -> None:
        self._part, self._slot, self._plan, self._key = part, slot, plan, key
        self._begin, self._taken, self._block = place, place.taken, place.block
        self._carried: list[tuple[DocumentPlace, int]] = []  # with the tokens of each
        self._left: NDArray[Any] = np.empty(0, np.int64)
        self._rows: list[Any] | None = None

    def __next__(self) -> Any:
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
        return self._begin._replace(taken=self._taken, mark=self._part.mark)

    def _restore(self) -> None:
        """Read what was left over before the block, and the block where rows of it were taken."""
        begin, taken = self._begin, self._taken
        documents: list[Any] = []
        while len(documents) < begin.carried:
            carried = self._part.next(self._slot)
            if carried is not None:
                self._carried.append((carried[0], 0))
                documents.append(carried[1])
        if documents:
            tokens = [one.tokens_T for one in self._plan.read(documents)]
            self._carried = [
                (place, len(part)) for (place, _), part in zip(self._carried, tokens, strict=True)
            ]
            self._left = np.concatenate(tokens)[-begin.left :]
        if taken:
            self._load()
            rows = len(self._rows or [])
            if taken > rows:
                raise CorpusError(
                    f"domain {self._part.source.domain!r}: the state has taken {taken} rows of a"
                    f" block that has {rows} here: its source has changed"
                )
            self._taken = taken

    def _load(self) -> None:
        """Read a block and shuffle its rows."""
        block = self._read_block()
        begin = (self._carried[0] if self._carried else block[0])[0]
        self._begin = LanePlace(*begin, len(self._carried), len(self._left), self._block)
        self._part.need(self._slot, begin)
        rows, self._left, lengths = self._plan.rows([one for _, one in block], self._left)
        self._carry([(place, tokens) for (place, _), tokens in zip(block, lengths, strict=False)])
        order = window_order(self._key + block[0][0].epoch, self._block, 1, len(rows))[0]
        self._rows, self._taken = [rows[k] for k in order], 0

    def _carry(self, read: list[tuple[DocumentPlace, int]]) -> None:
        """Keep the last documents that the tokens which are left are of."""
        every = [*self._carried, *read]
        first, tokens = len(every), 0
        while tokens < len(self._left):
            first -= 1
            tokens += every[first][1]
        self._carried = every[first:]

    def _read_block(self) -> list[tuple[DocumentPlace, Any]]:
        """Read documents of one pass."""
        block: list[tuple[DocumentPlace, Any]] = []
        while len(block) < self._plan.block:
            one = self._part.next(self._slot)
            if one is not None:
                block.append(one)
            elif block:
                break
        return block


class LaneReader:
    """Reads the samples of lanes, batch after batch."""

    def __init__(self, plan: LanePlan, lanes: Sequence[int], places: Places) -> None:
        self._lanes, self._names = list(lanes), list(plan.sources)
        self._rows: dict[LaneKey, LaneRows] = {}
        for name, source in plan.sources.items():
            slots: dict[int, dict[int, LanePlace]] = {}
            for lane in self._lanes:
                part, slot = divmod(lane, source.lanes)
                slots.setdefault(part, {})[slot] = places[name, lane]
            for part, starts in slots.items():
                reader = StreamPart(source, part, starts)
                for slot, place in starts.items():
                    lane = part * source.lanes + slot
                    key = domain_key(plan.seed, f"{name}\n{lane}")
                    self._rows[name, lane] = LaneRows(reader, slot, plan, key, place)

    def read(self, domain_GS: IntArray) -> tuple[list[Any], Places]:
        """Read the next samples of each lane, of the domains that are asked for."""
        samples, changed = [], set[LaneKey]()
        for lane, domain_S in zip(self._lanes, domain_GS.tolist(), strict=True):
            for number in domain_S:
                key = self._names[number], lane
                samples.append(next(self._rows[key]))
                changed.add(key)
        return samples, {key: self._rows[key].place for key in changed}


def deal(domain_B: IntArray, lanes: int, batch: int) -> IntArray:
    """Deal the samples of a global batch to lanes, so that each has its part of every domain."""
    turn = (batch * _GOLDEN % (1 << 64)) * lanes >> 64
    lane_B = np.empty_like(domain_B)
    lane_B[np.argsort(domain_B, kind="stable")] = (np.arange(len(domain_B)) + turn) % lanes
    return domain_B[np.argsort(lane_B, kind="stable")].reshape(lanes, -1)


def _has_exact_state(source: Any) -> bool:
    """Whether a source says where it is, so that it resumes with the next document."""
    if not (hasattr(source, "state_dict") and hasattr(source, "load_state_dict")):
        return False
    formatting = getattr(source, "_formatting", None)
    if getattr(formatting, "is_table", False):
        return False
    waiting = [getattr(source, "_ex_iterable", None)]
    while waiting:
        one = waiting.pop()
        if type(one).__name__ == "BufferShuffledExamplesIterable":
            return False
        waiting += getattr(one, "ex_iterables", None) or []
        inner = getattr(one, "ex_iterable", None)
        waiting += [] if inner is None else [inner]
    return True


def _text_of(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
