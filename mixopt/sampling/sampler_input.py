"""Check the arguments of a sampler (sizes, weights, limits, lengths, schedule) and its state.

A state is a place in the order (samples drawn from each domain and owed to it), the layout of the
order, and recent and scheduled weights: plain numbers, independent of ranks and workers.

Shapes: D domains.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.errors import MixtureError, SamplerError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.sampling.order import Exhaustion, OrderLayout, Place, SampleOrder, Unit
from mixopt.sampling.shares import UNIT, ShareChange, Shares
from mixopt.system import IntArray, PlainDict, PlainMapping, StateFields, int_array, shown_value

Weights = Mapping[str, float] | Sequence[float] | NDArray[np.floating]
Sizes = Mapping[str, int] | Sequence[int] | NDArray[np.integer]
Lengths = Mapping[str, "int | ArrayLike"]
Scheduled = tuple[int, Weights] | tuple[int, Weights, int, Weights]
Policy = Literal["redistribute", "stop"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
UNITS: tuple[Unit, ...] = get_args(Unit)
FORMAT = "mixopt-sampler/5"
MAX_DOMAINS = 1 << 13
MAX_ROWS = 1 << 53  # rows of a domain, draws from it, and positions
MAX_BATCH = 1 << 24  # samples
MAX_LENGTH = 1 << 40  # tokens of a sample
_MAX_HAD = 1 << 62  # samples or tokens drawn from a domain
_MAX_OWED = UNIT << 10  # samples of one domain; an order never owes more than a few
_MAX_TOKENS_OWED = MAX_LENGTH * UNIT << 20
_MAX_DIFFERENCES = 8  # in a message
_MAX_PAST_CHANGES = 64  # in a state
# Settings of each domain, and their names in messages.
_LIMITS_LABEL = "rows allowed by max_epochs"
_DOMAIN_LABELS = {"sizes": "rows", "limits": _LIMITS_LABEL, "lengths": "sum of lengths"}


def named_sizes(sizes: Sizes) -> dict[str, int]:
    """Return rows by domain; domains without names are named by number."""
    rows_by_domain: dict[str, int] = {}
    pairs: Iterable[tuple[Any, Any]]
    pairs = sizes.items() if isinstance(sizes, Mapping) else enumerate(sizes)
    for key, rows in pairs:
        name = str(key)
        rows_by_domain[name] = at_least(0, f"domain {name!r}", rows)
    if not 0 < len(rows_by_domain) <= MAX_DOMAINS:
        raise SamplerError(f"{len(rows_by_domain)} domains; a sampler takes 1 to {MAX_DOMAINS}")
    return rows_by_domain


def mixture_over(weights: Weights, sizes: Mapping[str, int]) -> Mixture:
    """Return weights as a mixture in the order of `sizes`."""
    domains = tuple(sizes)
    if isinstance(weights, Mapping):
        for name in weights:
            if name not in sizes:
                raise MixtureError(f"unknown domain {name!r}{did_you_mean(name, sizes)}")
        _check_not_all_zero(weights.values())
        mixture = weights if isinstance(weights, Mixture) else Mixture(weights)
    else:
        _check_not_all_zero(weights)
        mixture = Mixture.from_array(domains, [float(weight) for weight in weights])
    if mixture.domains != domains:
        mixture = mixture.over(domains)
    for name, weight in mixture.items():
        if weight > 0 and sizes[name] == 0:
            raise MixtureError(f"domain {name!r} has weight {weight:.4g} and no rows; set it to 0")
    return mixture


def _check_not_all_zero(weights: Collection[float] | NDArray[np.floating]) -> None:
    if len(weights) and not any(weights):
        raise MixtureError("all weights are 0; at least one domain needs a weight")


def rows_allowed(
    max_epochs: float | Mapping[str, float] | None,
    exhausted: Policy | None,
    sizes: Mapping[str, int],
) -> tuple[int | None, ...]:
    """Return the maximum number of draws of each domain; None: no limit."""
    if exhausted is not None and exhausted not in POLICIES:
        raise SamplerError(f"exhausted={exhausted!r}{did_you_mean(exhausted, POLICIES)}")
    if max_epochs is None:
        max_epochs = math.inf if exhausted is None else 1
    epochs = max_epochs if isinstance(max_epochs, Mapping) else dict.fromkeys(sizes, max_epochs)
    _check_keys("max_epochs", epochs, sizes)
    for name, epoch_limit in epochs.items():
        if not epoch_limit > 0:
            raise SamplerError(f"max_epochs: domain {name!r}: {epoch_limit} is not > 0")
    return tuple(_row_limit(epochs.get(name, math.inf), rows) for name, rows in sizes.items())


def _row_limit(epochs: float, rows: int) -> int | None:
    limit = epochs * max(rows, 1)
    return None if math.isinf(limit) else min(int(limit), MAX_ROWS)


def sample_lengths(
    unit: str, lengths: Lengths | None, sizes: Mapping[str, int]
) -> tuple[int | IntArray, ...]:
    """Return the lengths of each domain's samples; () for unit 'samples'."""
    if unit not in UNITS:
        raise SamplerError(f"unit={unit!r}{did_you_mean(unit, UNITS)}")
    if unit == "samples":
        if lengths is not None:
            raise SamplerError(
                "lengths are given, but unit='samples' does not use them: set unit='tokens'"
            )
        return ()
    by_domain = dict(lengths or {})
    _check_keys("lengths", by_domain, sizes)
    for name, rows in sizes.items():
        if name not in by_domain and rows:
            raise SamplerError(
                f"lengths: domain {name!r} is missing; unit={unit!r} takes the length of each"
                " sample, such as dataset.lengths()"
            )
    return tuple(_lengths(name, by_domain.get(name, 1), rows) for name, rows in sizes.items())


