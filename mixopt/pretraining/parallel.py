"""The model over the ranks: alone, data parallel (DDP), sharded (FSDP2), or sharded with copies.

The last is HSDP: neighbouring ranks share a copy of the weights, and gradients go over both them
and the ranks with the same part of other copies.

Where weights are sharded, rank 0 may have all of them and the others none: they get their parts.
Weights and gradients are float32 in all of them; with bfloat16 the products are, and FSDP gathers
weights in it. Blocks are the unit of sharding, of torch.compile and of activation checkpointing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mixopt.errors import ConfigError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.document_masks import DocumentMasks
from mixopt.pretraining.models import blocks_of
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.shard_filling import fill_shards


class ParallelModel:
    """A model on its device, ready to be called.

    Attributes:
        plain: The model itself, whose parameters have their own names.
    """

    def __init__(
        self,
        model: nn.Module,
        config: PretrainConfig,
        ranks: Ranks,
        masks: DocumentMasks | None = None,
        *,
        held_by_first: bool = False,
    ) -> None:
        """Move, compile and wrap the model as the configuration says.

        Args:
            model: On the CPU.
            config: The run's.
            ranks: Those that share it.
            masks: What keeps documents of a row apart, in training and evaluation.
            held_by_first: Whether rank 0 alone has its weights, and sends the others their parts;
                theirs is on the meta device.

        Raises:
            ConfigError: Several ranks without `parallel`, or as many as copies do not divide.
        """
        self._ranks, self._masks = ranks, masks
        self._half = is_half(config, ranks.device)
        mesh = _mesh(config, ranks)
        for block in blocks_of(model):
            if config.training.activation_checkpointing:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
            if config.training.compile:
                block.compile()
        weights = _weights(model) if held_by_first and ranks.is_first else {}
        self.plain = model.to(ranks.device) if mesh is None else self._shard(model, mesh)
        if held_by_first:
            assert mesh is not None, "what is not sharded is whole on each rank"
            fill_shards(model, weights, mesh, ranks)
        self._called = self._replicate() if config.parallel == "ddp" else self.plain

    def train(self, tokens: Tensor) -> Any:
        """Return what the model gives for tokens, shape (B, T), with gradients to come."""
        self.plain.train()
        with self._precision():
            return self._called(tokens, **self._inputs(tokens))

    def evaluate(self, tokens: Tensor) -> Any:
        """Return what the model gives for tokens, shape (B, T); all ranks call it alike."""
        self.plain.eval()
        with torch.no_grad(), self._precision():
            return self.plain(tokens, **self._inputs(tokens))

    @contextmanager
    def backward(self, *, last: bool) -> Iterator[None]:
        """Run a forward and backward pass; gradients go over the ranks with the last of a step."""
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

    def _shard(self, model: nn.Module, mesh: DeviceMesh) -> nn.Module:
        half = torch.bfloat16 if self._half else None
        policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        return model

    def _replicate(self) -> nn.Module:
        if self._ranks.count == 1:
            return self.plain
        device = self._ranks.device
        options: dict[str, Any] = {_sync_option(): False, "gradient_as_bucket_view": True}
        if device.type == "cuda":
            options["device_ids"] = [device.index]
        return DistributedDataParallel(self.plain, **options)


def _sync_option() -> str:
    """Return what releases of PyTorch call that buffers are sent around in every forward pass."""
    known = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the whole weights, which sharding would let go of."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def is_half(config: PretrainConfig, device: torch.device) -> bool:
    """Whether products are computed in bfloat16."""
    if config.training.precision != "auto":
        return config.training.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older releases of PyTorch cannot say; they get float32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _mesh(config: PretrainConfig, ranks: Ranks) -> DeviceMesh | None:
    """Return over which ranks weights are sharded, in the last dimension; None where they are not.

    Raises:
        ConfigError: The ranks cannot be arranged so.
    """
    if config.parallel == "none" and ranks.count > 1:
        raise ConfigError(
            f"parallel: none, but there are {ranks.count} ranks; give ddp, fsdp or hsdp"
        )
    kind = ranks.device.type
    if config.parallel == "fsdp":
        return init_device_mesh(kind, (ranks.count,))
    if config.parallel != "hsdp":
        return None
    degree = config.shard_degree or int(os.environ.get("LOCAL_WORLD_SIZE", ranks.count))
    if ranks.count % degree:
        raise ConfigError(
            f"shard_degree: {degree} does not divide the {ranks.count} ranks; give a divisor"
        )
    names = ("replicate", "shard")
    return init_device_mesh(kind, (ranks.count // degree, degree), mesh_dim_names=names)
