"""Check the arguments of a sampler: sizes, weights, limits, batch size.

Shapes: D domains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import MixtureError, SamplerError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.sampling.sample_order import Chunks
from mixopt.system import shown_value

Weights = Mapping[str, float] | Sequence[float] | NDArray[np.floating]
Sizes = Mapping[str, int] | Sequence[int] | NDArray[np.integer]
Policy = Literal["repeat", "redistribute", "stop"]
POLICIES = ("repeat", "redistribute", "stop")
MAX_ROWS = 1 << 53  # of a domain, and how often it may be drawn
MAX_BATCH = 1 << 24  # samples that are shuffled together
MOST_CHUNK = 1 << 31  # rows of a chunk, and chunks of a window


def named_sizes(sizes: Sizes) -> dict[str, int]:
    """Return rows by domain; domains without names are called by their numbers.

    Raises:
        SamplerError: No domain, or rows that are not a whole number >= 0.
    """
    pairs = sizes.items() if isinstance(sizes, Mapping) else enumerate(sizes)
    named = {str(name): _whole(f"domain {str(name)!r}", rows) for name, rows in pairs}
    if not named:
        raise SamplerError("a sampler needs at least one domain")
    return named


def mixture_over(weights: Weights, sizes: Mapping[str, int]) -> Mixture:
    """Return weights as a mixture in the order of `sizes`.

    Raises:
        MixtureError: A domain that is unknown or has no weight; weights that are negative, not
            finite, all 0, or do not add up to 1; a weight on a domain without rows.
    """
    if isinstance(weights, Mixture):
        given: Mapping[str, float] = dict(zip(weights.domains, weights.array.tolist(), strict=True))
    elif isinstance(weights, Mapping):
        given = weights
    elif len(weights) != len(sizes):
        raise MixtureError(f"{len(weights)} weights for {len(sizes)} domains")
    else:
        given = dict(zip(sizes, (float(w) for w in weights), strict=True))
    _check_names(given, sizes)
    if not any(given.values()):
        raise MixtureError("all weights are 0; at least one domain needs a weight")
    if isinstance(weights, Mixture) and weights.domains == tuple(sizes):
        mixture = weights
    else:
        mixture = Mixture({name: given[name] for name in sizes})
    for name, weight in given.items():
        if weight > 0 and sizes[name] == 0:
            raise MixtureError(f"domain {name!r} has weight {weight:.4g} and no rows; set it to 0")
    return mixture


def _check_names(given: Mapping[str, float], sizes: Mapping[str, int]) -> None:
    for name in given:
        if name not in sizes:
            raise MixtureError(f"unknown domain {name!r}{did_you_mean(name, sizes)}")
    for name in sizes:
        if name not in given:
            raise MixtureError(f"domain {name!r} has no weight; give it one, 0 is allowed")


def token_lengths(
    tokens_per_sample: Mapping[str, float] | None, sizes: Mapping[str, int]
) -> tuple[float, ...] | None:
    """Return mean tokens of a sample of each domain, or None where all are alike.

    Raises:
        SamplerError: A domain that is unknown or left out, or a number that is not > 0.
    """
    if tokens_per_sample is None:
        return None
    _check_keys("tokens_per_sample", tokens_per_sample, sizes)
    for name in sizes:
        if name not in tokens_per_sample:
            raise SamplerError(f"tokens_per_sample: domain {name!r} is left out")
        if not 0 < tokens_per_sample[name] < math.inf:
            raise SamplerError(
                f"tokens_per_sample: domain {name!r}: {tokens_per_sample[name]} is not > 0"
            )
    return tuple(float(tokens_per_sample[name]) for name in sizes)


def epoch_limits(
    max_epochs: float | Mapping[str, float] | None, exhausted: Policy, sizes: Mapping[str, int]
) -> tuple[float | None, ...]:
    """Return how many epochs of each domain may be drawn, None for no limit.

    Raises:
        SamplerError: An unknown domain, a number that is not > 0, or a limit that 'repeat' ignores.
    """
    if exhausted not in POLICIES:
        raise SamplerError(f"exhausted={exhausted!r}{did_you_mean(exhausted, POLICIES)}")
    if exhausted == "repeat":
        if max_epochs is not None:
            raise SamplerError(
                f"max_epochs={max_epochs} with exhausted='repeat': repeating has no limit; choose"
                " 'redistribute' or 'stop'"
            )
        return (None,) * len(sizes)
    limits = (
        max_epochs if isinstance(max_epochs, Mapping) else dict.fromkeys(sizes, max_epochs or 1)
    )
    _check_keys("max_epochs", limits, sizes)
    for name, epochs in limits.items():
        if not epochs > 0:
            raise SamplerError(f"max_epochs: domain {name!r}: {epochs} is not > 0")
    return tuple(float(limits[name]) if name in limits else None for name in sizes)


def rows_allowed(epochs: float | None, rows: int) -> int | None:
    """Return how often a domain may be drawn."""
    if epochs is None or math.isinf(epochs):
        return None
    return min(int(epochs * rows), MAX_ROWS)


def rank_batch(batch_size: int, world_size: int) -> int:
    """Return the samples of one rank in a global batch.

    Raises:
        SamplerError: The ranks do not divide the batch.
    """
    batch_size = _whole("batch_size", batch_size)
    if batch_size > MAX_BATCH:
        raise SamplerError(f"batch_size {batch_size}: at most {MAX_BATCH}")
    if batch_size < 1 or batch_size % world_size:
        down = batch_size - batch_size % world_size
        near = f"{down} or {down + world_size}" if down else str(world_size)
        raise SamplerError(
            f"batch_size {batch_size} is the global batch: {world_size} ranks do not divide it;"
            f" use {near}"
        )
    return batch_size // world_size


def row_chunks(chunks: tuple[int, int]) -> Chunks:
    """Check a two-level order of rows."""
    if len(chunks) != 2 or min(chunks) < 1:
        raise SamplerError(f"chunks {chunks}: two whole numbers >= 1, rows and chunks of a window")
    if max(chunks) > MOST_CHUNK:
        raise SamplerError(f"chunks {chunks}: at most {MOST_CHUNK} each")
    return Chunks(*chunks)


def at_least(least: int, what: str, value: int) -> int:
    """Return a whole number.

    Raises:
        SamplerError: It is not one, or below `least`.
    """
    if not isinstance(value, (int, np.integer)) or value < least:
        raise SamplerError(f"{what} {value!r} is not a whole number >= {least}")
    return int(value)


def _check_keys(field: str, given: Iterable[str], sizes: Mapping[str, int]) -> None:
    for name in given:
        if name not in sizes:
            raise SamplerError(f"{field}: unknown domain {name!r}{did_you_mean(name, sizes)}")


def _whole(what: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise SamplerError(f"{what}: {value!r} is not a whole number >= 0")
    if value > MAX_ROWS:
        raise SamplerError(f"{what}: {shown_value(int(value))} is more than {MAX_ROWS}")
    return int(value)
