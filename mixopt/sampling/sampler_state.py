"""What a sampler saves and how it goes on from it: small, global, plain numbers.

The state is the position, what the stream is laid out over and the log of weights, those to come
included. It says nothing of ranks and workers. After many changes the oldest are folded into the
counts that they led to.

Shapes: D domains.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mixopt.errors import SamplerError
from mixopt.sampling.domain_map import map_stream
from mixopt.sampling.order import Origin, ShareChange
from mixopt.sampling.schedule import Chunks, Schedule, StreamLayout
from mixopt.sampling.stream_spec import StreamSpec

FORMAT = "mixopt-sampler/1"
CHANGES_KEPT = 1000


def write_state(stream: StreamSpec, schedule: Schedule, position: int) -> dict[str, Any]:
    """Return the state of a stream at a position, ready for JSON."""
    layout, origin, changes = stream.layout, stream.origin, stream.changes
    passed = bisect_right(stream.positions, position)
    if passed > CHANGES_KEPT:
        start = stream.positions[passed - 1]
        counts, owed = schedule.planned_counts(start), schedule.owed(start)
        origin = Origin(start, tuple(counts.tolist()), tuple(owed.tolist()))
        changes = changes[passed - 1 :]
    return {
        "format": FORMAT,
        "position": position,
        "seed": layout.seed,
        "window": layout.window,
        "domains": list(layout.names),
        "sizes": list(layout.sizes),
        "row_keys": _listed(layout.row_keys),
        "shift": _listed(layout.shift),
        "limits": None if set(layout.limits) == {None} else list(layout.limits),
        "stops": layout.stops,
        "chunks": _listed(layout.chunks),
        "tokens_per_sample": _listed(stream.tokens_per_sample),
        "origin": None if origin is None else [origin[0], list(origin[1]), list(origin[2])],
        "changes": [[change.position, list(change.shares)] for change in changes],
    }


def read_state(
    state: Mapping[str, Any],
    here: StreamSpec,
    map_domains: Mapping[str, str | None] | None,
) -> tuple[StreamSpec, int]:
    """Check a state against the stream that is to go on from it.

    Returns:
        The stream that goes on, and its position.

    Raises:
        SamplerError: The state does not fit; what differs is named.
    """
    try:
        saved, position = _stream(state), int(state["position"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SamplerError(f"not a state of format {FORMAT!r}: {error!r}") from error
    if map_domains is not None:
        return map_stream(saved, here, position, map_domains), position
    differing = _differences(saved, here)
    if differing:
        raise SamplerError(f"the state is of another stream: {'; '.join(differing)}")
    return saved, position


def _stream(state: Mapping[str, Any]) -> StreamSpec:
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']!r}")
    names = tuple(state["domains"])
    layout = StreamLayout(
        names=names,
        sizes=tuple(state["sizes"]),
        seed=state["seed"],
        window=state["window"],
        limits=tuple(state["limits"] or (None,) * len(names)),
        stops=state["stops"],
        chunks=None if state["chunks"] is None else Chunks(*state["chunks"]),
        row_keys=_tupled(state["row_keys"]),
        shift=_tupled(state["shift"]),
    )
    origin = state["origin"]
    stream = StreamSpec(
        layout,
        _tupled(state["tokens_per_sample"]),
        {},
        tuple(ShareChange(int(p), tuple(shares)) for p, shares in state["changes"]),
        None if origin is None else Origin(origin[0], tuple(origin[1]), tuple(origin[2])),
    )
    mixtures = {change.position: stream.as_tokens(change.shares) for change in stream.changes}
    return replace(stream, mixtures=mixtures)


def _differences(saved: StreamSpec, here: StreamSpec) -> list[str]:
    """Say what differs between a saved stream and the one that is to go on from it."""
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
    return [*found, "load_state_dict(state, map_domains={...}) for changes on purpose"]


def _listed(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _tupled(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
