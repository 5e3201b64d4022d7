"""Bring what was counted from the device to the host, summed over ranks and checked.

The host waits for the device here and nowhere else. All numbers travel as one vector of integers
and one of floats, checks included, so that every rank raises the same error or none.

Shapes: D domains, E experts, R = 2 * D + 2 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, distributed as dist

from mixopt.errors import RoutingError
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.routing.counters.layer_counter import LayerCounter
from mixopt.system import Array, IntArray

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass
class Expected:
    """What the host knows about the batches that were counted on the device.

    Attributes:
        batches: That were counted whole.
        interrupted: That an exception ended, and whose layers were counted in part.
        tokens: Of all of them, padding included.
    """

    batches: int = 0
    interrupted: int = 0
    tokens: int = 0


def ranks(group: ProcessGroup | None = None) -> int:
    """Return over how many ranks is summed; 1 where torch.distributed is not in use."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size(group)


def collect(
    counters: Sequence[LayerCounter],
    expected: Expected,
    domains: tuple[str, ...],
    group: ProcessGroup | None,
) -> Assignments:
    """Return what all ranks have counted, and begin again from nothing.

    Raises:
        RoutingError: A router was not counted once for each batch, or a domain is unknown.
    """
    device = counters[0].counts.device
    known = torch.tensor([expected.batches, expected.interrupted, expected.tokens], device=device)
    pieces = [known]
    for counter in counters:
        passes = counter.passes.to(device)
        pieces += [passes, (passes - expected.batches).abs(), counter.counts.to(device)]
    whole = _summed(torch.cat(pieces), group).numpy()
    sums = [
        counter.sums_DF.to(device).flatten() for counter in counters if counter.sums_DF is not None
    ]
    parts = _summed(torch.cat(sums), group).numpy().astype(np.float64) if sums else None
    for counter in counters:
        counter.clear()
    return _split(counters, whole, parts, domains)


def check_first(counters: Sequence[LayerCounter]) -> None:
    """Check that one batch was counted once in every layer; waits for the device.

    Raises:
        RoutingError: It was not.
    """
    passes = torch.cat([counter.passes.to("cpu") for counter in counters]).tolist()
    for counter, ran in zip(counters, passes, strict=True):
        _check_passes(counter.router.name, ran, 1, 0)


def _summed(vector: Tensor, group: ProcessGroup | None) -> Tensor:
    if ranks(group) > 1:
        vector = vector.double() if vector.is_floating_point() else vector
        dist.all_reduce(vector, group=group)
    return vector.cpu()


def _split(
    counters: Sequence[LayerCounter],
    whole: IntArray,
    parts: Array | None,
    domains: tuple[str, ...],
) -> Assignments:
    batches, interrupted, tokens = (int(number) for number in whole[:3])
    at, begin, layers = 3, 0, []
    for counter in counters:
        ran, wrong = (int(number) for number in whole[at : at + 2])
        if wrong > interrupted:
            _check_passes(counter.router.name, ran, batches, wrong)
        cells = counter.counts.numel()
        counts_RE = whole[at + 2 : at + 2 + cells].reshape(-1, counter.choices)
        at += 2 + cells
        _check_counts(counter, counts_RE, tokens if not interrupted else None, domains)
        width = len(domains) * (counter.choices + 2)
        sums = np.zeros(width) if parts is None else parts[begin : begin + width]
        begin += width
        layers.append(_layer(counter, counts_RE, sums.reshape(len(domains), -1)))
    return Assignments(domains, tuple(layers))


def _layer(counter: LayerCounter, counts_RE: IntArray, sums_DF: Array) -> LayerAssignments:
    experts, count = counter.router.experts, len(sums_DF)
    counts_HDE = counts_RE[: 2 * count].reshape(2, count, -1)
    return LayerAssignments(
        layer=counter.router.layer,
        router=counter.router.router,
        top_k=counter.router.top_k,
        counts_HDE=counts_HDE[..., :experts].copy(),
        dropped_D=counts_HDE[..., experts].sum(0),
        probability_DE=sums_DF[:, :experts].copy(),
        entropy_D=sums_DF[:, experts].copy(),
        squared_logsumexp_D=sums_DF[:, experts + 1].copy(),
        chosen_D=sums_DF[:, experts + 2].copy(),
    )


def _check_passes(name: str, ran: int, batches: int, wrong: int) -> None:
    if ran == batches and not wrong:
        return
    message = f"router {name!r} ran {ran} times in {batches} batches; it is counted once in each: "
    if ran < batches:
        raise RoutingError(
            message + "run the model inside `with stats.domains(...)`; code that was compiled"
            " before RouterStats.attach does not count (call torch.compiler.reset())"
        )
    raise RoutingError(
        message + "put one forward pass, and no backward pass, inside `with stats.domains(...)`"
    )


def _check_counts(
    counter: LayerCounter,
    counts_RE: IntArray,
    tokens: int | None,
    domains: tuple[str, ...],
) -> None:
    unknown = int(counts_RE[-2].sum()) // counter.router.top_k
    if unknown:
        raise RoutingError(
            f"{unknown} tokens have a domain id that is none of 0 to {len(domains) - 1}"
            f" ({', '.join(domains)})"
        )
    counted = int(counts_RE.sum())
    if tokens is not None and counted != tokens * counter.router.top_k:
        raise RoutingError(
            f"router {counter.router.name!r}: {counted} assignments of {tokens} tokens; each has"
            f" {counter.router.top_k}"
        )
