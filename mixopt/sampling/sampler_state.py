"""What a sampler saves and how it resumes from it: small, global, plain numbers.

The state is a place of the order (what each domain gave and is owed), what the order is laid out
over, and the weights of late and to come. It has nothing of ranks and workers.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.sampling.order import UNIT, OrderLayout, Place, SampleOrder, ShareChange
from mixopt.sampling.sampler_input import MAX_BATCH, MAX_LENGTH, MAX_ROWS
from mixopt.system import StateFields, shown_value

FORMAT = "mixopt-sampler/5"
MAX_POSITION = 1 << 53
_MAX_OWED = UNIT << 10  # samples to a domain; a few are ever owed
_MAX_TOKENS_OWED = MAX_LENGTH * UNIT << 20
_SHOWN = 8  # differences
_PAST = 64  # changes of weights that a state remembers
# What a state and the stream that resumes from it have in common, as messages call it.
_COMMON = {
    "unit": "unit",
    "domains": "domains",
    "seed": "seed",
    "sizes": "rows",
    "limits": "rows allowed by max_epochs",
    "stops": "exhausted='stop'",
    "lengths": "sum of lengths",
}


def write_state(order: SampleOrder, place: Place, position: int) -> dict[str, Any]:
    """Return the state at a sample of the window that a place begins, ready for JSON."""
    layout, size = order.layout, order.layout.window_size
    past = [change for change in order.changes if change.window <= place.window][-_PAST:]
    coming = [change for change in order.changes if change.window > place.window]
    out = {d: window * size for window, d in place.out}
    return {
        "format": FORMAT,
        "position": position,
        "window": size,
        **_common(layout),
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
    _check_common(fields, _common(here.layout))
    layout = here.layout._replace(window_size=fields.whole("window", 1, MAX_BATCH))
    position = fields.whole("position", 0, MAX_POSITION)
    place = _place(fields, layout, position)
    changes = _changes(fields, layout, position)
    return type(here)(layout, changes, place), position


def _common(layout: OrderLayout) -> dict[str, Any]:
    """Return what a stream is laid out over, as `_COMMON` names it."""
    lengths = [int(np.sum(each, dtype=np.int64)) for each in layout.lengths]
    return {
        "unit": layout.unit,
        "domains": list(layout.names),
        "seed": layout.seed,
        "sizes": list(layout.sizes),
        "limits": [-1 if limit is None else limit for limit in layout.limits],
        "stops": layout.stops,
        "lengths": lengths or [0] * len(layout.names),
    }


def _check_common(fields: StateFields, common: Mapping[str, Any]) -> None:
    """Check that a state is of this stream; what differs is named, of each domain if it can be."""
    names, differing = common["domains"], list[str]()
    for field, what in _COMMON.items():
        there, here = fields.get(field), common[field]
        if there == here:
            continue
        if not isinstance(there, list) or not isinstance(here, list):
            differing.append(f"{what}: {shown_value(there)}, here {shown_value(here)}")
        elif field == "domains":
            gone = [f"it has {shown_value(n)}, which is not here" for n in there if n not in here]
            new = [f"it does not have {name!r}" for name in here if name not in there]
            differing += gone + new or ["its domains have another order"]
            break
        else:
            pairs = zip_longest(names, there, here)
            differing += [
                f"{what} of {n!r}: {_shown(field, a)}, here {_shown(field, b)}"
                for n, a, b in pairs
                if a != b
            ]
    if differing:
        more = f"; {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        shown = "; ".join(differing[:_SHOWN])
        raise SamplerError(f"the sampler's state belongs to another stream: {shown}{more}")


def _shown(field: str, value: Any) -> str:
    return "no limit" if field == "limits" and value == -1 else shown_value(value)


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


def _changes(state: StateFields, layout: OrderLayout, position: int) -> list[ShareChange]:
    """Return the changes that a state has; they go forward, and the first holds there already."""
    changes, at = list[ShareChange](), -1
    for one in state.parts("changes"):
        at, window = _window(one, "position", at, MAX_POSITION if changes else position, layout)
        change = ShareChange.at(window, _shares(one, "shares", layout))
        if "end_position" in one.content:
            _, end = _window(one, "end_position", at, MAX_POSITION, layout)
            change = change._replace(end_window=end, end_shares=_shares(one, "end_shares", layout))
        changes.append(change)
    if not changes:
        state.refuse("changes", "without a mixture")
    return changes


def _shares(one: StateFields, name: str, layout: OrderLayout) -> tuple[int, ...]:
    shares, sizes = one.wholes(name, len(layout.sizes), 0, UNIT), layout.sizes
    is_drawn = all(rows or not share for share, rows in zip(shares, sizes, strict=True))
    if sum(shares) != UNIT or not is_drawn:
        one.refuse(name, f"not a mixture of domains with rows, in parts of {UNIT}")
    return tuple(shares)


def _window(
    one: StateFields, name: str, after: int, most: int, layout: OrderLayout
) -> tuple[int, int]:
    """Return a position after another one, and the window that begins there."""
    position = one.whole(name, after + 1, most)
    if position % layout.window_size:
        one.refuse(name, f"in the middle of a window of {layout.window_size}")
    return position, position // layout.window_size


def _written(change: ShareChange, size: int) -> dict[str, Any]:
    written = {"position": change.window * size, "shares": list(change.shares)}
    if change.end_window > change.window:
        written["end_position"] = change.end_window * size
        written["end_shares"] = list(change.end_shares)
    return written
