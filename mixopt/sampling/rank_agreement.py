"""Check that all ranks of a job take their batches from one order of samples.

`set_weights` on one rank alone, or another seed there, gives ranks whose parts overlap, and nothing
about training shows it. So a hash of all that the order follows from is compared: by the iterators
of sampler, loader and stream now and then (mixopt.sampling.order_posts), and by a collective
whenever a checkpoint is written, which costs 16 bytes of each rank. Where hashes differ, the states
themselves are, and the error, on every rank, names the ranks that differ and in what.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections import Counter
from typing import Any, Protocol

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.order_posts import OrderPosts
from mixopt.sampling.process_rank import distributed

_CHANGES_TOLD = 20  # of the weights, the last ones, in what is posted


class OrderedSamples(Protocol):
    """What is compared: a MixtureSampler."""

    rank: int
    world_size: int
    batch_size: int
    posts: OrderPosts

    @property
    def batch(self) -> int:
        """The next global batch that the loop receives."""
        ...

    def mixture_at(self, batch: int) -> Mixture:
        """Return the mixture that was set for a batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state before the next batch."""
        ...


def order_fingerprint(sampler: OrderedSamples) -> str:
    """Return a hash of all that the order of samples from the next batch on follows from."""
    return _digest(_order(sampler)).hex()


def check_ranks(sampler: OrderedSamples, group: Any = None) -> None:
    """Check that all ranks have one order of samples; every rank of the group calls it.

    Without torch.distributed, or where the group is one rank, there is nothing to check.

    Args:
        sampler: This rank's MixtureSampler.
        group: The process group over which its batches are split; all ranks where not given.

    Raises:
        SamplerError: On every rank: which rank differs, and in what.
    """
    job = distributed()
    if job is None or job.get_world_size(group) == 1:
        return
    order = _order(sampler)
    number = int.from_bytes(_digest(order), "little", signed=True)
    found = _gathered(job, group, [number, sampler.rank])
    if len({number for number, _ in found}) > 1:
        orders: list[Any] = [None] * len(found)
        job.all_gather_object(orders, _told(sampler, order), group=group)
        raise SamplerError(_difference(orders))
    _check_parts([rank for _, rank in found], sampler.world_size)


def check_now_and_then(sampler: OrderedSamples) -> None:
    """Check the ranks where that is due after a batch, for an iterator that hands batches out.

    It is not a collective operation, so one rank may iterate alone. Nothing is checked where
    another thread or a worker process iterates, or where batches are not split over just the ranks
    of this job.

    Raises:
        SamplerError: On every rank: which rank differs, and in what; or that nothing was given of
            ranks where processes share a replica of the model.
    """
    if sampler.world_size == 1:
        return
    sampler.posts.check_part()
    if not sampler.posts.is_due or not _is_own_loop():
        return
    job = distributed()
    if job is None or not sampler.posts.takes_in(job):
        return
    order = _order_until_now(sampler)
    told = _told(sampler, {**order, "changes": order["changes"][-_CHANGES_TOLD:]})
    orders = sampler.posts.difference(job, _digest(order).hex(), told)
    if orders is not None:
        raise SamplerError(_difference(orders))


def _order(sampler: OrderedSamples) -> dict[str, Any]:
    sizes = {"batch_size": sampler.batch_size, "world_size": sampler.world_size}
    return {**sizes, **sampler.state_dict()}


def _order_until_now(sampler: OrderedSamples) -> dict[str, Any]:
    """Leave out weights to come: a rank may hear of them some batches after another."""
    order = _order(sampler)
    now = [change for change in order["changes"] if change[0] <= order["position"]]
    return {**order, "changes": now, "schedule": None}


def _told(sampler: OrderedSamples, order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "mixture": dict(sampler.mixture_at(sampler.batch))}


def _digest(order: dict[str, Any]) -> bytes:
    text = json.dumps(order, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _check_parts(parts: list[int], world_size: int) -> None:
    """Check that each part of a batch is taken, by equally many ranks: those of one replica."""
    taken = Counter(parts)
    if len(parts) == world_size > len(taken):
        twice = next(k for k, part in enumerate(parts) if part in parts[:k])
        raise SamplerError(
            f"rank {twice} takes the same part of each batch as another: it was made with"
            f" rank={parts[twice]} of world_size={world_size}; give each rank its own"
        )
    if len({taken[part] for part in range(world_size)}) > 1:
        times = ", ".join(f"{taken[part]}x rank={part}" for part in range(world_size)[:8])
        raise SamplerError(
            f"{len(parts)} processes take the {world_size} parts of each batch unequally: {times};"
            " give each its rank along data parallelism, MixtureSampler(mesh=)"
        )


def _is_own_loop() -> bool:
    """Whether this is the thread and the process in which a rank's collectives are."""
    workers: Any = sys.modules.get("torch.utils.data")
    in_worker = workers is not None and workers.get_worker_info() is not None
    return not in_worker and threading.current_thread() is threading.main_thread()


def _gathered(job: Any, group: Any, values: list[int]) -> list[tuple[int, int]]:
    torch: Any = sys.modules["torch"]
    on_gpu = "cpu:" not in job.get_backend_config(group) and torch.cuda.is_available()
    mine = torch.tensor(values, dtype=torch.int64, device="cuda" if on_gpu else "cpu")
    every = [torch.empty_like(mine) for _ in range(job.get_world_size(group))]
    job.all_gather(every, mine, group=group)
    return [(int(number), int(rank)) for number, rank in (one.tolist() for one in every)]


def _difference(found: list[dict[str, Any] | None]) -> str:
    """Say which ranks differ from most (from rank 0 where there are as many), and in what."""
    orders = {rank: order for rank, order in enumerate(found) if order is not None}
    texts = {rank: json.dumps(order, sort_keys=True) for rank, order in orders.items()}
    count, first = Counter(texts.values()), min(texts)
    usual = max(texts.values(), key=lambda text: (count[text], text == texts[first]))
    first = next(rank for rank, text in texts.items() if text == usual)
    odd = [rank for rank, text in texts.items() if text != usual]
    if not odd:  # in weights that are left out of what is posted
        return "ranks differ in their order of samples: their weights differ"
    who = f"rank {odd[0]} has" if len(odd) == 1 else f"ranks {_listed(odd)} have"
    what = _field_difference(orders[odd[0]], orders[first])
    return (
        f"{who} a different order of samples from rank {first}: {what}; build the sampler "
        "identically on every rank, and call set_weights with the same weights before the same "
        "batch on all"
    )


def _field_difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    if there["changes"] != here["changes"] and there["domains"] == here["domains"]:
        return _weights_difference(there, here)
    fields = sorted(here, key=lambda name: name == "position")  # which follows from the others
    field = next(name for name in fields if there.get(name) != here[name])
    return f"its {field} is {_short(there.get(field))}, there it is {_short(here[field])}"


def _weights_difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    pairs = {tuple(map(str, change)) for change in there["changes"]}
    others = {tuple(map(str, change)) for change in here["changes"]}
    position = min(int(change[0]) for change in pairs ^ others)
    batch = position // here["batch_size"]
    weights = ""
    if there["mixture"] != here["mixture"]:
        weights = f": {_shares(there['mixture'])} now, there {_shares(here['mixture'])}"
    return f"its weights differ from batch {batch} on{weights}"


def _shares(mixture: dict[str, float]) -> str:
    return _short({name: round(weight, 4) for name, weight in mixture.items()})


def _listed(odd: list[int]) -> str:
    return ", ".join(map(str, odd[:8])) + (", ..." if len(odd) > 8 else "")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."
