"""The ranks of a job (its processes) and their devices.

Without torchrun there is one process with its own process group, so that the loop has one code
path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from mixopt.errors import ConfigError, MixoptError, OtherRankError, RunError
from mixopt.system import one_line

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the job."""

    rank: int
    count: int
    device: torch.device

    def each(self, do: Callable[[], Value]) -> Value:
        """Call a function on every rank, and continue only if none raised."""
        error: BaseException | None = None
        try:
            value = do()
        except BaseException as caught:
            error = caught
        faults: list[str | None] = [None] * self.count
        dist.all_gather_object(faults, None if error is None else one_line(error))
        failed_ranks = [rank for rank, fault in enumerate(faults) if fault]
        if not failed_ranks:
            return value
        if isinstance(error, MixoptError) and self.rank:
            raise OtherRankError(str(error))
        first = failed_ranks[0]
        raise error or self.error(f"rank {first}: {faults[first]}")

    def error(self, message: str) -> MixoptError:
        """Return the error that all ranks raise together, reported once."""
        return OtherRankError(message) if self.rank else RunError(message)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the process group of the job for the block."""
    chosen = device_named(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    is_new = not dist.is_initialized()
    if is_new:
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if is_new:
            dist.destroy_process_group()


def device_named(name: str) -> torch.device:
    """Return the device of this process."""
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not present):
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= present:
        raise ConfigError(
            f"device: {name!r} for local rank {index}, and there are {present} GPUs; start as many"
            " processes as there are, or give cpu"
        )
    return torch.device("cuda", index)
