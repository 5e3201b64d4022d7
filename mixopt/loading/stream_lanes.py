"""Lanes of a stream: each reads its own shards of every domain in blocks.

The position of a lane is the source's own state at the start of a block, and a number of rows; a
source without an exact state is read again from the start of the pass.

Shapes: G lanes read here, S samples of a lane in a batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, NamedTuple, Self

import numpy as np

from mixopt.errors import CorpusError, SamplerError
from mixopt.loading.documents import Tokenize, document_of, labels_of
from mixopt.loading.packing import best_fit, packed_fields, row_samples
from mixopt.loading.sources import check_single_dataset
from mixopt.sampling import domain_key, window_order
from mixopt.system import IntArray, PlainMapping, StateFields, one_line

LaneKey = tuple[str, int]  # domain and number of a lane
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio


class LanePlace(NamedTuple):
    """Position of a lane in its shards of a domain, which determines its next row.

    Pass over the shards, documents before the block in this pass and in the pass before, number of
    the block, rows taken from it, and the source's own state before the block, if any.
    """

    epoch: int = 0
    document: int = 0
    last_pass: int = 0
    block: int = 0
    taken: int = 0
    source: PlainMapping | None = None

    @classmethod
    def read(cls, fields: StateFields, lane: str) -> Self:
        """Read the position of a domain's lane from a state."""
        *numbers, source = fields.listed(lane, len(cls._fields))
        place = StateFields({lane: numbers, "source": source}, fields.where, SamplerError)
        state = place.maybe("source", lambda field: place.part(field).content)
        return cls._make([*place.wholes(lane), state])


Places = dict[LaneKey, LanePlace]


@dataclass(frozen=True)
class LanePlan:
    """Settings common to all lanes of a stream; `block` is a number of documents."""

    sources: PlainMapping
    lanes: int
    seed: int
    block: int
    length: int | None
    tokenize: Tokenize | None
    padding: int

    def opened(self, domain: str, lane: int) -> Any:
        """Return a lane's part of a source, from the start of a pass."""
        source = self.sources[domain]
        if self.lanes > 1:
            return source.shard(num_shards=self.lanes, index=lane, contiguous=False)
        return source() if callable(source) else source

    def rows(self, documents: Sequence[Any]) -> list[Any]:
        """Return the rows of the documents of a block."""
        if self.length is None:
            return list(documents)
        where = "a document of a stream"
        read = [document_of(fields, where, self.tokenize) for fields in documents]
        tokens = [document.tokens_T for document in read]
        labels = labels_of(read)
        packed = best_fit(tokens, self.length, padding=self.padding, labels=labels)
        return row_samples(packed_fields(packed))


def shards_of(domain: str, source: Any) -> int:
    """Return the number of shards of a source."""
    check_single_dataset(f"domain {domain!r}", source)
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
    has_shards = hasattr(source, "num_shards") and hasattr(source, "shard")
    return int(source.num_shards) if has_shards else 1


