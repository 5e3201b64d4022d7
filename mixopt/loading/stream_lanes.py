"""Read the samples of some lanes of a stream: all of a process's, of all domains.

A stream has a fixed number of lanes. Each has its own documents of every domain and gives the
samples of the same places of each global batch, so that a batch does not depend on which process
reads which lanes. Which domain a sample is from is told by who asks, the same in every process.

Shapes: G lanes that are read here, S samples of a lane in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mixopt.loading.row_format import Form
from mixopt.loading.stream_parts import DocumentPlace, StreamPart
from mixopt.loading.stream_places import StreamPlaces
from mixopt.loading.stream_rows import LaneRows
from mixopt.loading.stream_sources import DividedSource
from mixopt.sampling import domain_key
from mixopt.system import IntArray


@dataclass(frozen=True)
class LanePlan:
    """What all lanes of a stream have in common.

    Attributes:
        sources: Of each domain.
        form: How documents become rows.
        seed: Of the shuffles.
        buffer: Documents of a lane's block.
    """

    sources: Mapping[str, DividedSource]
    form: Form
    seed: int
    buffer: int


class LaneSamples(NamedTuple):
    """Samples of a batch, in the order of the lanes, and where they leave the lanes."""

    samples: list[Any]
    places: StreamPlaces


class LaneReader:
    """Reads the samples of lanes, batch after batch."""

    def __init__(self, plan: LanePlan, lanes: Sequence[int], places: StreamPlaces) -> None:
        """Begin at the places of the lanes; nothing is read yet.

        Args:
            plan: What is read.
            lanes: The lanes that are read here.
            places: Theirs, and the marks of the parts that they read.
        """
        self._plan, self._lanes, self._names = plan, list(lanes), list(plan.sources)
        self._parts: dict[tuple[str, int], StreamPart] = {}
        self._rows: dict[tuple[str, int], LaneRows] = {}
        self._marks = dict(places.marks)
        for name in self._names:
            self._open(name, places)

    def read(self, domain_GS: IntArray) -> LaneSamples:
        """Read the next samples of each lane, of the domains that are asked for.

        Raises:
            CorpusError: A source cannot be read, gives nothing or is not what it was.
        """
        samples, changed = [], StreamPlaces()
        for lane, domain_S in zip(self._lanes, domain_GS.tolist(), strict=True):
            for number in domain_S:
                name = self._names[number]
                samples.append(next(self._rows[name, lane]))
                changed.lanes[name, lane] = self._rows[name, lane].place
        self._note_marks(changed)
        return LaneSamples(samples, changed)

    def _note_marks(self, changed: StreamPlaces) -> None:
        """Note the marks of parts that have moved on."""
        for name, lane in changed.lanes:
            key = name, lane // self._plan.sources[name].lanes
            mark = self._parts[key].mark
            if mark is not self._marks[key]:
                self._marks[key] = changed.marks[key] = mark

    def _open(self, name: str, places: StreamPlaces) -> None:
        """Open a domain's parts and lanes."""
        plan, source = self._plan, self._plan.sources[name]
        starts: dict[int, dict[int, DocumentPlace]] = {}
        for lane in self._lanes:
            first = DocumentPlace(*places.lanes[name, lane][:2])
            starts.setdefault(lane // source.lanes, {})[lane % source.lanes] = first
        for part, slots in starts.items():
            mark = places.marks[name, part]
            self._parts[name, part] = StreamPart(source.part(part), mark, slots)
        for lane in self._lanes:
            self._rows[name, lane] = LaneRows(
                self._parts[name, lane // source.lanes],
                lane % source.lanes,
                plan.form,
                key=domain_key(plan.seed, f"{name}\n{lane}"),
                buffer=plan.buffer,
                place=places.lanes[name, lane],
            )
