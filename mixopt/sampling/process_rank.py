"""The part of each batch that a process takes: stated, from a mesh, or from the job.

Only data parallelism splits batches. Processes that share one replica of the model by tensor,
pipeline or context parallelism take the same part, so that a job's own ranks are the answer only
where nothing shares a replica; where a job's process groups say that something does, the answer is
asked for instead.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from math import prod
from typing import Any, NamedTuple

from mixopt.errors import SamplerError

DATA = (
    "dp",
    "dp_replicate",
    "dp_shard",
    "data",
    "batch",
    "data_parallel",
    "replicate",
    "shard",
)
MODEL = (
    "tp",
    "pp",
    "cp",
    "sp",
    "tensor",
    "pipeline",
    "context",
    "sequence",
    "tensor_parallel",
    "pipeline_parallel",
    "context_parallel",
    "sequence_parallel",
)
_OF_MEGATRON = (
    "TENSOR_MODEL_PARALLEL_GROUP",
    "PIPELINE_MODEL_PARALLEL_GROUP",
    "CONTEXT_PARALLEL_GROUP",
)


class RankPart(NamedTuple):
    """Which part of each batch a process takes.

    Attributes:
        rank: Its number, from 0.
        world_size: How many parts there are.
        of_mesh: Whether it comes from a mesh of all processes of the job.
        of_job: Whether nothing was given, so that it is the job's own rank.
    """

    rank: int
    world_size: int
    of_mesh: bool = False
    of_job: bool = False


def this_part(rank: int | None, world_size: int | None, mesh: Any = None) -> RankPart:
    """Return the part of each batch that this process takes.

    What is not given comes from torch.distributed where that is imported and initialised, else
    from RANK and WORLD_SIZE, else it is one process.

    Args:
        rank: This process, along data parallelism.
        world_size: How many there are; given with `rank`.
        mesh: A torch DeviceMesh instead, whose data-parallel dimensions say both.

    Raises:
        SamplerError: One is given and the other not, or a mesh as well; the rank is not below the
            world size; a mesh does not say along what data are split; nothing is given where
            processes share a replica of the model.
    """
    if (rank is None) != (world_size is None):
        given = "rank" if world_size is None else "world_size"
        raise SamplerError(f"{given} is given without the other; give rank and world_size")
    if mesh is not None and rank is not None:
        raise SamplerError("mesh is given, and rank and world_size too; give one of the two")
    if mesh is not None:
        return _of_mesh(mesh)
    if rank is None or world_size is None:
        part = RankPart(*_found(), of_job=True)
    else:
        part = RankPart(rank, world_size)
    if not 0 <= part.rank < part.world_size:
        raise SamplerError(f"rank {part.rank} of world_size {part.world_size}; ranks go from 0")
    return part


def distributed() -> Any:
    """Return torch.distributed where it is imported and initialised, else None."""
    module: Any = sys.modules.get("torch.distributed")
    on = module is not None and module.is_available() and module.is_initialized()
    return module if on else None


def _found() -> tuple[int, int]:
    job = distributed()
    if job is not None:
        check_nothing_is_shared()
        return job.get_rank(), job.get_world_size()
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise SamplerError(f"RANK and WORLD_SIZE in the environment: {error}") from error


def _of_mesh(mesh: Any) -> RankPart:
    """Return the place along the data-parallel dimensions, the first of them slowest."""
    if not all(hasattr(mesh, name) for name in ("mesh_dim_names", "get_coordinate", "size")):
        raise SamplerError(f"mesh is {type(mesh).__name__}; it must be a torch DeviceMesh")
    dimensions = _data_dimensions(mesh)
    place = mesh.get_coordinate()
    if place is None:
        raise SamplerError(
            "this process is not in the mesh; make the sampler only on those that are"
        )
    sizes = [mesh.size(k) for k in dimensions]
    rank = 0
    for k, size in zip(dimensions, sizes, strict=True):
        rank = rank * size + place[k]
    return RankPart(rank, prod(sizes), _is_of_whole_job(mesh))


def _data_dimensions(mesh: Any) -> list[int]:
    """Return the numbers of the dimensions along which data are split."""
    names = mesh.mesh_dim_names or ()
    if not names and mesh.ndim > 1:
        raise SamplerError(
            f"the mesh of {mesh.ndim} dimensions has no names for them; give"
            " init_device_mesh(..., mesh_dim_names=('dp', 'tp'))"
        )
    if len(names) <= 1 and not set(names) & set(MODEL):
        return [0]  # all there is, or the one that the caller has chosen: mesh["rows"]
    found = [k for k, name in enumerate(names) if name in DATA]
    unknown = [name for name in names if name not in DATA + MODEL]
    if unknown or not found:
        why = f"{unknown[0]!r} may split data or the model" if unknown else "none splits data"
        raise SamplerError(
            f"the mesh has the dimensions {', '.join(map(repr, names))}, of which {why}; give the"
            " one along which data are split, MixtureSampler(mesh=mesh['dp']), or rank= and"
            " world_size="
        )
    return found


def _is_of_whole_job(mesh: Any) -> bool:
    """Whether the mesh, or the one that it was taken from, has every process of the job."""
    job = distributed()
    root = getattr(mesh, "_get_root_mesh", lambda: mesh)()
    return job is not None and root.size() == job.get_world_size()


def check_nothing_is_shared() -> None:
    """Refuse to take a job's own ranks where processes share a replica of the model.

    Raises:
        SamplerError: Process groups of torch or Megatron say that they do.
    """
    module: Any = sys.modules.get("torch.distributed.distributed_c10d")
    groups: list[tuple[str, int]] = []
    with suppress(AttributeError, RuntimeError):  # what torch keeps for itself may change
        groups = [(group.group_desc, group.size()) for group in module._world.pg_map]
    for name, size in groups:
        if size > 1 and name in _OF_MEGATRON:
            raise SamplerError(
                f"{size} processes share a replica of the model (Megatron's {name}) and need the"
                " same rows: give rank=parallel_state.get_data_parallel_rank() and"
                " world_size=parallel_state.get_data_parallel_world_size()"
            )
        if size > 1 and name.removeprefix("mesh_") in MODEL and name.startswith("mesh_"):
            raise SamplerError(
                f"{size} processes share a replica of the model (dimension"
                f" {name.removeprefix('mesh_')!r} of a device mesh) and need the same rows: give"
                " mesh=, the job's DeviceMesh, or rank= and world_size= along data parallelism"
            )
