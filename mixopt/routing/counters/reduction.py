"""Copy counts from the device to the host, summed over ranks and checked.

The host waits for the device here and nowhere else. All numbers travel as one vector of integers
and one of floats, checks included, so that every rank raises the same error or none.

Shapes: D domains, E experts, R = 2 * D + 2 rows of E + 4 places.
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
from mixopt.routing.counters.adapters import FoundRouter, check_ids
from mixopt.routing.counters.layer_counter import (
    BELOW,
    SUMS,
    WEIGHT_UNITS,
    LayerCounter,
)
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
    given = torch.tensor([int(c.weights is not None) for c in counters], device=device)
    weighs = _summed(given, group).tolist()
    known = torch.tensor([expected.batches, expected.interrupted, expected.tokens], device=device)
    pieces = [known]
    for counter, any_weights in zip(counters, weighs, strict=True):
        passes = counter.passes.to(device)
        due = expected.batches * (counter.router.runs or 0)
        wrong = (passes - due).abs() if counter.router.runs else torch.zeros_like(passes)
        pieces += [passes, wrong, counter.counts.to(device)]
        if any_weights:
            units = torch.zeros_like(counter.counts) if counter.weights is None else counter.weights
            pieces.append(units.to(device))
    whole = _summed(torch.cat(pieces), group).numpy()
    of_domains = (counter.domain_sums() for counter in counters)
    sums = [sums_DF.to(device).flatten() for sums_DF in of_domains if sums_DF is not None]
    parts = _summed(torch.cat(sums), group).numpy().astype(np.float64) if sums else None
    for counter in counters:
        counter.clear()
    return _split(counters, whole, parts, domains, weighs)


def check_first(counters: Sequence[LayerCounter]) -> None:
    """Check that one batch was counted once in every layer; waits for the device.

    Raises:
        RoutingError: It was not.
    """
    passes = torch.cat([counter.passes.to("cpu") for counter in counters]).tolist()
    for counter, ran in zip(counters, passes, strict=True):
        _check_passes(counter.router, ran, 1, 0)
    for counter in counters:
        counts_RE = counter.counts.cpu().numpy().reshape(-1, counter.choices)
        _check_counted_ids(counter.router, counts_RE)


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
    weighs: Sequence[int],
) -> Assignments:
    batches, interrupted, tokens = (int(number) for number in whole[:3])
    at, begin, layers = 3, 0, []
    for counter, any_weights in zip(counters, weighs, strict=True):
        ran, wrong = (int(number) for number in whole[at : at + 2])
        if wrong > interrupted * (counter.router.runs or 0):
            _check_passes(counter.router, ran, batches, wrong)
        cells = counter.counts.numel()
        counts_RE = whole[at + 2 : at + 2 + cells].reshape(-1, counter.choices)
        at += 2 + cells
        units_RE = np.zeros_like(counts_RE)
        if any_weights:
            units_RE = whole[at : at + cells].reshape(-1, counter.choices)
            at += cells
        known = counter.router.runs is not None and not interrupted
        _check_counts(counter, counts_RE, tokens if known else None, domains)
        width = len(domains) * (counter.router.experts + len(SUMS))
        sums = np.zeros(width) if parts is None else parts[begin : begin + width]
        begin += width
        layers.append(_layer(counter, counts_RE, units_RE, sums.reshape(len(domains), -1)))
    return Assignments(domains, tuple(layers))


def _layer(
    counter: LayerCounter, counts_RE: IntArray, units_RE: IntArray, sums_DF: Array
) -> LayerAssignments:
    experts, count = counter.router.experts, len(sums_DF)
    places_HDE = counts_RE[: 2 * count].reshape(2, count, -1)
    of_experts = slice(-BELOW, -BELOW + experts)
    weight_HDE = units_RE[: 2 * count].reshape(2, count, -1)[..., of_experts] / WEIGHT_UNITS
    return LayerAssignments(
        layer=counter.router.layer,
        router=counter.router.router,
        varies=counter.router.varies,
        top_k=counter.router.top_k,
        counts_HDE=places_HDE[..., of_experts].copy(),
        dropped_D=places_HDE[..., -BELOW + experts].sum(0),
        unused_D=places_HDE[..., -BELOW - 1].sum(0),
        weight_HDE=weight_HDE,
        probability_DE=sums_DF[:, :experts].copy(),
        entropy_D=sums_DF[:, experts].copy(),
        squared_logsumexp_D=sums_DF[:, experts + 1].copy(),
        chosen_D=sums_DF[:, experts + 2].copy(),
    )


def _check_passes(router: FoundRouter, ran: int, batches: int, wrong: int) -> None:
    due = batches * (router.runs or 1)
    if not wrong and (ran == due or (router.runs is None and ran)):
        return
    often = "once" if router.runs in {1, None} else f"{router.runs} times"
    message = (
        f"router {router.name!r} ran {ran} times in {batches} batches; it is counted {often} in"
        " each: "
    )
    if ran < due:
        raise RoutingError(
            message + "run the model inside `with stats.domains(...)`; code that was compiled"
            " before RouterStats.attach does not count (call torch.compiler.reset())"
        )
    raise RoutingError(
        message + "put one forward pass, and no backward pass, inside `with stats.domains(...)`; "
        "a router that runs more often declares it: RouterTap(runs=), "
        "RouterAdapter(runs=)"
    )


def _check_counted_ids(router: FoundRouter, counts_RE: IntArray) -> None:
    """Check that all ids but those of padding are of experts, dropped, or not used."""
    low, *_, dropped, high = (int(count) for count in counts_RE[:-2].sum(0))
    check_ids(router, low, dropped, high)


def _check_counts(
    counter: LayerCounter,
    counts_RE: IntArray,
    tokens: int | None,
    domains: tuple[str, ...],
) -> None:
    runs = counter.router.runs or 1
    unknown = int(counts_RE[-2].sum()) // (counter.router.top_k * runs)
    if unknown:
        raise RoutingError(
            f"{unknown} tokens have a domain id that is none of 0 to {len(domains) - 1}"
            f" ({', '.join(domains)}), or a mask that is neither 0 nor 1"
        )
    _check_counted_ids(counter.router, counts_RE)
    counted = int(counts_RE.sum())
    places = counter.router.top_k * runs
    if tokens is not None and counted != tokens * places:
        raise RoutingError(
            f"router {counter.router.name!r}: {counted} assignments of {tokens} tokens; each has"
            f" {places}"
        )
