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
from mixopt.sampling.order import OrderLayout, Place, SampleOrder, order_of
from mixopt.sampling.sampler_input import MAX_BATCH, MAX_LENGTH, MAX_ROWS, UNITS
from mixopt.sampling.shares import UNIT, ShareChange
from mixopt.system import StateFields, shown_value

FORMAT = "mixopt-sampler/4"
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
    counts_in_samples = layout.unit == "samples"
    return {
        "format": FORMAT,
        "unit": layout.unit,
        "position": position,
        "window": size,
        "seed": layout.seed,
        "domains": list(layout.names),
        "sizes": list(layout.sizes),
        "limits": None if set(layout.limits) == {None} else list(layout.limits),
        "stops": layout.stops,
        "lengths": None if counts_in_samples else _sums(layout),
        "counts": place.counts_D.tolist(),
        "owed": place.owed_D.tolist(),
        "had": None if counts_in_samples else place.had_D.tolist(),
        "exhausted": [[window * size, d] for window, d in place.out],
        "changes": [_written(change, size) for change in [*past, *coming]],
    }


def read_state(state: Mapping[str, Any], here: SampleOrder) -> tuple[SampleOrder, int]:
    """Check a state against the order that resumes from it; return one that does, and where."""
    fields = StateFields(state, "the sampler's state", SamplerError)
    fields.check_format(FORMAT)
    layout, place, changes, lengths = _read(fields)
    position = fields.whole("position", 0, MAX_POSITION)
    if layout.unit != here.layout.unit:
        raise SamplerError(
            f"the state owes each domain {layout.unit}, here unit={here.layout.unit!r}"
        )
    differing = _differences(layout, lengths, here.layout)
    if differing:
        raise SamplerError(f"the state belongs to another stream: {'; '.join(differing)}")
    return order_of(layout._replace(lengths=here.layout.lengths), changes, place), position


def _read(
    state: StateFields,
) -> tuple[OrderLayout, Place, list[ShareChange], list[int] | None]:
    names = state.texts("domains")
    if not names or len(set(names)) != len(names):
        state.refuse("domains", "not a list of names, each once")
    count, size = len(names), state.whole("window", 1, MAX_BATCH)
    position, unit = state.whole("position", 0, MAX_POSITION), state.one_of("unit", UNITS)

    def wholes(name: str, least: int = 0, most: int = MAX_ROWS) -> list[int]:
        return state.wholes(name, count, least, most)

    limits = state.maybe("limits", lambda name: _limits(state, name, count))
    layout = OrderLayout(
        names=tuple(names),
        sizes=tuple(wholes("sizes")),
        seed=state.whole("seed", -MAX_SEED, MAX_SEED),
        window_size=size,
        limits=limits or (None,) * count,
        stops=state.flag("stops"),
        unit=unit,
        lengths=(),
    )
    counts, had = wholes("counts"), state.maybe("had", lambda name: wholes(name, 0, 1 << 62))
    if sum(counts) > position:
        state.refuse("counts", f"more than the {position} samples before it")
    most = _MAX_OWED if unit == "samples" else _MAX_TOKENS_OWED
    owed = np.array(wholes("owed", -most, most), np.int64 if unit == "samples" else object)
    lengths = state.maybe("lengths", lambda name: wholes(name, 0, 1 << 80))
    if unit != "samples" and (had is None or lengths is None):
        state.refuse("had" if had is None else "lengths", "missing for this unit")
    counts_D = np.array(counts, np.int64)
    had_D = counts_D if had is None else np.array(had, np.int64)
    place = Place(position // size, counts_D, owed, had_D, _exhausted(state, position, count, size))
    return layout, place, _changes(state, layout.sizes, position, size), lengths


def _limits(state: StateFields, name: str, count: int) -> tuple[int | None, ...]:
    listed = {str(k): value for k, value in enumerate(state.listed(name, count))}
    each = StateFields(listed, f"{state.where}: {name}", SamplerError)
    return tuple(each.maybe(k, lambda k: each.whole(k, 0, MAX_ROWS)) for k in listed)


def _exhausted(
    state: StateFields, position: int, count: int, size: int
) -> tuple[tuple[int, int], ...]:
    exhausted = []
    for k, pair in enumerate(state.listed("exhausted")):
        one = StateFields({"pair": pair}, f"{state.where}: exhausted.{k}", SamplerError)
        at, domain = one.wholes("pair", 2, 0, max(position, count - 1))
        if domain >= count or at > position:
            one.refuse("pair", "not a position and a domain")
        exhausted.append((at // size, domain))
    return tuple(exhausted)


def _changes(
    state: StateFields, sizes: tuple[int, ...], position: int, size: int
) -> list[ShareChange]:
    """Return the changes that a state has; they go forward, and the first holds there already."""
    changes: list[ShareChange] = []
    before = -1
    for k, listed in enumerate(state.listed("changes")):
        where = f"{state.where}: changes.{k}"
        if not isinstance(listed, (list, tuple)) or len(listed) not in (2, 4):
            shown = shown_value(listed)
            raise SamplerError(f"{where}: {shown} is not a pair of position and shares")
        names = ("position", "shares", "end_position", "end_shares")
        one = StateFields(dict(zip(names, listed, strict=False)), where, SamplerError)
        at = one.whole("position", before + 1, position if k == 0 else MAX_POSITION)
        change = ShareChange(_window(at, size), _shares(one, "shares", sizes))
        if len(listed) == 4:
            end = _window(one.whole("end_position", at + 1, MAX_POSITION), size)
            change = change._replace(end_window=end, end_shares=_shares(one, "end_shares", sizes))
        changes.append(change)
        before = at
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


def _written(change: ShareChange, size: int) -> list[Any]:
    written: list[Any] = [change.window * size, list(change.shares)]
    if change.end_window is not None and change.end_shares is not None:
        written += [change.end_window * size, list(change.end_shares)]
    return written


def _sums(layout: OrderLayout) -> list[int]:
    return [int(np.sum(each, dtype=np.int64)) for each in layout.lengths]


def _differences(
    theirs: OrderLayout, lengths: Sequence[int] | None, ours: OrderLayout
) -> list[str]:
    """Say what differs between a saved order and the one that is to resume from it."""
    if theirs.names != ours.names:
        gone = [f"it has {n!r}, which is not here" for n in theirs.names if n not in ours.names]
        new = [f"it does not have {n!r}" for n in ours.names if n not in theirs.names]
        order = f"its domains are in the order {list(theirs.names)}, here {list(ours.names)}"
        return gone + new or [order]
    differing = []
    if theirs.seed != ours.seed:
        differing.append(f"its seed is {theirs.seed}, here it is {ours.seed}")
    for name, before, now in zip(ours.names, theirs.sizes, ours.sizes, strict=True):
        if before != now:
            differing.append(f"domain {name!r} had {before} rows, here it has {now}")
    if (theirs.limits, theirs.stops) != (ours.limits, ours.stops):
        differing.append(
            f"its domains may be drawn {theirs.limits} times, here {ours.limits}"
            " (max_epochs and exhausted)"
        )
    for name, then, here in zip(ours.names, lengths or (), _sums(ours), strict=False):
        if then != here:
            differing.append(f"the lengths of domain {name!r} add up to {then:,}, here to {here:,}")
    return differing
