"""What a sampler saves and how it resumes from it: small, global, plain numbers.

The state is the position, what the stream is laid out over and the weights of late and to come
(mixopt.sampling.state_changes). It says nothing of ranks and workers.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixopt.errors import SamplerError
from mixopt.sampling.domain_map import map_stream
from mixopt.sampling.order import UNIT, Origin
from mixopt.sampling.sample_order import Chunks, SampleOrder, StreamLayout
from mixopt.sampling.sampler_input import MAX_BATCH, MAX_ROWS, MOST_CHUNK
from mixopt.sampling.state_changes import (
    coming_changes,
    past_changes,
    read_changes,
    with_given,
    written,
)
from mixopt.sampling.stream_spec import StreamSpec
from mixopt.system import StateFields

FORMAT = "mixopt-sampler/2"
_OLD_FORMAT = "mixopt-sampler/1"
MOST_SEED = 1 << 128
_MOST_OWED = UNIT << 10  # to a domain; a few samples are ever owed (mixopt.sampling.order.plan)
_ERROR = SamplerError


def write_state(stream: StreamSpec, order: SampleOrder, position: int) -> dict[str, Any]:
    """Return the state of a stream at a position, ready for JSON."""
    layout, origin = stream.layout, stream.origin
    past = past_changes(stream, position)
    coming, schedule = coming_changes(stream, position)
    start = past[0].position
    if start > order.origin.position:
        counts, owed = order.planned_counts(start), order.owed(start)
        origin = Origin(start, tuple(counts.tolist()), tuple(owed.tolist()))
    return {
        "format": FORMAT,
        "position": position,
        **written_layout(layout),
        "tokens_per_sample": listed(stream.tokens_per_sample),
        "origin": None if origin is None else [origin[0], list(origin[1]), list(origin[2])],
        "changes": written([*past, *coming]),
        "schedule": schedule,
    }


def written_layout(layout: StreamLayout) -> dict[str, Any]:
    """Return what a stream is laid out over, ready for JSON."""
    return {
        "seed": layout.seed,
        "window": layout.window,
        "domains": list(layout.names),
        "sizes": list(layout.sizes),
        "row_keys": listed(layout.row_keys),
        "shift": listed(layout.shift),
        "limits": None if set(layout.limits) == {None} else list(layout.limits),
        "stops": layout.stops,
        "chunks": listed(layout.chunks),
    }


def read_state(
    state: Mapping[str, Any],
    here: StreamSpec,
    map_domains: Mapping[str, str | None] | None,
) -> tuple[StreamSpec, int]:
    """Check a state against the stream that is to resume from it.

    Returns:
        The stream that resumes, and its position.

    Raises:
        SamplerError: The state does not fit; what differs is named.
    """
    saved, position, schedule = _stream(StateFields(state, "the sampler's state", SamplerError))
    if map_domains is not None:
        return map_stream(saved, here, position, map_domains), position
    differing = stream_differences(saved, here)
    if differing:
        raise SamplerError(f"the state belongs to another stream: {'; '.join(differing)}")
    saved = with_given(saved, here, schedule, position)
    _check_windows(saved)
    return saved, position


def _stream(state: StateFields) -> tuple[StreamSpec, int, str | None]:
    """Return the stream of a state, its position and a hash of its schedule, every field checked.

    States of before there was a schedule have all changes in them.
    """
    is_old = state.content.get("format") == _OLD_FORMAT
    if not is_old:
        state.check_format(FORMAT)
    schedule = None if is_old else state.maybe("schedule", state.text)
    layout = read_layout(state)
    domains, position = len(layout.names), state.whole("position")
    origin = state.maybe("origin", lambda name: _origin(state, name, domains))
    lengths = state.maybe("tokens_per_sample", lambda name: _lengths(state, name, domains))
    changes = read_changes(state, layout.sizes, 0 if origin is None else origin.position)
    stream = StreamSpec(layout, lengths, origin=origin).with_shares(changes)
    _check_windows(stream)
    _check_reached(stream, position)
    return stream, position, schedule


def read_layout(state: StateFields) -> StreamLayout:
    """Return what a state's stream is laid out over."""
    names = state.texts("domains")
    if not names or len(set(names)) != len(names):
        state.refuse("domains", "not a list of names, each once")
    count = len(names)
    limits = state.maybe("limits", lambda name: _limits(state, name, count))
    keys = state.maybe("row_keys", lambda name: tuple(state.texts(name, count)))
    shift = state.maybe("shift", lambda name: tuple(state.wholes(name, count)))
    return StreamLayout(
        names=tuple(names),
        sizes=tuple(state.wholes("sizes", count)),
        seed=state.whole("seed", -MOST_SEED, MOST_SEED),
        window=state.whole("window", 1, MAX_BATCH),
        limits=limits or (None,) * count,
        stops=state.flag("stops"),
        chunks=state.maybe("chunks", lambda name: Chunks(*state.wholes(name, 2, 1, MOST_CHUNK))),
        row_keys=keys,
        shift=shift,
    )


