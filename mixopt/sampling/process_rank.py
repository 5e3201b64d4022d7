"""Which process of a job this is: by argument, from torch.distributed or the environment."""

from __future__ import annotations

import os
import sys
from typing import Any

from mixopt.errors import SamplerError


def this_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size.

    What is not given comes from torch.distributed where that is imported and initialised, else
    from RANK and WORLD_SIZE, else it is one process.

    Raises:
        SamplerError: One is given and the other not, or the rank is not below the world size.
    """
    if (rank is None) != (world_size is None):
        given = "rank" if world_size is None else "world_size"
        raise SamplerError(f"{given} is given without the other; give rank and world_size")
    if rank is None or world_size is None:
        rank, world_size = _found()
    if not 0 <= rank < world_size:
        raise SamplerError(f"rank {rank} of world_size {world_size}; ranks go from 0")
    return rank, world_size


def _found() -> tuple[int, int]:
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise SamplerError(f"RANK and WORLD_SIZE in the environment: {error}") from error
