"""Two ranks count together what one counts alone, wrapped by DDP and by FSDP2."""

import numpy as np
import pytest
import torch.distributed as dist
from ranks import on_ranks
from routing_job import DOMAINS, batches, tiny
from torch import nn

from mixopt.errors import RoutingError
from mixopt.routing import RouterStats


def wrapped(kind, model):
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for layer in model.layers:
        fully_shard(layer)
    return fully_shard(model)


def counted(kind):
    """Count on this rank; return what is said before the sum, and the state after it."""
    rank, world = dist.get_rank(), dist.get_world_size()
    model = wrapped(kind, tiny())
    stats = RouterStats.attach(model, DOMAINS)
    for tokens, ids, mask in batches():
        mine = slice(rank, None, world)
        with stats.domains(ids[mine], mask[mine]):
            loss = model(tokens[mine]).square().mean()
        loss.backward()
        stats.reduce()
    with stats.domains(ids[mine], mask[mine]):
        model(tokens[mine])
    with pytest.raises(RoutingError) as caught:
        stats.table()
    stats.reduce()
    return str(caught.value), stats.state_dict()


@pytest.mark.parametrize("kind", [pytest.param("ddp", marks=pytest.mark.nightly), "fsdp"])
def test_two_ranks_together_count_what_one_counts(kind):
    (message, first), (_, second) = on_ranks(2, __file__, "counted", kind)
    assert message.startswith("1 batches of this rank are not reduced: call stats.reduce()")
    assert first == second
    model, data = tiny(), batches()
    alone, together = (RouterStats.attach(item, DOMAINS) for item in (model, tiny()))
    for tokens, ids, mask in [*data, data[-1]]:
        with alone.domains(ids, mask):
            model(tokens)
    together.load_state_dict(first)
    for layer, two in zip(alone.total().layers, together.total().layers, strict=True):
        assert np.array_equal(layer.counts_DE, two.counts_DE)
