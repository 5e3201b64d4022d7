"""The processes of a job: who this one is, which device it has, and how they agree.

Under torchrun each process is a rank. Without it there is one, with a process group of its own, so
that the loop has one path. What one process does for all is done by rank 0, and an error there
ends all of them at once instead of leaving the others waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist

from mixopt.errors import ConfigError, MixoptError, OtherRankError, RunError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the job.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        device: What it computes on.
        group: Over which they agree; None for that of training.
    """

    rank: int
    count: int
    device: torch.device
    group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def first(self, do: Callable[[], Value]) -> Value:
        """Do something on rank 0, and return on every rank what it returned.

        Args:
            do: What rank 0 does; its value can be pickled.

        Raises:
            MixoptError: What rank 0 raised.
            OtherRankError: On the other ranks, where rank 0 raised anything.
        """
        if self.count == 1:
            return do()
        told: list[Any] = [None, None]
        error: BaseException | None = None
        if self.is_first:
            try:
                told[0] = do()
            except BaseException as caught:
                error, told[1] = caught, str(caught) or type(caught).__name__
        dist.broadcast_object_list(told, src=0, group=self.group)
        if error is not None:
            raise error
        if told[1] is not None:
            raise OtherRankError(told[1])
        value: Value = told[0]
        return value

    def each(self, do: Callable[[], Value]) -> Value:
        """Do something on every rank, and continue only if none raised.

        Args:
            do: What is done; nothing in it waits for other ranks unless they fail alike.

        Raises:
            MixoptError: On rank 0, what it raised, or else what the first rank did that raised.
            OtherRankError: On the other ranks, where any raised.
            Exception: On a rank that raised what is no MixoptError, that: it is a bug.
        """
        value, error = None, None
        try:
            value = do()
        except Exception as caught:
            error = caught
        said = self.gathered(None if error is None else _said_by(error))
        failed = [rank for rank, message in enumerate(said) if message is not None]
        if not failed:
            return cast(Value, value)
        if error is not None and not isinstance(error, MixoptError):
            raise error
        if not self.is_first:
            raise OtherRankError(str(said[failed[0]]))
        raise error or RunError(f"rank {failed[0]}: {said[failed[0]]}")

    def gathered(self, mine: Any) -> list[Any]:
        """Return what each rank says, in order; what it says can be pickled."""
        said: list[Any] = [mine] * self.count
        if self.count > 1:
            dist.all_gather_object(said, mine, group=self.group)
        return said

    def apart(self) -> Ranks:
        """Return the same ranks with a group of their own, for a thread beside training's.

        Every rank calls it. What the thread sends cannot meet what training sends.
        """
        if self.count == 1:
            return self
        return replace(self, group=cast(dist.ProcessGroup, dist.new_group(backend="gloo")))

    def fail(self, message: str) -> NoReturn:
        """End all ranks, which call this together, with one line.

        Raises:
            RunError: On rank 0; an OtherRankError on the others.
        """
        raise RunError(message) if self.is_first else OtherRankError(message)


def _said_by(error: Exception) -> str:
    """Return an error in a line; of a bug with its kind."""
    if isinstance(error, MixoptError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Be one of the processes of the job while the block runs.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: There is no such device.
    """
    chosen = _device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    ours = not dist.is_initialized()
    if ours:
        _start("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if ours:
            dist.destroy_process_group()


def _start(backend: str) -> None:
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=alone, rank=0, world_size=1)


def _device(name: str) -> torch.device:
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