def _limits(state: StateFields, name: str, count: int) -> tuple[int | None, ...]:
    listed = state.listed(name, count)
    each = StateFields({str(k): v for k, v in enumerate(listed)}, f"{state.where}: {name}", _ERROR)
    return tuple(each.maybe(str(k), lambda k: each.whole(k, 0, MAX_ROWS)) for k in range(count))


def _lengths(state: StateFields, name: str, count: int) -> tuple[float, ...]:
    lengths = state.numbers(name, count, least=0)
    if not all(lengths):
        state.refuse(name, "not numbers > 0")
    return tuple(lengths)


def _origin(state: StateFields, name: str, count: int) -> Origin:
    listed = state.listed(name, 3)
    parts = StateFields(
        dict(zip(("position", "counts", "owed"), listed, strict=True)),
        f"{state.where}: {name}",
        _ERROR,
    )
    return Origin(
        parts.whole("position"),
        tuple(parts.wholes("counts", count)),
        tuple(parts.wholes("owed", count, -_MOST_OWED, _MOST_OWED)),
    )


def _check_windows(stream: StreamSpec) -> None:
    """Check that windows are whole."""
    window, origin = stream.layout.window, stream.origin
    places = [("origin", origin.position)] if origin else []
    for field, place in [*places, *(("changes", one.position) for one in stream.changes)]:
        if place % window:
            raise SamplerError(
                f"the sampler's state: {field}: position {place} is in the middle of a window of"
                f" {window} samples"
            )


def _check_reached(stream: StreamSpec, position: int) -> None:
    """Check that the position is one that the stream has."""
    order = SampleOrder(stream.layout, stream.changes, stream.origin)
    start, end = order.origin.position, order.reach(position)
    if not start <= position <= end:
        raise SamplerError(
            f"the sampler's state: position: {position} is not in the stream, which goes from"
            f" {start} to {end}"
        )


def stream_differences(saved: StreamSpec, here: StreamSpec) -> list[str]:
    """Say what differs between a saved stream and the one that is to resume from it."""
    theirs, ours = saved.layout, here.layout
    if set(theirs.names) != set(ours.names) or theirs.names != ours.names:
        return _domain_differences(theirs.names, ours.names)
    differing = []
    if theirs.seed != ours.seed:
        differing.append(f"its seed is {theirs.seed}, here it is {ours.seed}")
    for name, before, now in zip(ours.names, theirs.sizes, ours.sizes, strict=True):
        if before != now:
            differing.append(f"domain {name!r} had {before} rows, here it has {now}")
    if saved.tokens_per_sample != here.tokens_per_sample:
        differing.append(
            f"its tokens_per_sample is {saved.tokens_per_sample}, here it is"
            f" {here.tokens_per_sample}"
        )
    if (theirs.limits, theirs.stops) != (ours.limits, ours.stops):
        differing.append(
            f"its domains may be drawn {theirs.limits} times, here {ours.limits}"
            " (max_epochs and exhausted)"
        )
    if theirs.chunks != ours.chunks:
        differing.append(f"its chunks are {theirs.chunks}, here they are {ours.chunks}")
    return differing


def _domain_differences(theirs: Sequence[str], ours: Sequence[str]) -> list[str]:
    gone = [f"it has {name!r}, which is not here" for name in theirs if name not in ours]
    new = [f"it does not have {name!r}" for name in ours if name not in theirs]
    found = gone + new or [f"its domains are in the order {list(theirs)}, here {list(ours)}"]
    return [*found, "load_state_dict(state, map_domains={...}) for intended changes"]


def listed(values: Sequence[Any] | None) -> list[Any] | None:
    """Return values for JSON."""
    return None if values is None else list(values)