class ScheduledMixture(NamedTuple):
    """A checked entry of a schedule; a constant mixture ends with the batch where it begins."""

    batch: int
    mixture: Mixture
    end_batch: int
    end_mixture: Mixture


def scheduled_mixtures(
    entries: Sequence[Scheduled], sizes: Mapping[str, int]
) -> Iterator[ScheduledMixture]:
    """Yield the first weights and the schedule, checked."""
    for k, entry in enumerate(entries, start=-1):
        if not isinstance(entry, Sequence) or len(entry) not in (2, 4):
            raise SamplerError(
                f"schedule.{k}: {shown_value(entry)} is neither (batch, weights) nor (batch,"
                " weights, end_batch, end_weights)"
            )
        batch = at_least(0, "schedule: batch", entry[0])
        mixture = mixture_over(entry[1], sizes)
        if len(entry) == 2:
            yield ScheduledMixture(batch, mixture, batch, mixture)
        else:
            end_batch = at_least(batch + 1, "schedule: end_batch", entry[2])
            yield ScheduledMixture(batch, mixture, end_batch, mixture_over(entry[3], sizes))


def at_least(minimum: int, name: str, value: Any, maximum: int = MAX_ROWS) -> int:
    """Return a whole number in a range."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or not minimum <= value <= maximum:
        text = shown_value(value)
        raise SamplerError(f"{name}: {text} is not a whole number from {minimum} to {maximum}")
    return int(value)


def _check_keys(field: str, names: Iterable[str], sizes: Mapping[str, int]) -> None:
    for name in names:
        if name not in sizes:
            raise SamplerError(f"{field}: unknown domain {name!r}{did_you_mean(name, sizes)}")


def _lengths(name: str, value: Any, rows: int) -> int | IntArray:
    where = f"lengths: domain {name!r}"
    array = np.asarray(value)
    if not array.ndim:
        return at_least(min(rows, 1), where, value, MAX_LENGTH)
    if array.shape != (rows,):
        raise SamplerError(f"{where}: an array of shape {array.shape} for {rows} rows")
    if not rows:
        return array
    if array.dtype.kind not in "iu":
        raise SamplerError(f"{where}: values of type {array.dtype} are not whole numbers")
    if array.min() < 0 or array.max() > MAX_LENGTH:
        worst = array.argmin() if array.min() < 0 else array.argmax()
        row = int(worst)
        raise SamplerError(f"{where}: row {row}: {array[row]} is not from 0 to {MAX_LENGTH}")
    if not array.any():
        raise SamplerError(f"{where}: no row has a token; leave the domain out")
    return array


def write_state(order: SampleOrder, place: Place, position: int) -> PlainDict:
    """Return the JSON state at a sample of the window that begins at `place`."""
    layout = order.layout
    size = layout.window_size
    past = [change for change in order.changes if change.window <= place.window]
    coming = [change for change in order.changes if change.window > place.window]
    changes = past[-_MAX_PAST_CHANGES:] + coming
    exhausted = [-1] * len(layout.names)
    for window, domain in place.exhausted:
        exhausted[domain] = window * size
    return {
        "format": FORMAT,
        "position": position,
        "window": size,
        **_common(layout),
        "counts": place.counts_D.tolist(),
        "owed": place.owed_D.tolist(),
        "had": place.had_D.tolist(),
        "exhausted": exhausted,
        "changes": [_to_json(change, size) for change in changes],
    }


def read_state(state: PlainMapping, current: SampleOrder) -> tuple[SampleOrder, int]:
    """Check a state against the resuming order; return an order from it, and the position."""
    fields = StateFields(state, "the sampler's state", SamplerError)
    fields.check_format(FORMAT)
    _check_common(fields, _common(current.layout))
    layout = current.layout._replace(window_size=fields.whole("window", 1, MAX_BATCH))
    position = fields.whole("position", 0, MAX_ROWS)
    place = _place(fields, layout, position)
    changes = _changes(fields, layout, position)
    return type(current)(layout, changes, place), position


def _common(layout: OrderLayout) -> PlainDict:
    """Return the settings that a state shares with the stream that resumes from it."""
    lengths = [int(np.sum(lengths, dtype=np.int64)) for lengths in layout.lengths]
    return {
        "unit": layout.unit,
        "domains": list(layout.names),
        "seed": layout.seed,
        "sizes": list(layout.sizes),
        "limits": layout.limits_or(-1),
        "stops": layout.stops,
        "lengths": lengths or [0] * len(layout.names),
    }


def _check_common(fields: StateFields, common: PlainMapping) -> None:
    """Check that a state belongs to this stream; name all differences, by domain if possible."""
    domains = fields.texts("domains")
    expected_domains = common["domains"]
    recorded: PlainDict = {}
    for name in common:
        if name in _DOMAIN_LABELS:
            recorded[name] = fields.listed(name, len(domains))
        else:
            recorded[name] = fields.get(name)
    added = [name for name in domains if name not in expected_domains]
    missing = [name for name in expected_domains if name not in domains]
    differences = [f"it has {shown_value(name)}, which is not here" for name in added]
    differences += [f"it does not have {name!r}" for name in missing]
    differences += _setting_differences(_by_label(recorded), _by_label(common))
    if not differences and domains != expected_domains:
        differences = ["its domains have another order"]
    if differences:
        listed = "; ".join(differences[:_MAX_DIFFERENCES])
        hidden = len(differences) - _MAX_DIFFERENCES
        more = f"; {hidden} more" if hidden > 0 else ""
        raise SamplerError(f"the sampler's state belongs to another stream: {listed}{more}")


def _by_label(settings: PlainMapping) -> PlainDict:
    """Return settings by their names in messages."""
    by_label = {"unit": settings["unit"], "seed": settings["seed"]}
    by_label["exhausted='stop'"] = settings["stops"]
    for name, label in _DOMAIN_LABELS.items():
        for domain, value in zip(settings["domains"], settings[name], strict=True):
            by_label[f"{label} of {domain!r}"] = value
    return by_label


def _setting_differences(recorded: PlainMapping, expected: PlainMapping) -> list[str]:
    differences: list[str] = []
    for label, value in expected.items():
        if label in recorded and recorded[label] != value:
            shown = _shown_setting(label, recorded[label])
            differences.append(f"{label}: {shown}, here {_shown_setting(label, value)}")
    return differences


def _shown_setting(label: str, value: Any) -> str:
    is_endless = value == -1 and label.startswith(_LIMITS_LABEL)
    return "no limit" if is_endless else shown_value(value)


def _place(state: StateFields, layout: OrderLayout, position: int) -> Place:
    domains = len(layout.names)
    counts = state.wholes("counts", domains, 0, MAX_ROWS)
    if sum(counts) > position:
        state.refuse("counts", f"more than the {position} samples before it")
    max_debt = _MAX_OWED if layout.unit == "samples" else _MAX_TOKENS_OWED
    owed = state.wholes("owed", domains, -max_debt, max_debt)
    had = state.wholes("had", domains, 0, _MAX_HAD)
    exhausted: list[Exhaustion] = []
    for d, end_position in enumerate(state.wholes("exhausted", domains, -1, position)):
        if end_position >= 0:
            exhausted.append(Exhaustion(end_position // layout.window_size, d))
    return Place(
        window=position // layout.window_size,
        counts_D=int_array(counts),
        owed_D=np.array(owed, layout.debt_type),
        had_D=int_array(had),
        exhausted=tuple(sorted(exhausted)),
    )


def _changes(state: StateFields, layout: OrderLayout, position: int) -> list[ShareChange]:
    """Return the changes of a state, in order; the first is not after the state's position."""
    size = layout.window_size
    changes: list[ShareChange] = []
    start = -1
    for part in state.parts("changes"):
        last = MAX_ROWS if changes else position
        start = _window_start(part, "position", start + 1, last, size)
        change = ShareChange.at(start // size, _shares(part, "shares", layout))
        if "end_position" in part.content:
            end = _window_start(part, "end_position", start + 1, MAX_ROWS, size)
            end_shares = _shares(part, "end_shares", layout)
            change = change._replace(end_window=end // size, end_shares=end_shares)
        changes.append(change)
    if not changes:
        state.refuse("changes", "without a mixture")
    return changes


def _shares(part: StateFields, name: str, layout: OrderLayout) -> Shares:
    shares = part.wholes(name, len(layout.sizes), 0, UNIT)
    is_drawn = all(rows or not share for share, rows in zip(shares, layout.sizes, strict=True))
    if sum(shares) != UNIT or not is_drawn:
        part.refuse(name, f"not a mixture of domains with rows, in parts of {UNIT}")
    return tuple(shares)


def _window_start(part: StateFields, name: str, first: int, last: int, window_size: int) -> int:
    """Return a position from `first` to `last` at which a window begins."""
    position = part.whole(name, first, last)
    if position % window_size:
        part.refuse(name, f"in the middle of a window of {window_size}")
    return position


def _to_json(change: ShareChange, size: int) -> PlainDict:
    content = {"position": change.window * size, "shares": list(change.shares)}
    if change.end_window > change.window:
        content["end_position"] = change.end_window * size
        content["end_shares"] = list(change.end_shares)
    return content
