"""Deal the samples of each global batch to the ranks, and check that all have the same order.

Each rank takes as many consecutive samples of the global batch (`deal_to_rank`), and with them
their tokens. Only data parallelism splits batches. Processes that share a replica of the model by
tensor, pipeline or context parallelism take the same part, so the job's ranks are used only if no
processes share a replica; if process groups show that some do, an error asks for the
data-parallel rank.

If one rank alone calls `set_weights` or has another seed, the parts of ranks overlap, and training
gives no sign of it. So each checkpoint compares a hash of the state and settings of the order; if
hashes differ, the error on every rank names the rank and the difference.
"""

import hashlib
import json
import os
import sys
from collections import Counter
from contextlib import suppress
from math import prod
from typing import Any

from mixopt.errors import SamplerError
from mixopt.sampling.sampler_input import MAX_BATCH, at_least
from mixopt.system import IntArray, PlainDict, first_few

# Names of the dimensions of a device mesh.
_DATA = {"dp", "dp_replicate", "dp_shard", "data", "batch", "data_parallel", "replicate", "shard"}
_MODEL_SHORT = {"tp", "pp", "cp", "sp"}
_MODEL_LONG = {"tensor", "pipeline", "context", "sequence"}
_MODEL = _MODEL_SHORT | _MODEL_LONG | {f"{name}_parallel" for name in _MODEL_LONG}
# Names of process groups.
_MESH_GROUPS = {f"mesh_{name}" for name in _MODEL}
_MEGATRON_GROUPS = {
    "TENSOR_MODEL_PARALLEL_GROUP",
    "PIPELINE_MODEL_PARALLEL_GROUP",
    "CONTEXT_PARALLEL_GROUP",
}
_MESH_ATTRIBUTES = ("mesh_dim_names", "get_coordinate", "size")
# Arguments that give the data-parallel rank, for messages.
_MESH_ARGUMENTS = "mesh=, the job's DeviceMesh, or rank= and world_size= along data parallelism"
_MEGATRON_ARGUMENTS = (
    "rank=parallel_state.get_data_parallel_rank() and"
    " world_size=parallel_state.get_data_parallel_world_size()"
)
_ACCELERATE = "accelerate.data_loader"
# Fields of a state that follow from the others.
_DERIVED_FIELDS = {"position", "counts", "owed", "had"}


def deal_to_rank(rows_KB: IntArray, rank: int, world_size: int) -> IntArray:
    """Deal the samples of global batches to the ranks and return the samples of one rank.

    Args:
        rows_KB: Rows of consecutive global batches, shape (batches, B).
        rank: The data-parallel rank.
        world_size: Number of data-parallel ranks; it divides B.

    Returns:
        The rank's rows of each batch, shape (batches, B / world_size), a view.
    """
    size = rows_KB.shape[1] // world_size
    return rows_KB[:, rank * size : (rank + 1) * size]


def samples_per_rank(batch_size: int, world_size: int) -> int:
    """Return the samples of one rank in a global batch."""
    batch_size = at_least(1, "batch_size", batch_size, MAX_BATCH)
    if batch_size % world_size:
        down = batch_size - batch_size % world_size
        near = f"{down} or {down + world_size}" if down else str(world_size)
        raise SamplerError(
            f"batch_size {batch_size} is the global batch: {world_size} ranks do not divide it;"
            f" use {near}"
        )
    return batch_size // world_size


def data_parallel_rank(
    rank: int | None, world_size: int | None, mesh: Any = None
) -> tuple[int, int]:
    """Return this process's data-parallel rank, and the number of these ranks."""
    if (rank is None) != (world_size is None):
        name = "rank" if world_size is None else "world_size"
        raise SamplerError(f"{name} is given without the other; give rank and world_size")
    if mesh is not None and rank is not None:
        raise SamplerError("mesh is given, and rank and world_size too; give one of the two")
    if mesh is not None:
        return _mesh_rank(mesh)
    if rank is None or world_size is None:
        rank, world_size = _job_rank()
    if not 0 <= rank < world_size:
        raise SamplerError(f"rank {rank} of world_size {world_size}; ranks go from 0")
    return rank, world_size


def refuse_second_split(world_size: int, name: str) -> AttributeError:
    """Return an AttributeError for a property to raise; raise if accelerate asks for it."""
    module = sys._getframe(2).f_globals.get("__name__")
    if module == _ACCELERATE and world_size > 1:
        raise SamplerError(
            "accelerate's prepare() would split each batch over the ranks a second time: do not "
            "prepare a DataLoader over a MixtureSampler or a MixtureStream; use "
            "MixtureLoader(dataset, sampler), which prepare() leaves unchanged"
        )
    return AttributeError(name)


def check_ranks(sampler: Any) -> None:
    """Check that all ranks have the same order of samples; every rank calls it.

    Does nothing without torch.distributed or in a job of one rank.

    Args:
        sampler: This rank's MixtureSampler.

    Raises:
        SamplerError: On every rank, with the rank that differs and the difference.
    """
    job = _distributed()
    if job is None or job.get_world_size() == 1:
        return
    order = {"batch_size": sampler.batch_size, "world_size": sampler.world_size}
    order |= sampler.state_dict()
    digest = hashlib.blake2b(json.dumps(order).encode(), digest_size=8).hexdigest()
    hashes: list[Any] = [None] * job.get_world_size()
    job.all_gather_object(hashes, (digest, sampler.rank))
    digests, sampler_ranks = zip(*hashes, strict=True)
    if len(set(digests)) > 1:
        orders = list(hashes)
        job.all_gather_object(orders, order)
        raise SamplerError(_difference(orders))
    _check_parts(list(sampler_ranks), sampler.world_size)


