"""The changes of weights in a state, which has room for so many and no more.

Of the past the last ones are kept; what led to them is in the counts from which the state resumes.
Those to come are in the state as long as they fit, so that it says all. If they do not, the ones
that the sampler was made with are known by a hash: resuming from the state takes a sampler with
the same schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from mixopt.errors import SamplerError
from mixopt.sampling.order import UNIT, RampEnd, ShareChange, Timeline
from mixopt.sampling.stream_spec import StreamSpec
from mixopt.system import StateFields, shown_value

ROOM = 1 << 15  # bytes of JSON for changes of the past, and as many for those to come
_SHARE, _CHANGE = 17, 40  # bytes, at most, of a share and of what else a change has
MOST = 1 << 53  # of positions


def past_changes(stream: StreamSpec, position: int) -> list[ShareChange]:
    """Return the last changes up to a position that fit; at least the one in force."""
    found, _ = _fitting(stream.changes.latest(position), len(stream.layout.names))
    return found[::-1] or [next(iter(stream.changes))]


def coming_changes(stream: StreamSpec, position: int) -> tuple[list[ShareChange], str | None]:
    """Return the changes after a position; if they do not fit, those made by hand and a hash."""
    found, is_all = _fitting(stream.changes.after(position), len(stream.layout.names))
    if is_all:
        return found, None
    if stream.by_hand is None:
        return list(stream.changes.after(position)), None
    return list(stream.by_hand.after(position)), stream.given.digest


def _fitting(changes: Iterable[ShareChange], domains: int) -> tuple[list[ShareChange], bool]:
    """Return the first changes as long as there is room, and whether that is all of them."""
    found: list[ShareChange] = []
    left = ROOM
    for change in changes:
        left -= (_SHARE * domains + _CHANGE) * (1 if change.end is None else 2)
        if left < 0 and found:
            return found, False
        found.append(change)
    return found, True


def written(changes: Iterable[ShareChange]) -> list[list[Any]]:
    """Return changes for JSON: position and shares, and those of where a ramp arrives."""
    return [
        [position, list(shares), *(() if end is None else (end.position, list(end.shares)))]
        for position, shares, end in changes
    ]


def read_changes(
    state: StateFields, sizes: tuple[int, ...], start: int, earliest: int | None = None
) -> Timeline[ShareChange]:
    """Return the changes that a state has; they go forward.

    Args:
        state: The state, with a field `changes`.
        sizes: Rows of each domain.
        start: Where the first change is.
        earliest: Where it may begin, for a ramp that the state is in the middle of.

    Raises:
        SamplerError: One that cannot be.
    """
    changes: list[ShareChange] = []
    for k, listed in enumerate(state.listed("changes")):
        where = f"{state.where}: changes.{k}"
        if not isinstance(listed, (list, tuple)) or len(listed) not in (2, 4):
            raise SamplerError(
                f"{where}: {shown_value(listed)} is not a pair of position and shares"
            )
        names = ("position", "shares", "end_position", "end_shares")
        one = StateFields(dict(zip(names, listed, strict=False)), where, SamplerError)
        least, most = start if earliest is None else earliest, start
        if changes:
            least, most = changes[-1].position + 1, MOST
        position = one.whole("position", least, most)
        end = None
        if len(listed) == 4:
            last = one.whole("end_position", position + 1, MOST)
            end = RampEnd(last, _shares(one, "end_shares", sizes))
        changes.append(ShareChange(position, _shares(one, "shares", sizes), end))
    if not changes:
        state.refuse("changes", "without a mixture")
    return Timeline(changes)


def _shares(one: StateFields, name: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    shares = one.wholes(name, len(sizes), 0, UNIT)
    if sum(shares) != UNIT:
        raise SamplerError(f"{one.where}: {name}: add up to {sum(shares)}, not {UNIT}")
    if any(share and not rows for share, rows in zip(shares, sizes, strict=True)):
        raise SamplerError(f"{one.where}: {name}: a domain without rows has a share")
    return tuple(shares)


def with_given(
    saved: StreamSpec, here: StreamSpec, digest: str | None, position: int
) -> StreamSpec:
    """Return the stream of a state with the changes to come that it knows by a hash.

    Raises:
        SamplerError: The sampler was made with others.
    """
    if digest is None:
        return StreamSpec(
            saved.layout,
            saved.tokens_per_sample,
            saved.mixtures,
            saved.changes,
            saved.origin,
            here.given,
        )
    if here.given.digest != digest:
        raise SamplerError(
            "the state is of a sampler with another schedule: it had more future changes of "
            "weights than a state holds; make this sampler with the same schedule= and "
            "batch_size="
        )
    by_hand = Timeline(saved.changes.after(position))
    changes = saved.changes.before(position + 1)
    coming = {one.position: one for one in chain(here.given.changes.after(position), by_hand)}
    changes = Timeline([*changes, *(coming[place] for place in sorted(coming))])
    return StreamSpec(
        saved.layout,
        saved.tokens_per_sample,
        origin=saved.origin,
        given=here.given,
        by_hand=by_hand,
    ).with_shares(changes)
