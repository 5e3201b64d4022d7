"""The model over the ranks of a job: a copy on each (DDP), or sharded over all (FSDP2)."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from mixopt.pretraining.models import blocks_of
from mixopt.pretraining.ranks import Ranks


class ParallelModel:
    """A model on the devices of all ranks.

    Attributes:
        module: The model, whose weights are trained and saved; sharded with FSDP2.
        called: What training calls: the model, or its DDP wrapper.
    """

    def __init__(self, model: nn.Module, parallel: str, ranks: Ranks, *, bfloat16: bool) -> None:
        """Move a model from the CPU and wrap it, on every rank.

        Args:
            model: The model, the same on every rank.
            parallel: `ddp` or `fsdp`.
            ranks: The ranks.
            bfloat16: Whether sharded weights are gathered in bfloat16.
        """
        if parallel == "fsdp":
            self.module = _sharded(model, ranks, bfloat16=bfloat16)
        else:
            self.module = model.to(ranks.device)
        self.called = self.module
        if parallel == "ddp" and ranks.count > 1:
            self.called = _replicated(self.module)

    def reducing(self, *, last: bool) -> AbstractContextManager[Any]:
        """Reduce gradients over ranks in the last pass of a step only."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(last)
        elif isinstance(self.called, DistributedDataParallel) and not last:
            return self.called.no_sync()
        return nullcontext()


def _sharded(model: nn.Module, ranks: Ranks, *, bfloat16: bool) -> nn.Module:
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    weights_dtype = torch.bfloat16 if bfloat16 else None
    policy = MixedPrecisionPolicy(weights_dtype, torch.float32, cast_forward_inputs=False)
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def _replicated(model: nn.Module) -> nn.Module:
    arguments = inspect.signature(DistributedDataParallel).parameters
    new_name = "forward_sync_buffers"  # in newer releases
    sync_buffers = new_name if new_name in arguments else "broadcast_buffers"
    options: dict[str, Any] = {sync_buffers: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(model, **options)
