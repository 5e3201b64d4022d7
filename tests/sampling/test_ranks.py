"""The part of a batch that a process takes, and ranks whose orders differ; real processes too."""

import re
from collections import defaultdict
from contextlib import suppress
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch.distributed as dist
from ranks import on_ranks
from refusals import refusal, refuses
from stream_sources import hub
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler, MixtureStream
from mixopt.errors import SamplerError
from mixopt.integrations import MixtureState
from mixopt.sampling import check_ranks, deal_to_rank, ranks

SIZES = {"web": 90, "code": 41, "books": 17}
WEIGHTS = [0.5, 0.3, 0.2]
OTHER = [0.2, 0.3, 0.5]


def over(**options):
    return MixtureSampler(SIZES, WEIGHTS, **{"batch_size": 8} | options)


def test_a_batch_is_dealt_to_ranks_in_equal_consecutive_parts():
    rows_KB = np.arange(12).reshape(2, 6)
    parts = [deal_to_rank(rows_KB, rank, 3) for rank in range(3)]
    assert parts[1].tolist() == [[2, 3], [8, 9]]
    assert np.array_equal(np.concatenate(parts, axis=1), rows_KB)


# --- The part of a process, in a job of 4 whose groups are torch's and exchange nothing ----------


@pytest.fixture
def be_rank():
    def start(rank):
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=4)

    start(0)
    yield start
    dist.destroy_process_group()


def mesh_of(names, *sizes):
    return init_device_mesh("cpu", sizes, mesh_dim_names=names)


def whole():
    return mesh_of(("pp", "dp_replicate", "dp_shard", "tp"), 1, 2, 2, 1)


BY_RANK = [(rank, 4) for rank in range(4)]
HALVES = [(0, 2), (0, 2), (1, 2), (1, 2)]
PARTS = {
    "replicate, shard": (whole, BY_RANK),
    "shard alone": (lambda: whole()["dp_shard"], [(0, 2), (1, 2), (0, 2), (1, 2)]),
    "data": (lambda: mesh_of(("data", "pp"), 2, 2), HALVES),
    "named by its user": (lambda: mesh_of(("rows", "tp"), 2, 2)["rows"], HALVES),
    "unnamed": (lambda: init_device_mesh("cpu", (4,)), BY_RANK),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_rank_is_that_along_the_dimensions_that_split_data(be_rank, name):
    make, expected = PARTS[name]
    parts = []
    for rank in range(4):
        be_rank(rank)
        order = over(mesh=make())
        parts.append((order.rank, order.world_size))
    assert parts == expected


def test_a_stream_takes_the_part_of_its_mesh_and_a_job_alone_its_own_ranks(be_rank):
    be_rank(3)
    assert (over().rank, over().world_size) == (3, 4)
    texts = {"web": hub([{"id": k} for k in range(16)], 8)}
    stream = MixtureStream(texts, [1.0], batch_size=8, mesh=mesh_of(("data", "pp"), 2, 2))
    assert next(iter(stream))["position"] == 4


model = partial(mesh_of, ("tp", "pp"), 2, 2)


def megatron():
    dist.new_group([0, 1], group_desc="TENSOR_MODEL_PARALLEL_GROUP")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (model, {}, "dimensions 'tp', 'pp', of which none splits data; give the one"),
        (lambda: model()["tp"], {}, "the mesh has the dimensions 'tp', of which none splits data"),
        (lambda: mesh_of(("dp", "ep"), 2, 2), {}, "'dp', 'ep', of which 'ep' may split data or"),
        (lambda: init_device_mesh("cpu", (2, 2)), {}, "the mesh of 2 dimensions has no names for"),
        (model, {"rank": 0, "world_size": 2}, "mesh is given, and rank and world_size too"),
        (lambda: "dp", {}, "mesh is str; it must be a torch DeviceMesh"),
        (lambda: DeviceMesh("cpu", [1, 2]), {}, "this process is not in the mesh; build the sampl"),
        (lambda: model() and None, {}, "2 processes share a replica of the model (process group '"
         "mesh_tp') and need the same rows: give mesh=, the job's DeviceMesh, or rank="),
        (megatron, {}, "'TENSOR_MODEL_PARALLEL_GROUP') and need the same rows: give"
         " rank=parallel_state.get_data_parallel_rank() and world_size="),
    ],
)  # fmt: skip
def test_a_mesh_without_a_clear_data_dimension_is_refused(be_rank, make, options, message):
    mesh = make()
    assert over(rank=0, world_size=1).rank == 0
    refuses(SamplerError, re.escape(message), over, mesh=mesh, **options)


def test_environment_ranks_that_are_not_numbers_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (over(batch_size=24).rank, over(batch_size=24).world_size) == (1, 3)
    monkeypatch.setenv("RANK", "one")
    refuses(SamplerError, "RANK and WORLD_SIZE in the environment: .*'one'", over)


@pytest.mark.parametrize(("world_size", "error"), [(1, AttributeError), (2, SamplerError)])
def test_accelerate_that_would_split_batches_again_is_refused(world_size, error):
    order = over(rank=0, world_size=world_size)
    assert not hasattr(order, "sampler")
    with pytest.raises(error, match="sampler"):
        exec("order.sampler", {"__name__": "accelerate.data_loader", "order": order})


