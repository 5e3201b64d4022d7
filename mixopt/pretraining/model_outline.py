"""What a model is besides the values of its tensors: their names, shapes, types and ties.

On torch's meta device a model has all of that and takes no memory. Where two models have equal
outlines, the values of one can be put into the other, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_OWN = {"_parameters", "_buffers", "_modules"}  # of a module, beside its attributes
_DEPTH = 4  # of containers in containers


@dataclass(frozen=True, eq=False)
class TensorPlace:
    """Where a module has a tensor.

    Attributes:
        kind: `parameter`, `buffer` or `attribute`.
        module: Which one.
        attribute: The tensor's name in it.
        name: Its name in the model.
        tensor: What is there.
    """

    kind: str
    module: nn.Module
    attribute: str
    name: str
    tensor: Tensor

    def put(self, tensor: Tensor) -> None:
        """Replace what is there by another tensor; one that is saved remains so."""
        setattr(self.module, self.attribute, tensor)


def tensor_places(model: nn.Module) -> list[TensorPlace]:
    """Return all places of tensors, a tied one as often as it is used; the same in each process."""
    return [
        TensorPlace(kind, module, name, f"{path}.{name}" if path else name, tensor)
        for path, module in model.named_modules()
        for kind, name, tensor in _tensors(module)
    ]


def outline_of(model: nn.Module) -> list[str]:
    """Return a line for each place of a tensor; the device and the values are left out."""
    first: dict[int, str] = {}
    lines = []
    for place in tensor_places(model):
        one = place.tensor
        tied = first.setdefault(id(one), place.name)
        frozen = "" if one.requires_grad or place.kind != "parameter" else ", frozen"
        same = "" if tied == place.name else f", the same as {tied}"
        shape = f"{one.dtype} of shape {tuple(one.shape)}"
        lines.append(f"{place.kind} {place.name}: {shape}{frozen}{same}")
    return lines


def outline_fault(model: nn.Module, outline: Sequence[str]) -> str | None:
    """Return why a model on the meta device cannot be given the values of another; None if it can.

    Args:
        model: On the meta device.
        outline: That of the other.
    """
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in _OWN and not isinstance(value, Tensor) and _has_meta(value):
                return f"{path or type(model).__name__}.{name} is a container of tensors"
    for place in tensor_places(model):
        if place.tensor.layout is not torch.strided:
            return f"{place.kind} {place.name} is {place.tensor.layout}"
    here = outline_of(model)
    if here == [*outline]:
        return None
    odd = [line for line in here if line not in outline] + [
        line for line in outline if line not in here
    ]
    return f"its tensors are others there: {(odd or ['in another order'])[0]}"


def _tensors(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    for name, weight in module.named_parameters(recurse=False, remove_duplicate=False):
        yield "parameter", name, weight
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        yield "buffer", name, buffer
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield "attribute", name, value


def _has_meta(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a container has a tensor of the meta device in it."""
    if isinstance(value, Tensor):
        return value.is_meta
    if not depth or not isinstance(value, (list, tuple, set, dict)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return any(_has_meta(one, depth - 1) for one in inner)
