"""Read the tensors of a checkpoint as a whole, in one process, whatever number of ranks wrote them.

A shard of torch.distributed.checkpoint has parts of tensors, and says in its header where each
belongs. What several ranks load together, part by part, is read in mixopt.pretraining.checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY

from mixopt.errors import RunError

MODEL, OPTIMIZER = "model.", "optimizer."


def read_tensors(path: Path, prefix: str, suffix: str = "") -> dict[str, Tensor]:
    """Return the whole tensors of a checkpoint whose names begin with a prefix, on the CPU.

    Args:
        path: The folder of the checkpoint.
        prefix: `MODEL` or `OPTIMIZER`; it is left out of the names returned.
        suffix: What the names end with.

    Raises:
        RunError: A shard cannot be read, or a part of a tensor is missing.
    """
    parts: dict[str, list[tuple[list[int], Tensor]]] = {}
    for shard in sorted(path.glob("*.safetensors")):
        with _opened(shard) as file:
            about = json.loads((file.metadata() or {}).get(CUSTOM_METADATA_KEY, "{}"))
            for name in file.keys():  # noqa: SIM118 - no mapping
                if name.startswith(prefix) and name.endswith(suffix):
                    offsets = about[name][SAVED_OFFSETS_KEY]
                    parts.setdefault(name, []).append((offsets, file.get_tensor(name)))
    return {name.removeprefix(prefix): _joined(path, name, found) for name, found in parts.items()}


def tensor_names(path: Path) -> set[str]:
    """Return the names of all tensors of a checkpoint.

    Raises:
        RunError: A shard cannot be read.
    """
    found: set[str] = set()
    for shard in path.glob("*.safetensors"):
        with _opened(shard) as file:
            found |= set(file.keys())
    return found


@contextmanager
def _opened(shard: Path) -> Iterator[Any]:
    try:
        with safe_open(shard, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{shard}: cannot be read: {' '.join(str(error).split())[:200]}") from error


def _joined(path: Path, name: str, parts: list[tuple[list[int], Tensor]]) -> Tensor:
    """Put the parts of one tensor together."""
    offsets, first = parts[0]
    if len(parts) == 1 and not any(offsets):
        return first
    ends = ([o + n for o, n in zip(at, part.shape, strict=True)] for at, part in parts)
    shape = [max(sizes) for sizes in zip(*ends, strict=True)]
    if sum(part.numel() for _, part in parts) != torch.Size(shape).numel():
        raise RunError(f"{path}: a part of {name!r} is missing")
    whole = first.new_empty(shape)
    for at, part in parts:
        whole[tuple(slice(o, o + n) for o, n in zip(at, part.shape, strict=True))] = part
    return whole
