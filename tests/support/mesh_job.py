"""Processes of a device mesh that take batches, for test_mesh_ranks.

python mesh_job.py KIND OUT    with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT

Each process writes what it found to OUT/said.RANK.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from mixopt import MixtureSampler, MixtureStream
from mixopt.errors import MixoptError
from mixopt.sampling import check_ranks
from mixopt.system import read_json, write_json

SIZES = {"web": 90, "code": 41, "books": 17}
WEIGHTS = [0.5, 0.3, 0.2]
OTHER = [0.2, 0.3, 0.5]


def over(**options):
    return MixtureSampler(SIZES, WEIGHTS, batch_size=8, **options)


def mesh_of(names, *sizes):
    return init_device_mesh("cpu", sizes, mesh_dim_names=names)


def error_of(act):
    try:
        act()
    except MixoptError as error:
        return str(error)
    return None


def taken(order, stop):
    """Rows of the batches up to one, with a change of weights on the way."""
    rows = []
    for part in order:
        rows.append(part)
        if order.batch == 11:
            order.set_weights(OTHER, 14)
        if order.batch == stop:
            return rows
    return rows


def trained(out):
    """Train on 2 x 2 processes, and write a state."""
    order = over(mesh=mesh_of(("dp", "tp"), 2, 2))
    rows = taken(order, 40)
    check_ranks(order)
    write_json(out / f"state.{dist.get_rank()}", order.state_dict())
    return {"part": [order.rank, order.world_size], "rows": rows}


def resumed(out):
    """Go on from it on 4 x 1."""
    order = over(mesh=mesh_of(("dp", "tp"), 4, 1))
    order.load_state_dict(read_json(out / "state.0"))
    return {"part": [order.rank, order.world_size], "rows": taken(order, 70)}


def parts(_):
    """The parts that meshes of other names and shapes give."""
    whole = mesh_of(("pp", "dp_replicate", "dp_shard", "tp"), 1, 2, 2, 1)
    two = mesh_of(("data", "pp"), 2, 2)
    orders = {
        "replicate, shard": over(mesh=whole),
        "shard alone": over(mesh=whole["dp_shard"]),
        "flattened": over(mesh=whole["dp_replicate", "dp_shard"]._flatten("batch")),
        "data": over(mesh=two),
        "named by its user": over(mesh=mesh_of(("rows", "tp"), 2, 2)["rows"]),
        "unnamed": over(mesh=init_device_mesh("cpu", (4,))),
    }
    found = {name: [order.rank, order.world_size] for name, order in orders.items()}
    texts = {"web": ["a b"] * 9}
    stream = MixtureStream(texts, [1.0], batch_size=8, tokenize=str.split, mesh=two)
    return {**found, "position of a stream": next(iter(stream))["position"]}


def refused(_):
    """What is said of meshes that do not say along what data are split."""
    model = mesh_of(("tp", "pp"), 2, 2)
    return {
        "none": error_of(lambda: over(mesh=model)),
        "model": error_of(lambda: over(mesh=model["tp"])),
        "unknown": error_of(lambda: over(mesh=mesh_of(("dp", "ep"), 2, 2))),
        "unnamed": error_of(lambda: over(mesh=init_device_mesh("cpu", (2, 2)))),
        "both": error_of(lambda: over(mesh=model, rank=0, world_size=2)),
        "object": error_of(lambda: over(mesh="dp")),
        "nothing given": error_of(over),
        "numbers": error_of(lambda: over(rank=0, world_size=1)),
        "part of the job": error_of(lambda: over(mesh=_of_two())),
    }


def _of_two():
    from torch.distributed.device_mesh import DeviceMesh

    return DeviceMesh("cpu", [0, 1], mesh_dim_names=("dp",))


def one_peer_changed(_):
    """One process of a replica changes the weights, and a checkpoint is written."""
    order = over(mesh=mesh_of(("dp", "tp"), 2, 2))
    if dist.get_rank() == 3:
        order.set_weights(OTHER, 22)
    return {"error": error_of(lambda: check_ranks(order))}


def wrong_numbers(_):
    """Numbers that are no ranks along data parallelism."""
    uneven = over(rank=[0, 0, 0, 1][dist.get_rank()], world_size=2)
    mesh = mesh_of(("dp", "tp"), 2, 2)
    sizes = over(mesh=mesh) if dist.get_rank() else over(rank=0, world_size=4)
    return {
        "uneven": error_of(lambda: check_ranks(uneven)),
        "sizes": error_of(lambda: check_ranks(sizes)),
        "peers": error_of(lambda: check_ranks(over(mesh=mesh))),
    }


def main(kind, out):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    write_json(out / f"said.{rank}", KINDS[kind](out))
    dist.barrier()
    dist.destroy_process_group()


KINDS = {
    one.__name__: one for one in (trained, resumed, parts, refused, one_peer_changed, wrong_numbers)
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    os._exit(0)
