"""Save and restore the state of a sampler: small, global, plain numbers.

The state is a place in the order (samples drawn from each domain and owed to it), the layout of
the order, and recent and scheduled weights. It does not depend on ranks or workers.

Shapes: D domains.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.sampling.order import UNIT, OrderLayout, Place, SampleOrder, ShareChange
from mixopt.sampling.sampler_input import MAX_BATCH, MAX_LENGTH, MAX_ROWS
from mixopt.system import StateFields, shown_value

FORMAT = "mixopt-sampler/5"
MAX_POSITION = 1 << 53
_MAX_OWED = UNIT << 10  # samples of one domain; an order never owes more than a few
_MAX_TOKENS_OWED = MAX_LENGTH * UNIT << 20
_MAX_DIFFERENCES = 8  # in a message
_MAX_PAST_CHANGES = 64  # in a state
# Settings of each domain, and their names in messages.
_OF_DOMAINS = {"sizes": "rows", "limits": "rows allowed by max_epochs", "lengths": "sum of lengths"}


def write_state(order: SampleOrder, place: Place, position: int) -> dict[str, Any]:
    """Return the JSON state at a sample of the window that begins at `place`."""
    layout, size = order.layout, order.layout.window_size
    past = [change for change in order.changes if change.window <= place.window]
    coming = [change for change in order.changes if change.window > place.window]
    exhausted = {d: window * size for window, d in place.ended}
    return {
        "format": FORMAT,
        "position": position,
        "window": size,
        **_common(layout),
        "counts": place.counts_D.tolist(),
        "owed": place.owed_D.tolist(),
        "had": place.had_D.tolist(),
        "exhausted": [exhausted.get(d, -1) for d in range(len(layout.names))],
        "changes": [_to_json(change, size) for change in [*past[-_MAX_PAST_CHANGES:], *coming]],
    }


def read_state(state: Mapping[str, Any], current: SampleOrder) -> tuple[SampleOrder, int]:
    """Check a state against the resuming order; return an order from it, and the position."""
    fields = StateFields(state, "the sampler's state", SamplerError)
    fields.check_format(FORMAT)
    _check_common(fields, _common(current.layout))
    layout = current.layout._replace(window_size=fields.whole("window", 1, MAX_BATCH))
    position = fields.whole("position", 0, MAX_POSITION)
    place = _place(fields, layout, position)
    changes = _changes(fields, layout, position)
    return type(current)(layout, changes, place), position


def _common(layout: OrderLayout) -> dict[str, Any]:
    """Return the settings that a state shares with the stream that resumes from it."""
    lengths = [int(np.sum(lengths, dtype=np.int64)) for lengths in layout.lengths]
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
    """Check that a state belongs to this stream; name all differences, by domain if possible."""
    domains = fields.texts("domains")
    recorded = {
        name: fields.listed(name, len(domains)) if name in _OF_DOMAINS else fields.get(name)
        for name in common
    }
    theirs, ours = _named(recorded), _named(common)
    differing = [
        f"{label}: {shown_value(theirs.get(label, 'absent'))},"
        f" here {shown_value(ours.get(label, 'absent'))}"
        for label in theirs | ours
        if theirs.get(label) != ours.get(label)
    ]
    if not differing and domains != common["domains"]:
        differing = ["its domains have another order"]
    if differing:
        listed = "; ".join(differing[:_MAX_DIFFERENCES])
        hidden = len(differing) - _MAX_DIFFERENCES
        more = f"; {hidden} more" if hidden > 0 else ""
        raise SamplerError(f"the sampler's state belongs to another stream: {listed}{more}")


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their names in messages."""
    named = {"unit": settings["unit"], "seed": settings["seed"]}
    named["exhausted='stop'"] = settings["stops"]
    for name, label in _OF_DOMAINS.items():
        for domain, value in zip(settings["domains"], settings[name], strict=True):
            named[f"{label} of {domain!r}"] = "no limit" if value == -1 else value
    return named


def _place(state: StateFields, layout: OrderLayout, position: int) -> Place:
    domains, size, in_samples = len(layout.names), layout.window_size, layout.unit == "samples"
    counts = state.wholes("counts", domains, 0, MAX_ROWS)
    if sum(counts) > position:
        state.refuse("counts", f"more than the {position} samples before it")
    max_debt = _MAX_OWED if in_samples else _MAX_TOKENS_OWED
    owed = state.wholes("owed", domains, -max_debt, max_debt)
    had = state.wholes("had", domains, 0, 1 << 62)
    exhausted = enumerate(state.wholes("exhausted", domains, -1, position))
    return Place(
        position // size,
        np.array(counts, np.int64),
        np.array(owed, np.int64 if in_samples else object),
        np.array(had, np.int64),
        tuple(sorted((at // size, d) for d, at in exhausted if at >= 0)),
    )


def _changes(state: StateFields, layout: OrderLayout, position: int) -> list[ShareChange]:
    """Return the changes of a state, in order; the first is not after the state's position."""
    changes, at = list[ShareChange](), -1
    for part in state.parts("changes"):
        at, window = _window(part, "position", at, MAX_POSITION if changes else position, layout)
        change = ShareChange.at(window, _shares(part, "shares", layout))
        if "end_position" in part.content:
            _, end = _window(part, "end_position", at, MAX_POSITION, layout)
            change = change._replace(end_window=end, end_shares=_shares(part, "end_shares", layout))
        changes.append(change)
    if not changes:
        state.refuse("changes", "without a mixture")
    return changes


def _shares(part: StateFields, name: str, layout: OrderLayout) -> tuple[int, ...]:
    shares, sizes = part.wholes(name, len(layout.sizes), 0, UNIT), layout.sizes
    is_drawn = all(rows or not share for share, rows in zip(shares, sizes, strict=True))
    if sum(shares) != UNIT or not is_drawn:
        part.refuse(name, f"not a mixture of domains with rows, in parts of {UNIT}")
    return tuple(shares)


def _window(
    part: StateFields, name: str, after: int, last: int, layout: OrderLayout
) -> tuple[int, int]:
    """Return a position > `after`, and the window that begins there."""
    position = part.whole(name, after + 1, last)
    if position % layout.window_size:
        part.refuse(name, f"in the middle of a window of {layout.window_size}")
    return position, position // layout.window_size


def _to_json(change: ShareChange, size: int) -> dict[str, Any]:
    content = {"position": change.window * size, "shares": list(change.shares)}
    if change.end_window > change.window:
        content["end_position"] = change.end_window * size
        content["end_shares"] = list(change.end_shares)
    return content
