"""The model over the ranks: alone, data parallel (DDP), sharded (FSDP2), or sharded with copies.

The last is HSDP: neighbouring ranks share a copy of the weights, and gradients go over both them
and the ranks with the same part of other copies.

Where weights are sharded, rank 0 builds or reads the model as a single process does. The others
build it on torch's meta device, without weights, and torch sends them their parts; a model that
cannot be built so is built whole on every rank. Weights and gradients are float32; with bfloat16
the products are not, and FSDP gathers weights in it. Blocks are the unit of sharding, of
torch.compile and of activation checkpointing.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mixopt.errors import ConfigError
from mixopt.pretraining.config import PretrainConfig
from mixopt.pretraining.document_masks import DocumentMasks
from mixopt.pretraining.models import blocks_of
from mixopt.pretraining.ranks import Ranks

_SHARDED = ("fsdp", "hsdp")


@dataclass(frozen=True, eq=False)
class StartingModel:
    """A model before it is on its ranks' devices.

    Attributes:
        module: On the CPU; on the meta device where `held_by_first`, on all ranks but the first.
        held_by_first: Whether rank 0 alone has weights.
    """

    module: nn.Module
    held_by_first: bool


def starting_model(
    build: Callable[[], nn.Module], outline: Callable[[], nn.Module], parallel: str, ranks: Ranks
) -> StartingModel:
    """Build or read what a run starts from, whole on as few ranks as can be."""
    if ranks.count == 1 or parallel not in _SHARDED:
        return StartingModel(ranks.each(build), held_by_first=False)
    model = ranks.each(lambda: build() if ranks.is_first else None)
    known = ranks.first(lambda: None if model is None else _shapes(model))
    fault = None
    if model is None:
        model, fault = _outlined(outline, known)
    faults = [one for one in ranks.gathered(fault) if one is not None]
    if not faults and model is not None:
        return StartingModel(model, held_by_first=True)
    if ranks.is_first:
        logging.getLogger("mixopt.pretraining").warning(
            "every rank holds the whole model at the start, for it cannot be built on torch's meta"
            " device: %s",
            faults[0],
        )
    whole = ranks.each(lambda: model if ranks.is_first and model is not None else build())
    return StartingModel(whole, held_by_first=False)


class ParallelModel:
    """A model on its device, ready to be called.

    Attributes:
        plain: The model itself, whose parameters have their own names.
    """

    def __init__(
        self,
        start: StartingModel,
        config: PretrainConfig,
        ranks: Ranks,
        masks: DocumentMasks | None = None,
    ) -> None:
        """Move, compile and wrap the model as the configuration says."""
        self._ranks, self._masks = ranks, masks
        self._half = is_half(config, ranks.device)
        mesh, model = _mesh(config, ranks), start.module
        for block in blocks_of(model):
            if config.training.activation_checkpointing:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
            if config.training.compile:
                block.compile()
        weights = model.state_dict() if start.held_by_first and ranks.is_first else {}
        self.plain = model.to(ranks.device) if mesh is None else self._shard(model, mesh)
        if start.held_by_first:
            _send(weights, self.plain, ranks)
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


def is_half(config: PretrainConfig, device: torch.device) -> bool:
    """Whether products are computed in bfloat16."""
    if config.training.precision != "auto":
        return config.training.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older releases of PyTorch cannot say; they get float32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...], str]]:
    return [(name, tuple(one.shape), str(one.dtype)) for name, one in model.state_dict().items()]


def _outlined(outline: Callable[[], nn.Module], known: Any) -> tuple[nn.Module | None, str | None]:
    """Return the model without weights, or else why there is none."""
    try:
        model = outline()
    except Exception as error:  # whatever a constructor raises that wants values
        lines = [*filter(None, map(str.strip, str(error).splitlines())), type(error).__name__]
        return None, lines[0][:200]
    here = _shapes(model)
    if here != known:
        odd = next((one for one in here if one not in known), ("one is missing",))
        return None, f"its tensors are others there: {odd[0]}"
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            registered = name in ("_parameters", "_buffers", "_modules")
            if not registered and any(isinstance(v, Tensor) and v.is_meta for v in _inside(value)):
                return None, f"{path or type(model).__name__}.{name} has tensors of its own"
    return model, None


def _inside(value: Any, depth: int = 4) -> Iterator[Any]:
    """Yield a value and what is in it, where it is a container."""
    yield value
    if depth and isinstance(value, (list, tuple, set, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _inside(one, depth - 1)


def _send(weights: dict[str, Any], model: nn.Module, ranks: Ranks) -> None:
    """Fill a sharded model on all ranks from the whole weights of rank 0."""
    if not ranks.is_first:
        model.to_empty(device=ranks.device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    for name in ranks.first(
        lambda: list(weights)
    ):  # one at a time: none holds much more than its part
        set_model_state_dict(model, {name: weights.pop(name, None)}, options=options)
    # What is not saved, such as tables of positions, is no part of a state dictionary.
    buffers = ranks.first(lambda: {name: one.cpu() for name, one in model.named_buffers()})
    for name, one in model.named_buffers():
        one.copy_(buffers[name])


def _sync_option() -> str:
    """Return what releases of PyTorch call that buffers are sent around in every forward pass."""
    known = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"


def _mesh(config: PretrainConfig, ranks: Ranks) -> DeviceMesh | None:
    """Return over which ranks weights are sharded, in the last dimension, if they are."""
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
