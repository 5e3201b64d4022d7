"""The state of an order by tokens: what each domain had and is owed, and future weights.

It is the place of one batch boundary, so it is small and the same on every rank, and nothing of
the past is needed to resume. Lengths are not in it; the sum of each domain's is, so that a sampler
with other lengths is found.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixopt.errors import SamplerError
from mixopt.sampling.domain_map import map_stream
from mixopt.sampling.order import UNIT, Origin, ShareChange
from mixopt.sampling.sample_lengths import MOST_LENGTH, UNITS, SampleLengths, Unit
from mixopt.sampling.sampler_state import (
    listed,
    read_layout,
    stream_differences,
    written_layout,
)
from mixopt.sampling.state_changes import coming_changes, read_changes, with_given, written
from mixopt.sampling.stream_spec import StreamSpec
from mixopt.system import StateFields

TOKEN_FORMAT = "mixopt-sampler-tokens/1"
_MOST_OWED = MOST_LENGTH * UNIT << 20
_MOST_TOKENS = 1 << 80


def write_token_state(
    stream: StreamSpec, place: Origin, unit: Unit, lengths: SampleLengths
) -> dict[str, Any]:
    """Return the state at a batch boundary, ready for JSON."""
    layout = stream.layout
    now = stream.change_at(place.position)
    if now.end is None or now.end.position <= place.position:
        shares = now.shares if now.end is None else now.end.shares
        now = ShareChange(max(now.position, place.position), shares)
    coming, schedule = coming_changes(stream, place.position)
    return {
        "format": TOKEN_FORMAT,
        "unit": unit,
        "position": place.position,
        **written_layout(layout),
        "lengths": list(lengths.sums),
        "counts": list(place.counts_D),
        "tokens": listed(place.tokens_D),
        "owed": list(place.owed_D),
        "changes": written([now, *coming]),
        "schedule": schedule,
    }


def read_token_state(
    state: Mapping[str, Any],
    here: StreamSpec,
    unit: Unit,
    lengths: SampleLengths,
    map_domains: Mapping[str, str | None] | None,
) -> tuple[StreamSpec, int]:
    """Check a state against the stream that is to resume from it.

    Returns:
        The stream that resumes, whose origin is the place of the state, and its position.

    Raises:
        SamplerError: The state does not fit; what differs is named.
    """
    fields = StateFields(state, "the sampler's state", SamplerError)
    fields.check_format(TOKEN_FORMAT)
    saved_unit = fields.one_of("unit", UNITS)
    schedule = fields.maybe("schedule", fields.text)
    saved, sums = _stream(fields)
    assert saved.origin is not None
    position = saved.origin.position
    if saved_unit != unit:
        raise SamplerError(f"the state owes each domain {saved_unit}, here unit={unit!r}")
    if map_domains is not None:
        return map_stream(saved, here, position, map_domains), position
    differing = stream_differences(saved, here) or _other_lengths(here.layout.names, sums, lengths)
    if differing:
        raise SamplerError(f"the state belongs to another stream: {'; '.join(differing)}")
    return with_given(saved, here, schedule, position), position


def _stream(state: StateFields) -> tuple[StreamSpec, list[int | None]]:
    layout = read_layout(state)
    count = len(layout.names)
    position = state.whole("position")
    if position % layout.window:
        state.refuse("position", f"in the middle of a batch of {layout.window}")
    place = Origin(
        position,
        tuple(state.wholes("counts", count)),
        tuple(state.wholes("owed", count, -_MOST_OWED, _MOST_OWED)),
        tuple(state.wholes("tokens", count, 0, _MOST_TOKENS)),
    )
    if sum(place.counts_D) > position:
        state.refuse("counts", f"more than the {position} samples before it")
    each = state.listed("lengths", count)
    sums = StateFields({str(d): one for d, one in enumerate(each)}, state.where, SamplerError)
    known = [
        sums.maybe(str(d), lambda name: sums.whole(name, 0, _MOST_TOKENS)) for d in range(count)
    ]
    changes = read_changes(state, layout.sizes, position, earliest=0)
    return StreamSpec(layout, None, origin=place).with_shares(changes), known


def _other_lengths(
    names: tuple[str, ...], sums: list[int | None], lengths: SampleLengths
) -> list[str]:
    return [
        f"the lengths of domain {name!r} add up to {_shown(then)}, here to {_shown(now)}"
        for name, then, now in zip(names, sums, lengths.sums, strict=True)
        if then != now
    ]


def _shown(total: int | None) -> str:
    return "what is learned" if total is None else f"{total:,}"
