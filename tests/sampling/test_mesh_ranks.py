"""Processes that share a replica of the model take the same rows: real processes, 2 x 2."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from ranks import on_ranks
from stream_sources import hub
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mixopt import MixtureSampler, MixtureStream
from mixopt.errors import MixoptError
from mixopt.sampling import check_ranks

pytestmark = pytest.mark.nightly

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


def trained():
    """Train on 2 x 2 processes."""
    order = over(mesh=mesh_of(("dp", "tp"), 2, 2))
    rows = taken(order, 40)
    check_ranks(order)
    return [order.rank, order.world_size], rows, order.state_dict()


def resumed(state):
    """Go on from a state on 4 x 1."""
    order = over(mesh=mesh_of(("dp", "tp"), 4, 1))
    order.load_state_dict(state)
    return [order.rank, order.world_size], taken(order, 70)


def parts():
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
    texts = {"web": hub([{"id": k} for k in range(16)], 8)}
    stream = MixtureStream(texts, [1.0], batch_size=8, mesh=two)
    return {**found, "position of a stream": next(iter(stream))["position"]}


def refused():
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
        "part of the job": error_of(
            lambda: over(mesh=DeviceMesh("cpu", [0, 1], mesh_dim_names=("dp",)))
        ),
    }


def wrong_numbers():
    """Numbers that are no ranks along data parallelism."""
    uneven = over(rank=[0, 0, 0, 1][dist.get_rank()], world_size=2)
    mesh = mesh_of(("dp", "tp"), 2, 2)
    sizes = over(mesh=mesh) if dist.get_rank() else over(rank=0, world_size=4)
    return {
        "uneven": error_of(lambda: check_ranks(uneven)),
        "sizes": error_of(lambda: check_ranks(sizes)),
        "peers": error_of(lambda: check_ranks(over(mesh=mesh))),
    }


def expected(stop):
    """Rows of the global batches of an undisturbed run in one process."""
    order = MixtureSampler(SIZES, WEIGHTS, batch_size=8, rank=0, world_size=1)
    order.set_weights(OTHER, 14)
    return order.order.rows(0, stop).tolist()


def test_peers_take_the_same_rows_and_a_job_of_another_shape_goes_on_with_the_rest():
    said = on_ranks(4, __file__, "trained")
    assert [part for part, _, _ in said] == [[0, 2], [0, 2], [1, 2], [1, 2]]
    _, rows, states = zip(*said, strict=True)
    assert (rows[0], rows[2]) == (rows[1], rows[3])
    assert [one + other for one, other in zip(rows[0], rows[2], strict=True)] == expected(40)
    assert states == (states[0],) * 4

    said = on_ranks(4, __file__, "resumed", states[0])
    assert [part for part, _ in said] == [[rank, 4] for rank in range(4)]
    quarters = zip(*(rows for _, rows in said), strict=True)
    assert [[*a, *b, *c, *d] for a, b, c, d in quarters] == expected(70)[40:]


def test_the_rank_is_that_along_the_dimensions_that_split_data():
    said = on_ranks(4, __file__, "parts")
    by_rank = [[rank, 4] for rank in range(4)]
    halves = [[0, 2], [0, 2], [1, 2], [1, 2]]
    assert {name: [one[name] for one in said] for name in said[0]} == {
        "replicate, shard": by_rank,
        "shard alone": [[0, 2], [1, 2], [0, 2], [1, 2]],
        "flattened": by_rank,
        "data": halves,
        "named by its user": halves,
        "unnamed": by_rank,
        "position of a stream": [0, 0, 4, 4],
    }


def test_a_mesh_that_does_not_say_along_what_data_are_split_is_refused_with_its_dimensions():
    said = on_ranks(4, __file__, "refused")
    begins = {
        "none": "the mesh has the dimensions 'tp', 'pp', of which none splits data; give the one",
        "model": "the mesh has the dimensions 'tp', of which none splits data",
        "unknown": "the mesh has the dimensions 'dp', 'ep', of which 'ep' may split data or the",
        "unnamed": "the mesh of 2 dimensions has no names for them; give init_device_mesh(",
        "both": "mesh is given, and rank and world_size too",
        "object": "mesh is str; it must be a torch DeviceMesh",
        "nothing given": "2 processes share a replica of the model (process group 'mesh_tp') and",
    }
    for one in said:
        assert one["numbers"] is None
        assert {name: one[name][: len(text)] for name, text in begins.items()} == begins
        assert "\n" not in "".join(one[name] for name in begins)
    missing = "this process is not in the mesh; make the sampler only on those that are"
    assert [one["part of the job"] for one in said] == [None, None, missing, missing]


def test_numbers_that_are_no_ranks_along_data_parallelism_are_found():
    said = on_ranks(4, __file__, "wrong_numbers")
    for one in said:
        assert one["peers"] is None
        assert one["uneven"].startswith(
            "4 processes take the 2 parts of each batch unequally: 3x rank=0, 1x rank=1; give each"
        )
        assert "rank 0 has a different order" in one["sizes"]
        assert "its world_size is 4, there it is 2" in one["sizes"]
