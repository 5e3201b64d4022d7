"""Ranks whose orders of samples differ are found, on real ranks, and the error names the rank."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from ranks import on_ranks

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.errors import SamplerError
from mixopt.integrations import MixtureState

SIZES = {"web": 500, "code": 500, "books": 500}
WEIGHTS, OTHER = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]


def over(**options):
    return MixtureSampler(SIZES, WEIGHTS, **{"batch_size": 12} | options)


def trained(kind):
    """Take 30 batches, and write a checkpoint; return what was raised."""
    last = dist.get_rank() == dist.get_world_size() - 1
    order = over(seed=int(last)) if kind == "seed" else over()
    if kind == "apart":
        before = over()
        before.received(40 + last)
        order.load_state_dict(before.state_dict())
    if kind == "part":
        order = over(rank=0, world_size=dist.get_world_size())
    rows = {name: [{"x": k} for k in range(size)] for name, size in SIZES.items()}
    mixture = MixtureLoader(MixtureDataset(rows), order)
    for _ in mixture:
        if order.batch == 20 and kind in {"loader", "alike"}:
            mixture.set_weights(OTHER if last or kind == "alike" else WEIGHTS, 22)
        if order.batch >= 30:
            break
    try:
        MixtureState(mixture).state_dict()
    except SamplerError as error:
        return str(error)
    return None


def test_weights_that_one_rank_alone_changed_are_found_at_a_checkpoint():
    first, *others = on_ranks(3, __file__, "trained", "loader")
    assert others == [first] * 2
    assert first.startswith(
        "rank 2 has a different order of samples from rank 0: its weights differ from batch 22 on"
    )
    assert "\n" not in first


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("seed", "rank 1 has a different order of samples from rank 0: its seed is 1, there"),
        ("part", "rank 1 takes the same part of each batch as another"),
        ("apart", "its position is 504, there it is 492"),
    ],
)
def test_another_seed_part_or_checkpoint_on_one_rank_is_found(kind, text):
    first, second = on_ranks(2, __file__, "trained", kind)
    assert text in first
    assert first == second


@pytest.mark.nightly
def test_weights_that_all_ranks_changed_alike_are_no_error():
    assert on_ranks(2, __file__, "trained", "alike") == [None] * 2
