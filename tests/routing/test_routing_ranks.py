"""Two ranks count together what one counts alone, wrapped by DDP and by FSDP2."""

import numpy as np
import pytest
import routing_job
import torch
from ranks import finish, start_ranks
from routing_job import DOMAINS, batches, tiny

from mixopt.routing import RouterStats


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
    assert first == second
    together = RouterStats.attach(tiny(), DOMAINS)
    together.load_state_dict(first)
    for one, two in zip(alone.layers, together.total().layers, strict=True):
        assert np.array_equal(one.counts_DE, two.counts_DE)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_rank_does_not_tell_its_own_counts_for_those_of_all(kind, folder):
    message = (folder / f"{kind}.0.txt").read_text()
    assert message.startswith("1 batches of this rank are not reduced: call stats.reduce()")
