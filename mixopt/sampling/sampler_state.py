"""What a sampler saves and how it resumes from it: small, global, plain numbers.

The state is a place of the order (what each domain gave and is owed), what the order is laid out
over, and the weights of late and to come. It has nothing of ranks and workers.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.sampling.order import UNIT, OrderLayout, Place, SampleOrder, ShareChange
from mixopt.sampling.sampler_input import MAX_BATCH, MAX_LENGTH, MAX_ROWS, UNITS
from mixopt.system import StateFields

FORMAT = "mixopt-sampler/5"
MAX_SEED = 1 << 128
MAX_POSITION = 1 << 53
_MAX_OWED = UNIT << 10  # samples to a domain; a few are ever owed
_MAX_TOKENS_OWED = MAX_LENGTH * UNIT << 20
_PAST = 64  # changes of weights that a state remembers


def write_state(order: SampleOrder, place: Place, position: int) -> dict[str, Any]:
    """Return the state at a sample of the window that a place begins, ready for JSON."""
    layout, size = order.layout, order.layout.window_size
    past = [change for change in order.changes if change.window <= place.window][-_PAST:]
    coming = [change for change in order.changes if change.window > place.window]
    out = {d: window * size for window, d in place.out}
    return {
        "format": FORMAT,
        "unit": layout.unit,
        "position": position,
        "window": size,
        "seed": layout.seed,
        "domains": list(layout.names),
        "sizes": list(layout.sizes),
        "limits": [-1 if limit is None else limit for limit in layout.limits],
        "stops": layout.stops,
        "lengths": _sums(layout),
        "counts": place.counts_D.tolist(),
        "owed": place.owed_D.tolist(),
        "had": place.had_D.tolist(),
        "exhausted": [out.get(d, -1) for d in range(len(layout.names))],
        "changes": [_written(change, size) for change in [*past, *coming]],
    }


def read_state(state: Mapping[str, Any], here: SampleOrder) -> tuple[SampleOrder, int]:
    """Check a state against the order that resumes from it; return one that does, and where."""
    fields = StateFields(state, "the sampler's state", SamplerError)
    fields.check_format(FORMAT)
    layout = _layout(fields)
    count, size = len(layout.names), layout.window_size
    position = fields.whole("position", 0, MAX_POSITION)
    lengths = fields.wholes("lengths", count, 0, 1 << 80)
    place = _place(fields, layout, position)
    changes = _changes(fields, layout.sizes, position, size)
    if layout.unit != here.layout.unit:
        raise SamplerError(
            f"the state owes each domain {layout.unit}, here unit={here.layout.unit!r}"
        )
    differing = _differences(layout, lengths, here.layout)
    if differing:
        raise SamplerError(f"the state belongs to another stream: {'; '.join(differing)}")
    return type(here)(layout._replace(lengths=here.layout.lengths), changes, place), position


def _layout(state: StateFields) -> OrderLayout:
    names = state.texts("domains")
    if not names or len(set(names)) != len(names):
        state.refuse("domains", "not a list of names, each once")
    limits = state.wholes("limits", len(names), -1, MAX_ROWS)
    return OrderLayout(
        names=tuple(names),
        sizes=tuple(state.wholes("sizes", len(names), 0, MAX_ROWS)),
        seed=state.whole("seed", -MAX_SEED, MAX_SEED),
        window_size=state.whole("window", 1, MAX_BATCH),
        limits=tuple(None if limit < 0 else limit for limit in limits),
        stops=state.flag("stops"),
        unit=state.one_of("unit", UNITS),
        lengths=(),
    )


def _place(state: StateFields, layout: OrderLayout, position: int) -> Place:
    domains, size, in_samples = len(layout.names), layout.window_size, layout.unit == "samples"
    counts = state.wholes("counts", domains, 0, MAX_ROWS)
    if sum(counts) > position:
        state.refuse("counts", f"more than the {position} samples before it")
    most = _MAX_OWED if in_samples else _MAX_TOKENS_OWED
    owed = state.wholes("owed", domains, -most, most)
    had = state.wholes("had", domains, 0, 1 << 62)
    ended = enumerate(state.wholes("exhausted", domains, -1, position))
    return Place(
        position // size,
        np.array(counts, np.int64),
        np.array(owed, np.int64 if in_samples else object),
        np.array(had, np.int64),
        tuple(sorted((at // size, d) for d, at in ended if at >= 0)),
    )


def _changes(
    state: StateFields, sizes: tuple[int, ...], position: int, size: int
) -> list[ShareChange]:
    """Return the changes that a state has; they go forward, and the first holds there already."""
    changes: list[ShareChange] = []
    at = -1
    for one in state.parts("changes"):
        at = one.whole("position", at + 1, MAX_POSITION if changes else position)
        change = ShareChange.at(_window(at, size), _shares(one, "shares", sizes))
        if "end_position" in one.content:
            end = _window(one.whole("end_position", at + 1, MAX_POSITION), size)
            change = change._replace(end_window=end, end_shares=_shares(one, "end_shares", sizes))
        changes.append(change)
    if not changes:
        state.refuse("changes", "without a mixture")
    return changes


def _shares(one: StateFields, name: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    shares = one.wholes(name, len(sizes), 0, UNIT)
    if sum(shares) != UNIT:
        raise SamplerError(f"{one.where}: {name}: add up to {sum(shares)}, not {UNIT}")
    if any(share and not rows for share, rows in zip(shares, sizes, strict=True)):
        raise SamplerError(f"{one.where}: {name}: a domain without rows has a share")
    return tuple(shares)


def _window(position: int, size: int) -> int:
    if position % size:
        raise SamplerError(
            f"the sampler's state: changes: position {position} is in the middle of a window of"
            f" {size} samples"
        )
    return position // size


def _written(change: ShareChange, size: int) -> dict[str, Any]:
    written = {"position": change.window * size, "shares": list(change.shares)}
    if change.end_window > change.window:
        end = {"end_position": change.end_window * size, "end_shares": list(change.end_shares)}
        return written | end
    return written


def _sums(layout: OrderLayout) -> list[int]:
    """Return the lengths of each domain's samples together; 0 where samples are owed."""
    sums = [int(np.sum(each, dtype=np.int64)) for each in layout.lengths]
    return sums or [0] * len(layout.names)


def _differences(theirs: OrderLayout, lengths: Sequence[int], ours: OrderLayout) -> list[str]:
    """Say what differs between a saved order and the one that is to resume from it."""
    if theirs.names != ours.names:
        gone = [f"it has {n!r}, which is not here" for n in theirs.names if n not in ours.names]
        new = [f"it does not have {n!r}" for n in ours.names if n not in theirs.names]
        order = f"its domains are in the order {list(theirs.names)}, here {list(ours.names)}"
        return gone + new or [order]
    differing = []
    if theirs.seed != ours.seed:
        differing.append(f"its seed is {theirs.seed}, here {ours.seed}")
    for d, (name, then, now) in enumerate(zip(ours.names, lengths, _sums(ours), strict=True)):
        if theirs.sizes[d] != ours.sizes[d]:
            differing.append(f"domain {name!r} had {theirs.sizes[d]} rows, here {ours.sizes[d]}")
        if then != now:
            differing.append(f"the lengths of domain {name!r} add up to {then:,}, here {now:,}")
    if (theirs.limits, theirs.stops) != (ours.limits, ours.stops):
        differing.append(
            f"its domains may be drawn {theirs.limits} times, here {ours.limits}"
            " (max_epochs and exhausted)"
        )
    return differing
