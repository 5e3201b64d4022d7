"""The processes of a job: who this one is, which device it has, how they agree, what stops them.

Under torchrun each process is a rank. Without it there is one, with a process group of its own, so
that the loop has one path. What one process does for all is done by rank 0, and an error there
ends all of them at once instead of leaving the others waiting.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist

from mixopt.errors import ConfigError, MixoptError, OtherRankError, RunError

Value = TypeVar("Value")
_INTERRUPTED = (
    b"\nmixopt: interrupted: stops after the next step, with a checkpoint; Ctrl-C again: at once\n"
)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the job.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        device: What it computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def first(self, do: Callable[[], Value]) -> Value:
        """Do something on rank 0, and return on every rank what it returned."""
        if self.count == 1:
            return do()
        answer: list[Any] = [None, None]
        error: BaseException | None = None
        if self.is_first:
            try:
                answer[0] = do()
            except BaseException as caught:
                error, answer[1] = caught, str(caught) or type(caught).__name__
        dist.broadcast_object_list(answer, src=0)
        if error is not None:
            raise error
        if answer[1] is not None:
            raise OtherRankError(answer[1])
        return cast(Value, answer[0])

    def each(self, do: Callable[[], Value]) -> Value:
        """Do something on every rank, and continue only if none raised."""
        value, error = None, None
        try:
            value = do()
        except Exception as caught:
            error = caught
        messages = self.gathered(None if error is None else _line_of(error))
        failed = [rank for rank, message in enumerate(messages) if message is not None]
        if not failed:
            return cast(Value, value)
        if error is not None and not isinstance(error, MixoptError):
            raise error
        if not self.is_first:
            raise OtherRankError(str(messages[failed[0]]))
        raise error or RunError(f"rank {failed[0]}: {messages[failed[0]]}")

    def gathered(self, mine: Any) -> list[Any]:
        """Return what each rank gives, in order; it can be pickled."""
        values: list[Any] = [mine] * self.count
        if self.count > 1:
            dist.all_gather_object(values, mine)
        return values

    def fail(self, message: str) -> NoReturn:
        """End all ranks, which call this together, with one line."""
        raise RunError(message) if self.is_first else OtherRankError(message)


def _line_of(error: Exception) -> str:
    """Return an error in a line; of a bug with its kind."""
    if isinstance(error, MixoptError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Be one of the processes of the job while the block runs."""
    chosen = device_named(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    ours = not dist.is_initialized()
    if ours:
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            alone = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=alone, rank=0, world_size=1)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if ours:
            dist.destroy_process_group()


def device_named(name: str) -> torch.device:
    """Return what this process computes on."""
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


class Interruption:
    """Whether this process was asked to stop, by SIGTERM or Ctrl-C.

    Attributes:
        asked: By a signal of either kind.
        by_hand: By Ctrl-C.
    """

    def __init__(self) -> None:
        self.asked = self.by_hand = False

    @contextmanager
    def listening(self) -> Iterator[Interruption]:
        """Take SIGTERM while the block runs; in the main thread only, as Python has it."""

        def heard(*_: Any) -> None:
            self.asked = True

        with _handled(signal.SIGTERM, heard):
            yield self

    @contextmanager
    def hearing_keys(self, may_save: Callable[[], bool]) -> Iterator[None]:
        """Take the first Ctrl-C while the block runs; the second one ends the process at once."""
        before = signal.getsignal(signal.SIGINT)

        def heard(*_: Any) -> None:
            signal.signal(signal.SIGINT, before)
            if not may_save():
                raise KeyboardInterrupt
            self.asked = self.by_hand = True
            if os.environ.get("RANK", "0") == "0":
                # Past Python's buffer, which the signal may have come amid.
                with suppress(OSError, ValueError, AttributeError):
                    os.write(sys.stderr.fileno(), _INTERRUPTED)

        if before in (signal.SIG_IGN, None):
            yield
        else:
            with _handled(signal.SIGINT, heard):
                yield


@contextmanager
def _handled(kind: signal.Signals, heard: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(kind, heard)
    try:
        yield
    finally:
        signal.signal(kind, before)
