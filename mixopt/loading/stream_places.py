"""The positions of all lanes of a stream: the part of its state that depends on reading.

A process knows those of the lanes that it reads; those of all ranks together are a whole. Of a part
of a source that several ranks read, the earliest mark is kept: any of them can begin there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mixopt.errors import SamplerError
from mixopt.loading.stream_parts import START, DocumentPlace, Mark
from mixopt.loading.stream_rows import LanePlace
from mixopt.loading.stream_sources import DividedSource
from mixopt.system import StateFields

LaneKey = tuple[str, int]  # a domain, and the number of a lane or of a part


@dataclass
class StreamPlaces:
    """Where lanes are, and from where parts of sources can be read.

    Attributes:
        lanes: By domain and lane.
        marks: By domain and part.
    """

    lanes: dict[LaneKey, LanePlace] = field(default_factory=dict)
    marks: dict[LaneKey, Mark] = field(default_factory=dict)

    @classmethod
    def at_start(cls, sources: Mapping[str, DividedSource], lanes: Iterable[int]) -> StreamPlaces:
        """Return the places of lanes that have read nothing."""
        lanes = list(lanes)
        places = {
            (name, lane): LanePlace(0, lane % source.lanes)
            for name, source in sources.items()
            for lane in lanes
        }
        marks = {(name, lane // sources[name].lanes): START for name, lane in places}
        return cls(places, marks)

    @classmethod
    def joined(cls, readers: Iterable[StreamPlaces]) -> StreamPlaces:
        """Put the places of several readers together."""
        joined = cls()
        for one in readers:
            joined.lanes |= one.lanes
            for key, mark in one.marks.items():
                known = joined.marks.setdefault(key, mark)
                joined.marks[key] = min(known, mark, key=lambda mark: mark.place)
        return joined

    def of(self, lanes: Iterable[int], sources: Mapping[str, DividedSource]) -> StreamPlaces:
        """Return the places of some of the lanes."""
        keys = [(name, lane) for name in sources for lane in lanes]
        parts = {(name, lane // sources[name].lanes) for name, lane in keys}
        return StreamPlaces({k: self.lanes[k] for k in keys}, {k: self.marks[k] for k in parts})

    def update(self, other: StreamPlaces) -> None:
        """Take what the reader has changed."""
        self.lanes |= other.lanes
        self.marks |= other.marks

    def state(self, sources: Mapping[str, DividedSource]) -> dict[str, Any]:
        """Return it for JSON, by domain."""
        return {
            name: {
                "parts": source.parts,
                "marks": {str(k): m.state() for (n, k), m in self.marks.items() if n == name},
                "lanes": {str(k): list(p) for (n, k), p in self.lanes.items() if n == name},
            }
            for name, source in sources.items()
        }


def read_places(
    domains: StateFields, sources: Mapping[str, DividedSource], lanes: Iterable[int]
) -> StreamPlaces:
    """Take the places of some lanes from a state.

    Raises:
        SamplerError: A field is missing or cannot be right, or a source is divided otherwise.
    """
    lanes = list(lanes)
    places = StreamPlaces()
    for name, source in sources.items():
        fields = domains.part(name)
        parts = fields.whole("parts", 1)
        if parts != source.parts:
            raise SamplerError(
                f"{fields.where}: its source was read in {parts} parts, here it has shards for "
                f"{source.parts}: it has changed"
            )
        _read_domain(fields, source, lanes, places, name)
    return places


def _read_domain(
    fields: StateFields, source: DividedSource, lanes: list[int], places: StreamPlaces, name: str
) -> None:
    marks, records = fields.part("marks"), fields.part("lanes")
    for lane in lanes:
        if str(lane) not in records.content:
            raise SamplerError(
                f"{records.where}: {lane}: is missing; join the states of all ranks by "
                "join_stream_states before other ranks resume from it"
            )
        place, part = LanePlace.read(records, str(lane)), lane // source.lanes
        mark = Mark.read(marks.part(str(part)))
        if mark.place > place[:2] or place.document % source.lanes != lane % source.lanes:
            records.refuse(str(lane), f"no place of lane {lane} after the mark of its part")
        places.lanes[name, lane], places.marks[name, part] = place, mark


def join_stream_states(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the states of the ranks of a stream together; any number of ranks resumes from that.

    Raises:
        SamplerError: They are not of one stream at one batch, or lanes are missing.
    """
    states = list(states)
    if not states:
        raise SamplerError("there are no states to join")
    joined = _Joined(StateFields(states[0], "the stream's state", SamplerError))
    for k, state in enumerate(states):
        joined.add(StateFields(state, f"the stream's state {k} of {len(states)}", SamplerError))
    return joined.whole()


class _Joined:
    def __init__(self, first: StateFields) -> None:
        self._first = first
        self._lanes = first.whole("lanes", 1)
        self._domains: dict[str, dict[str, Any]] = {}

    def add(self, state: StateFields) -> None:
        for name in self._first.content:
            if name != "domains" and state.get(name) != self._first.content[name]:
                raise SamplerError(f"{state.where}: {name}: is not that of the first")
        domains = state.part("domains")
        for name in domains.content:
            given = domains.part(name)
            known = self._domains.setdefault(name, {"parts": given.get("parts"), "marks": {}})
            known.setdefault("lanes", {}).update(given.part("lanes").content)
            for part, mark in given.part("marks").content.items():
                before = known["marks"].setdefault(part, mark)
                if _place(mark) < _place(before):
                    known["marks"][part] = mark

    def whole(self) -> dict[str, Any]:
        for name, domain in self._domains.items():
            missing = [k for k in range(self._lanes) if str(k) not in domain["lanes"]]
            if missing:
                raise SamplerError(
                    f"the stream's states: domain {name!r}: lane {missing[0]} of {self._lanes} is"
                    " in none of them; join those of all ranks"
                )
            domain["lanes"] = dict(sorted(domain["lanes"].items(), key=lambda one: int(one[0])))
            domain["marks"] = dict(sorted(domain["marks"].items(), key=lambda one: int(one[0])))
        return {**self._first.content, "domains": self._domains}


def _place(mark: Mapping[str, Any]) -> DocumentPlace:
    return DocumentPlace(mark["epoch"], mark["document"])