# --- Ranks that have one order of samples ---------------------------------------------------------


def errors_of(monkeypatch, orders):
    """Return the error of check_ranks on each rank; ranks take turns until all have sent."""
    sent = defaultdict(dict)

    def error_on(rank):
        exchanges = count()

        def gather(gathered, value):
            values = sent[next(exchanges)]
            values[rank] = value
            gathered[:] = [values[k] for k in range(len(orders))]

        job = SimpleNamespace(get_world_size=lambda: len(orders), all_gather_object=gather)
        monkeypatch.setattr(ranks, "_distributed", lambda: job)
        with suppress(KeyError):  # others have not sent yet
            return refusal(check_ranks, orders[rank])

    for _ in range(3):
        errors = [error_on(rank) for rank in range(len(orders))]
    return errors


def parts_of(size, *taken):
    return [over(batch_size=2 * size, rank=rank, world_size=size) for rank in taken]


def seeds(*given):
    place = {"batch_size": len(given), "world_size": len(given)}
    return [over(seed=seed, rank=k, **place) for k, seed in enumerate(given)]


def moved(batches):
    first, second = parts_of(2, 0, 1)
    second.received(batches)
    return [first, second]


def changed(*orders):
    orders[-1].set_weights(OTHER, 22)
    return orders


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parts_of(2, 0, 0, 1, 1), None),
        (lambda: seeds(0, 10**300), "rank 1 has a different order of samples from rank 0: its seed"
         f" is 1{'0' * 199} instead of 0; build the sampler identically on every rank, and call"
         " set_weights with the same weights before the same batch on all"),
        (lambda: seeds(7, 0, 0), "ranks 1, 2 have a different order of samples from rank 0"),
        (lambda: seeds(*[0, 1] * 9, 0), "ranks 1, 3, 5, 7, 9, 11, 13, 15 and 1 more have a"
         " different order of samples from rank 0"),
        (lambda: changed(*parts_of(3, 0, 1, 2)), "rank 2 has a different order of samples from"
         " rank 0: its weights differ from batch 22 on; build"),
        (lambda: moved(3), "its position is 12 instead of 0;"),
        (lambda: [*parts_of(2, 0), *parts_of(4, 1)], "its batch_size is 8 instead of 4;"),
        (lambda: parts_of(2, 0, 0), "rank 1 takes the same part of each batch as another rank: its"
         " sampler has rank=0 of world_size=2; give each rank its own"),
        (lambda: parts_of(2, 0, 0, 0, 1), "4 processes take the 2 parts of each batch unequally:"
         " 3x rank=0, 1x rank=1; give each its rank along data parallelism, MixtureSampler(mesh=)"),
        (lambda: parts_of(9, *range(9), 0), "1x rank=6, 1x rank=7; give each its rank"),
    ],
)  # fmt: skip
def test_ranks_that_differ_are_named_on_all_of_them(monkeypatch, make, message):
    first, *others = errors_of(monkeypatch, make())
    assert set(others) == {first}
    assert message in first if message else first == ""


def trained_apart():
    """Train with weights that the last rank alone changes, and write a checkpoint."""
    order = over(batch_size=12)
    rows = {name: [{"x": k} for k in range(size)] for name, size in SIZES.items()}
    mixture = MixtureLoader(MixtureDataset(rows), order)
    for _ in mixture:
        if order.batch == 20:
            mixture.set_weights(OTHER if order.rank == 2 else WEIGHTS, 22)
        if order.batch == 30:
            break
    return refusal(MixtureState(mixture).state_dict)


def test_weights_that_one_rank_alone_changed_are_found_at_a_checkpoint():
    first, *others = on_ranks(3, __file__, "trained_apart")
    assert others == [first] * 2
    assert first.startswith("rank 2 has a different order of samples from rank 0: its weights diff")


# --- Processes that share a replica of the model, 2 x 2 ------------------------------------------


def taken(order, stop):
    """Rows of the batches up to one, with a change of weights on the way."""
    rows = []
    for part in order:
        rows.append(part)
        if order.batch == 11:
            order.set_weights(OTHER, 14)
        if order.batch == stop:
            break
    return rows


def trained():
    order = over(mesh=mesh_of(("dp", "tp"), 2, 2))
    rows = taken(order, 40)
    check_ranks(order)
    return rows, order.state_dict()


def resumed(state):
    order = over(mesh=mesh_of(("dp", "tp"), 4, 1))
    order.load_state_dict(state)
    return taken(order, 70)


@pytest.mark.nightly
def test_peers_take_the_same_rows_and_a_job_of_another_shape_resumes_after_them():
    undisturbed = over(rank=0, world_size=1)
    undisturbed.set_weights(OTHER, 14)
    expected = undisturbed.order.rows(0, 70).tolist()
    rows, states = zip(*on_ranks(4, __file__, "trained"), strict=True)
    assert (rows[0], rows[2]) == (rows[1], rows[3])
    assert [first + other for first, other in zip(rows[0], rows[2], strict=True)] == expected[:40]
    assert states == (states[0],) * 4
    quarters = zip(*on_ranks(4, __file__, "resumed", states[0]), strict=True)
    assert [[*a, *b, *c, *d] for a, b, c, d in quarters] == expected[40:]
