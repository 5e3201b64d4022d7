"""Give the ranks of a sharded model their parts of the weights that rank 0 has.

A weight is scattered over the ranks that share a copy of the model, in pieces, so that no rank but
the first ever holds more of it than its part and a piece; copies receive theirs from the first one.
Values travel as bytes: they are the same to the last bit, whatever their type. Buffers, saved or
not, and tensors that are plain attributes of modules are small, and sent whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn import functional

from mixopt.pretraining.model_outline import TensorPlace, tensor_places
from mixopt.pretraining.ranks import Ranks

_SENT = 1 << 28  # bytes that rank 0 sends at once, to all ranks together
_LEAST = 1 << 20  # of them to one rank


@torch.no_grad()
def fill_shards(
    model: nn.Module, weights: dict[str, Tensor], mesh: DeviceMesh, ranks: Ranks
) -> None:
    """Fill the parts of all ranks from rank 0's weights; every rank calls it.

    Args:
        model: Sharded over the mesh; on all ranks but the first, on the meta device.
        weights: On rank 0, each whole weight by its name; they are taken out as they are sent.
        mesh: Copies by ranks of a copy, or the ranks of the only one.
        ranks: Those of the job.
    """
    if not ranks.is_first:
        _allocate(model, ranks.device)
    for name, weight in model.named_parameters():
        assert isinstance(weight, DTensor), "all weights are sharded"
        _fill(weight, weights.pop(name) if ranks.is_first else None, mesh)
    for places in _unsharded(model):
        _send(places, ranks)


def _allocate(model: nn.Module, device: torch.device) -> None:
    """Give each part of a weight memory; ties stay, for weights are replaced in place."""

    def allocated(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device=device) if isinstance(tensor, DTensor) else tensor

    # What to_empty calls; that would untie buffers.
    model._apply(allocated)  # type: ignore[no-untyped-call]


def _fill(weight: DTensor, whole: Tensor | None, mesh: DeviceMesh) -> None:
    """Fill the parts of one weight.

    Args:
        weight: This rank's part, of rows as torch.chunk splits them.
        whole: On rank 0.
        mesh: Over which it is sharded, in the last dimension.
    """
    shards, part = mesh.get_group(mesh.ndim - 1), _bytes(weight.to_local())
    if mesh.ndim == 1 or mesh.get_local_rank(0) == 0:
        count = dist.get_world_size(shards)
        rows = -(-weight.shape[0] // count)
        size = rows * math.prod(weight.shape[1:]) * weight.dtype.itemsize
        step = max(_SENT // count, _LEAST)
        parts = None if whole is None else _parts(whole, rows, count)
        for at in range(0, size, step):
            mine, least = part[at : at + step], min(step, size - at)
            received = mine if len(mine) == least else part.new_empty(least)
            sent = None if parts is None else [_padded(one[at:], received) for one in parts]
            dist.scatter(received, sent, group=shards, group_src=0)
            if received is not mine:
                mine.copy_(received[: len(mine)])
    if mesh.ndim == 2:
        dist.broadcast(part, group=mesh.get_group(0), group_src=0)


def _parts(whole: Tensor, rows: int, count: int) -> list[Tensor]:
    """Return the bytes of each rank's rows."""
    return [_bytes(whole[at * rows : (at + 1) * rows]) for at in range(count)]


def _padded(part: Tensor, like: Tensor) -> Tensor:
    """Return the first bytes of a part, as many as of another tensor and on its device."""
    piece = part[: len(like)].to(like.device)
    return functional.pad(piece, (0, len(like) - len(piece))) if len(piece) < len(like) else piece


def _unsharded(model: nn.Module) -> Iterator[list[TensorPlace]]:
    """Yield the places of each tensor that is not a weight; it may have several."""
    found: dict[int, list[TensorPlace]] = {}
    weights = set()
    for place in tensor_places(model):
        found.setdefault(id(place.tensor), []).append(place)
        if place.kind == "parameter":
            weights.add(id(place.tensor))
    yield from (places for key, places in found.items() if key not in weights)


def _send(places: list[TensorPlace], ranks: Ranks) -> None:
    """Send a tensor to all ranks; plain attributes stay on the CPU, where a model is built."""
    tensor = places[0].tensor
    on_device = any(place.kind == "buffer" for place in places)
    if ranks.is_first:
        dist.broadcast(_bytes(tensor.to(ranks.device).contiguous()), src=0)
        return
    received = torch.empty(tensor.shape, dtype=tensor.dtype, device=ranks.device)
    dist.broadcast(_bytes(received), src=0)
    for place in places:
        place.put(received if on_device else received.cpu())


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
