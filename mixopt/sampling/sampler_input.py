"""Check the arguments of a sampler: sizes, weights, limits, batch size, lengths, schedule.

Shapes: D domains.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixopt.errors import MixtureError, SamplerError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.sampling.order import Unit
from mixopt.system import IntArray, shown_value

Weights = Mapping[str, float] | Sequence[float] | NDArray[np.floating]
Sizes = Mapping[str, int] | Sequence[int] | NDArray[np.integer]
Lengths = Mapping[str, "int | ArrayLike"]
Scheduled = tuple[int, Weights] | tuple[int, Weights, int, Weights]
Policy = Literal["redistribute", "stop"]
POLICIES = ("redistribute", "stop")
UNITS: tuple[Unit, ...] = ("samples", "tokens", "supervised")
MAX_DOMAINS = 1 << 13
MAX_ROWS = 1 << 53  # rows of a domain, and draws from it
MAX_BATCH = 1 << 24
MAX_LENGTH = 1 << 40  # tokens of a sample


def named_sizes(sizes: Sizes) -> dict[str, int]:
    """Return rows by domain; domains without names are named by number."""
    pairs = sizes.items() if isinstance(sizes, Mapping) else enumerate(sizes)
    rows_by_domain = {str(name): at_least(0, f"domain {str(name)!r}", rows) for name, rows in pairs}
    if not 0 < len(rows_by_domain) <= MAX_DOMAINS:
        raise SamplerError(f"{len(rows_by_domain)} domains; a sampler takes 1 to {MAX_DOMAINS}")
    return rows_by_domain


def mixture_over(weights: Weights, sizes: Mapping[str, int]) -> Mixture:
    """Return weights as a mixture in the order of `sizes`."""
    domains, values = tuple(sizes), weights
    for name in values if isinstance(values, Mapping) else ():
        if name not in sizes:
            raise MixtureError(f"unknown domain {name!r}{did_you_mean(name, sizes)}")
    if len(values) and not any(values.values() if isinstance(values, Mapping) else values):
        raise MixtureError("all weights are 0; at least one domain needs a weight")
    if not isinstance(values, Mapping):
        values = Mixture.from_array(domains, [float(weight) for weight in values])
    mixture = values if isinstance(values, Mixture) else Mixture(values)
    if mixture.domains != domains:
        mixture = mixture.over(domains)
    for name, weight in mixture.items():
        if weight > 0 and sizes[name] == 0:
            raise MixtureError(f"domain {name!r} has weight {weight:.4g} and no rows; set it to 0")
    return mixture


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
    limits = [epochs.get(name, math.inf) * max(rows, 1) for name, rows in sizes.items()]
    return tuple(None if math.isinf(limit) else min(int(limit), MAX_ROWS) for limit in limits)


def rank_batch(batch_size: int, world_size: int) -> int:
    """Return the samples of one rank in a global batch."""
    batch_size = at_least(1, "batch_size", batch_size, MAX_BATCH)
    if batch_size % world_size:
        down = batch_size - batch_size % world_size
        near = f"{down} or {down + world_size}" if down else str(world_size)
        raise SamplerError(
            f"batch_size {batch_size} is the global batch: {world_size} ranks do not divide it;"
            f" use {near}"
        )
    return batch_size // world_size


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


def scheduled_mixtures(
    entries: Sequence[Scheduled], sizes: Mapping[str, int]
) -> Iterator[tuple[int, Mixture, int, Mixture]]:
    """Yield the first weights and the checked schedule; constant weights end where they begin."""
    for k, entry in enumerate(entries, start=-1):
        if not isinstance(entry, Sequence) or len(entry) not in (2, 4):
            raise SamplerError(
                f"schedule.{k}: {shown_value(entry)} is neither (batch, weights) nor (batch,"
                " weights, end_batch, end_weights)"
            )
        batch, first = at_least(0, "schedule: batch", entry[0]), mixture_over(entry[1], sizes)
        if len(entry) == 2:
            yield batch, first, batch, first
        else:
            end = at_least(batch + 1, "schedule: end_batch", entry[2])
            yield batch, first, end, mixture_over(entry[3], sizes)


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
    where, array = f"lengths: domain {name!r}", np.asarray(value)
    if not array.ndim:
        return at_least(min(rows, 1), where, value, MAX_LENGTH)
    if array.shape != (rows,):
        raise SamplerError(f"{where}: an array of shape {array.shape} for {rows} rows")
    if not rows:
        return array
    if array.dtype.kind not in "iu":
        raise SamplerError(f"{where}: values of type {array.dtype} are not whole numbers")
    if array.min() < 0 or array.max() > MAX_LENGTH:
        row = int(array.argmin() if array.min() < 0 else array.argmax())
        raise SamplerError(f"{where}: row {row}: {array[row]} is not from 0 to {MAX_LENGTH}")
    if not array.any():
        raise SamplerError(f"{where}: no row has a token; leave the domain out")
    return array
