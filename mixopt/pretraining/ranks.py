"""The ranks of a job (its processes), their devices, and their interruption.

Without torchrun there is one process with its own process group, so that the loop has one code
path.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mixopt.errors import ConfigError, MixoptError, OtherRankError, RunError
from mixopt.system import one_line

Value = TypeVar("Value")
_INTERRUPTED = (
    b"\nmixopt: interrupted: stops after the next step, with a checkpoint; Ctrl-C again: at once\n"
)


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


class Interruption:
    """Records whether SIGTERM or Ctrl-C asked this process to stop."""

    def __init__(self) -> None:
        self.requested = self.by_hand = False

    @contextmanager
    def listening(self, may_save: Callable[[], bool]) -> Iterator[None]:
        """Record SIGTERM and the first Ctrl-C during the block; a second Ctrl-C ends at once.

        In the main thread only, as Python requires; ignored signals stay ignored. SIGINT also tells
        the main thread that another process took over the directory; then nothing is saved.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
        ignored = (signal.SIG_IGN, None)
        previous = {kind: handler for kind, handler in handlers.items() if handler not in ignored}

        def on_signal(kind: int, _: Any) -> None:
            if kind == signal.SIGTERM:
                self.requested = True
                return
            signal.signal(kind, previous[signal.SIGINT])
            if not may_save():
                raise KeyboardInterrupt
            self.requested = self.by_hand = True
            if os.environ.get("RANK", "0") == "0":
                # Bypass Python's buffer, which the signal may have interrupted.
                with suppress(OSError, ValueError, AttributeError):
                    os.write(sys.stderr.fileno(), _INTERRUPTED)

        try:
            for kind in previous:
                signal.signal(kind, on_signal)
            yield
        finally:
            for kind, handler in previous.items():
                signal.signal(kind, handler)
