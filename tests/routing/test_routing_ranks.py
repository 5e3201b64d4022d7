"""Two ranks count together what one counts alone, wrapped by DDP and by FSDP2."""

import numpy as np
import pytest
import routing_job
import torch
from ranks import finish, start_ranks
from routing_job import DOMAINS, batches, gates, tiny

from mixopt.routing import RouterStats
from mixopt.routing.counters.reduction import ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    finish(start_ranks(2, routing_job.__file__, out))
    return out


@pytest.fixture(scope="module")
def alone():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    for tokens, ids, mask in [*data, data[-1]]:
        with stats.domains(ids, mask):
            model(tokens)
    return stats.total()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_together_count_what_one_counts(kind, folder, alone):
    first, second = (
        torch.load(folder / f"{kind}.{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert all(np.array_equal(first[key], second[key]) for key in first)
    together = RouterStats.attach(tiny(), DOMAINS)
    together.load_state_dict(first)
    for one, two in zip(alone.layers, together.total().layers, strict=True):
        assert np.array_equal(one.counts_DE, two.counts_DE)
        np.testing.assert_allclose(one.probability_DE, two.probability_DE, rtol=1e-5)


def test_two_ranks_together_weigh_what_one_weighs(folder):
    model = gates()
    stats, both = RouterStats.attach(model, DOMAINS), RouterStats.attach(gates(), DOMAINS)
    for tokens, ids, mask in batches():
        with stats.domains(ids, mask):
            model(tokens)
    first, second = (torch.load(folder / f"gates.{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    both.load_state_dict(first)
    for one, two in zip(stats.total().layers, both.total().layers, strict=True):
        assert np.array_equal(one.counts_DE, two.counts_DE)
        assert np.array_equal(one.unused_D, two.unused_D)
        # Gates are of products whose order depends on the size of a batch.
        weight_DE = one.weight_HDE.sum(0)
        np.testing.assert_allclose(two.weight_HDE.sum(0), weight_DE, rtol=1e-5)
        np.testing.assert_allclose(two.probability_DE, one.probability_DE, rtol=1e-5)
    assert [one.weighs for one in both.total().layers] == [True, True, False]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_rank_does_not_tell_its_own_counts_for_those_of_all(kind, folder):
    message = (folder / f"{kind}.0.txt").read_text()
    assert message.startswith("1 batches of this rank are not reduced: call stats.reduce()")


def test_without_a_process_group_there_is_one_rank():
    assert ranks() == 1
