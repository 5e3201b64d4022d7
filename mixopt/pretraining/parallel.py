"""Processes of a job, their interruption, and the parallel model: DDP or FSDP2.

Without torchrun there is one process with its own process group, so that the loop has one code
path. Every rank builds or loads the same model on the CPU before it is replicated or sharded.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mixopt.errors import ConfigError, MixoptError, OtherRankError, RunError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.models import DocumentMasks, blocks_of, error_line, has_bfloat16

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

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0

    def first(self, do: Callable[[], Value]) -> Value:
        """Call a function on rank 0, and return its result on every rank."""
        answer = [self.each(lambda: do() if self.is_first else None)]
        if self.count > 1:
            dist.broadcast_object_list(answer, src=0)
        return cast(Value, answer[0])

    def each(self, do: Callable[[], Value]) -> Value:
        """Call a function on every rank, and continue only if none raised."""
        value: Value | None = None
        error: BaseException | None = None
        try:
            value = do()
        except BaseException as caught:
            error = caught
        mine = None if error is None else error_line(error, with_kind=True)
        messages = [mine] * self.count
        if self.count > 1:
            dist.all_gather_object(messages, mine)
        failed = [rank for rank, message in enumerate(messages) if message is not None]
        if not failed:
            return cast(Value, value)
        if error is not None and not isinstance(error, MixoptError):
            raise error
        if not self.is_first:
            raise OtherRankError(str(messages[failed[0]]))
        raise error or RunError(f"rank {failed[0]}: {messages[failed[0]]}")

    def error(self, message: str) -> MixoptError:
        """Return the error that all ranks raise together, reported once."""
        return RunError(message) if self.is_first else OtherRankError(message)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the process group of the job for the block."""
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
        known = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
        before = {kind: old for kind, old in known.items() if old not in (signal.SIG_IGN, None)}

        def on_signal(kind: int, _: Any) -> None:
            if kind == signal.SIGTERM:
                self.requested = True
                return
            signal.signal(kind, before[signal.SIGINT])
            if not may_save():
                raise KeyboardInterrupt
            self.requested = self.by_hand = True
            if os.environ.get("RANK", "0") == "0":
                # Bypass Python's buffer, which the signal may have interrupted.
                with suppress(OSError, ValueError, AttributeError):
                    os.write(sys.stderr.fileno(), _INTERRUPTED)

        try:
            for kind in before:
                signal.signal(kind, on_signal)
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


class ParallelModel:
    """A model on its device, wrapped for training."""

    def __init__(
        self,
        model: nn.Module,
        config: PretrainConfig,
        ranks: Ranks,
        masks: DocumentMasks | None = None,
    ) -> None:
        """Move, compile and wrap the model as configured."""
        self._ranks, self._masks = ranks, masks
        precision = config.training.precision
        self._half = has_bfloat16(ranks.device) if precision == "auto" else precision == "bfloat16"
        if config.parallel == "none" and ranks.count > 1:
            raise ConfigError(
                f"parallel: none, but there are {ranks.count} ranks; give ddp or fsdp"
            )
        for block in blocks_of(model):
            if config.training.activation_checkpointing:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
            if config.training.compile:
                block.compile()
        self.plain = self._shard(model) if config.parallel == "fsdp" else model.to(ranks.device)
        replicated = config.parallel == "ddp" and ranks.count > 1
        self._called = self._replicated() if replicated else self.plain

    def train(self, tokens: Tensor) -> Any:
        """Return the model's output for tokens, shape (B, T), in training mode."""
        self.plain.train()
        with self._precision():
            return self._called(tokens, **self._inputs(tokens))

    def evaluate(self, tokens: Tensor) -> Any:
        """Return the model's output for tokens, shape (B, T), without gradients; on all ranks."""
        self.plain.eval()
        with torch.no_grad(), self._precision():
            return self.plain(tokens, **self._inputs(tokens))

    @contextmanager
    def backward(self, *, last: bool) -> Iterator[None]:
        """Run forward and backward; gradients are reduced in the last pass of a step."""
        context: AbstractContextManager[Any] = nullcontext()
        if isinstance(self.plain, FSDPModule):
            self.plain.set_requires_gradient_sync(last)
        elif isinstance(self._called, DistributedDataParallel) and not last:
            context = self._called.no_sync()
        with context:
            yield

    def _inputs(self, tokens: Tensor) -> dict[str, Any]:
        return {} if self._masks is None else self._masks.inputs(tokens)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._ranks.device.type, dtype=torch.bfloat16, enabled=self._half)

    def _shard(self, model: nn.Module) -> nn.Module:
        mesh = init_device_mesh(self._ranks.device.type, (self._ranks.count,))
        half = torch.bfloat16 if self._half else None
        policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
        for block in (*blocks_of(model), model):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        return model

    def _replicated(self) -> nn.Module:
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {sync: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(self.plain, **options)