def _distributed() -> Any:
    """Return torch.distributed if it is imported and initialised, else None."""
    module: Any = sys.modules.get("torch.distributed")
    is_used = module is not None and module.is_available() and module.is_initialized()
    return module if is_used else None


def _job_rank() -> tuple[int, int]:
    job = _distributed()
    if job is not None:
        _check_no_shared_replica()
        return (job.get_rank(), job.get_world_size())
    try:
        return (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        raise SamplerError(f"RANK and WORLD_SIZE in the environment: {error}") from error


def _mesh_rank(mesh: Any) -> tuple[int, int]:
    """Return rank and size along the data-parallel dimensions, the first of them slowest."""
    if not all(hasattr(mesh, name) for name in _MESH_ATTRIBUTES):
        raise SamplerError(f"mesh is {type(mesh).__name__}; it must be a torch DeviceMesh")
    dimensions = _data_dimensions(mesh)
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise SamplerError(
            "this process is not in the mesh; build the sampler only on processes of the mesh"
        )
    rank = 0
    for k in dimensions:
        rank = rank * mesh.size(k) + coordinate[k]
    return (rank, prod(mesh.size(k) for k in dimensions))


def _data_dimensions(mesh: Any) -> list[int]:
    """Return the indices of the dimensions that split the data."""
    names = mesh.mesh_dim_names or ()
    if not names and mesh.ndim > 1:
        raise SamplerError(
            f"the mesh of {mesh.ndim} dimensions has no names for them; give"
            " init_device_mesh(..., mesh_dim_names=('dp', 'tp'))"
        )
    if len(names) <= 1 and not set(names) & _MODEL:
        return [0]  # the only dimension, possibly chosen by the caller: mesh["rows"]
    data = [k for k, name in enumerate(names) if name in _DATA]
    unknown = [name for name in names if name not in _DATA | _MODEL]
    if unknown or not data:
        fault = f"{unknown[0]!r} may split data or the model" if unknown else "none splits data"
        raise SamplerError(
            f"the mesh has the dimensions {', '.join(map(repr, names))}, of which {fault}; give"
            " the one along which data are split, MixtureSampler(mesh=mesh['dp']), or rank= and"
            " world_size="
        )
    return data


def _check_no_shared_replica() -> None:
    """Raise if processes of the job share a replica of the model."""
    module: Any = sys.modules.get("torch.distributed.distributed_c10d")
    groups: list[tuple[str, int]] = []
    with suppress(AttributeError, RuntimeError):  # private to torch, may change
        groups = [(group.group_desc, group.size()) for group in module._world.pg_map]
    for name, size in groups:
        if size > 1 and name in _MEGATRON_GROUPS | _MESH_GROUPS:
            arguments = _MEGATRON_ARGUMENTS if name in _MEGATRON_GROUPS else _MESH_ARGUMENTS
            raise SamplerError(
                f"{size} processes share a replica of the model (process group {name!r}) and need"
                f" the same rows: give {arguments}"
            )


def _check_parts(sampler_ranks: list[int], world_size: int) -> None:
    """Check that each part of a batch is taken, by equally many processes: one replica's."""
    counts = Counter(sampler_ranks)
    if len(sampler_ranks) == world_size > len(counts):
        for process, rank in enumerate(sampler_ranks):
            if rank in sampler_ranks[:process]:
                raise SamplerError(
                    f"rank {process} takes the same part of each batch as another rank: its"
                    f" sampler has rank={rank} of world_size={world_size}; give each rank its own"
                )
    if len({counts[rank] for rank in range(world_size)}) > 1:
        times = ", ".join(f"{counts[rank]}x rank={rank}" for rank in range(world_size)[:8])
        raise SamplerError(
            f"{len(sampler_ranks)} processes take the {world_size} parts of each batch unequally:"
            f" {times}; give each its rank along data parallelism, MixtureSampler(mesh=)"
        )


def _difference(orders: list[PlainDict]) -> str:
    """Return a message naming the ranks that differ from rank 0."""
    differing = [rank for rank, order in enumerate(orders) if order != orders[0]]
    listed = first_few(list(map(str, differing)), 8)
    subject = f"rank {listed} has" if len(differing) == 1 else f"ranks {listed} have"
    return (
        f"{subject} a different order of samples from rank 0:"
        f" {_field_difference(orders[differing[0]], orders[0])}; build the sampler identically"
        " on every rank, and call set_weights with the same weights before the same batch on all"
    )


def _field_difference(theirs: PlainDict, ours: PlainDict) -> str:
    if theirs["changes"] != ours["changes"] and theirs["domains"] == ours["domains"]:
        changes = theirs["changes"] + ours["changes"]
        unshared = [change["position"] for change in changes if changes.count(change) == 1]
        return f"its weights differ from batch {min(unshared) // ours['batch_size']} on"
    differing = [name for name in ours if theirs[name] != ours[name]]
    field = min(differing, key=lambda name: name in _DERIVED_FIELDS)
    return f"its {field} is {str(theirs[field])[:200]} instead of {str(ours[field])[:200]}"