class LaneRows:
    """Yields the rows of a domain's lane endlessly, pass after pass."""

    def __init__(self, plan: LanePlan, domain: str, lane: int, place: LanePlace) -> None:
        self._plan = plan
        self._domain = domain
        self._lane = lane
        self._key = domain_key(plan.seed, f"{domain}\n{lane}")
        self.place = place
        self._next = place  # start of the next block
        self._documents: Iterator[Any] = iter(())
        self._stateful: Any = None  # the source, if it has an exact state
        self._rows: list[Any] | None = None

    def __next__(self) -> Any:
        if self._rows is None:
            self._restore()
        while self._rows is None or self.place.taken >= len(self._rows):
            self._load()
        row = self._rows[self.place.taken]
        self.place = self.place._replace(taken=self.place.taken + 1)
        return row

    def _restore(self) -> None:
        """Read the partly consumed block again."""
        place = self._next = self.place
        self._open(place)
        self._load()
        rows = len(self._rows or ())
        if place.taken > rows:
            raise CorpusError(
                f"domain {self._domain!r}: the state has taken {place.taken} rows of a block that"
                f" has {rows} here: its source has changed"
            )
        # A source may have no state before its first document.
        self.place = self.place._replace(taken=place.taken, source=place.source)

    def _load(self) -> None:
        """Read a block of a pass, and shuffle its rows."""
        begin = self._next
        state = self._stateful.state_dict() if self._stateful and begin.document else None
        documents = self._read(begin, self._plan.block)
        if not documents:
            if not begin.document or begin.document < begin.last_pass:
                before = f"; the pass before had {begin.last_pass}" if begin.last_pass else ""
                raise self._ended(begin, begin.document, before)
            self._next = LanePlace(begin.epoch + 1, 0, begin.document, begin.block)
            self._open(self._next)
            return
        rows = self._plan.rows(documents)
        order = window_order(self._key + begin.epoch, begin.block, 1, len(rows))[0]
        self._rows = [rows[k] for k in order]
        self.place = begin._replace(taken=0, source=state)
        document = begin.document + len(documents)
        self._next = begin._replace(document=document, block=begin.block + 1)

    def _open(self, place: LanePlace) -> None:
        """Open the source at the start of a block."""
        source = self._plan.opened(self._domain, self._lane)
        if hasattr(source, "set_epoch"):
            source.set_epoch(place.epoch)
        self._stateful = source if _has_exact_state(source) else None
        if place.source is not None:
            self._load_state(source, place.source)
        self._documents = iter(source)
        to_skip = place.document if place.source is None else 0
        while to_skip:
            skipped = len(self._read(place, min(to_skip, self._plan.block)))
            if not skipped:
                at = f"; the state is at document {place.document}"
                raise self._ended(place, place.document - to_skip, at)
            to_skip -= skipped

    def _read(self, place: LanePlace, max_documents: int) -> list[Any]:
        """Read at most this number of documents."""
        try:
            return list(islice(self._documents, max_documents))
        except OSError as error:
            raise CorpusError(
                f"domain {self._domain!r}: after document {place.document} of pass {place.epoch}"
                f" its source cannot be read: {one_line(f'{type(error).__name__}: {error}')}"
            ) from error

    def _ended(self, place: LanePlace, documents: int, more: str) -> CorpusError:
        return CorpusError(
            f"domain {self._domain!r}: its source, or a part of it, ended after {documents}"
            f" documents in pass {place.epoch}{more}: part of it is missing"
        )

    def _load_state(self, source: Any, state: PlainMapping) -> None:
        try:
            source.load_state_dict(dict(state))
        except Exception as error:  # a library may raise anything on a foreign state
            raise CorpusError(
                f"the state of domain {self._domain!r}: source: cannot be resumed:"
                f" {one_line(f'{type(error).__name__}: {error}')}"
            ) from error


class LaneReader:
    """Reads the samples of lanes, batch after batch."""

    def __init__(self, plan: LanePlan, lanes: Sequence[int], places: Places) -> None:
        self._lanes = lanes
        self._names = list(plan.sources)
        self._rows: dict[LaneKey, LaneRows] = {}
        for name, lane in product(self._names, lanes):
            self._rows[name, lane] = LaneRows(plan, name, lane, places[name, lane])

    def read(self, domain_GS: IntArray) -> tuple[list[Any], Places]:
        """Read the next samples of each lane, from the requested domains."""
        keys: list[LaneKey] = []
        for lane, domain_S in zip(self._lanes, domain_GS.tolist(), strict=True):
            keys.extend((self._names[number], lane) for number in domain_S)
        samples = [next(self._rows[key]) for key in keys]
        return samples, {key: self._rows[key].place for key in set(keys)}


def deal(domain_B: IntArray, lanes: int, batch: int) -> IntArray:
    """Distribute the samples of a global batch over lanes, evenly for each domain."""
    turn = (batch * _GOLDEN % (1 << 64)) * lanes >> 64
    lane_B = np.empty_like(domain_B)
    lane_B[np.argsort(domain_B, kind="stable")] = (np.arange(len(domain_B)) + turn) % lanes
    return domain_B[np.argsort(lane_B, kind="stable")].reshape(lanes, -1)


def _has_exact_state(source: Any) -> bool:
    """Whether a source has an exact state, from which it resumes with the next document."""
    if not (hasattr(source, "state_dict") and hasattr(source, "load_state_dict")):
        return False
    if getattr(getattr(source, "_formatting", None), "is_table", False):
        return False
    waiting = [getattr(source, "_ex_iterable", None)]
    while waiting:
        dataset = waiting.pop()
        if type(dataset).__name__ == "BufferShuffledExamplesIterable":
            return False
        waiting += getattr(dataset, "ex_iterables", None) or []
        inner = getattr(dataset, "ex_iterable", None)
        if inner is not None:
            waiting.append(inner)
    return True
