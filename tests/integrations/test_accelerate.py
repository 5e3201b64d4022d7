"""accelerate on two ranks: it splits our loader only once, and a second split is refused."""

from itertools import islice

import pytest
from ranks import on_ranks
from sampler_rows import pairs_in_order, pairs_of
from stream_sources import hub
from torch.utils.data import DataLoader
from trainer_parts import random_rows

from mixopt import MixtureLoader, MixtureSampler, MixtureStream, SamplerError

pytest.importorskip("accelerate", reason="accelerate is absent")
from accelerate import Accelerator, DataLoaderConfiguration

pytestmark = pytest.mark.nightly

BATCHES = 7
MESSAGE = (
    "accelerate's prepare() would split each batch over the ranks a second time: do not prepare "
    "a DataLoader over a MixtureSampler or a MixtureStream; use MixtureLoader(dataset, sampler), "
    "which prepare() leaves unchanged"
)
WEIGHTS = [0.5, 0.3, 0.2]


def loader(dataset):
    """Our loader."""
    return MixtureLoader(dataset, MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8))


def plain(dataset, **part):
    """A DataLoader of torch's over our sampler."""
    order = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, batches=20, **part)
    return DataLoader(dataset, batch_sampler=order)


def whole(dataset):
    """A DataLoader over a sampler of all ranks' rows, for accelerate to split."""
    return plain(dataset, rank=0, world_size=1)


def stream(_):
    """A DataLoader over our stream."""
    rows = {name: hub([{"row": k} for k in range(99)], 8) for name in ("web", "code", "books")}
    return DataLoader(MixtureStream(rows, WEIGHTS, batch_size=8, batches=20), batch_size=None)


def outcome(accelerator, make):
    """Rows of this rank's first batches, or the message of the error."""
    loader = make(random_rows())
    try:
        prepared = accelerator.prepare(loader)
        rows = pairs_of(islice(prepared, BATCHES))
    except SamplerError as error:
        return str(error)
    return {"same": prepared is loader, "rows": rows}


def outcomes():
    """Try each, dispatched by rank 0 and not."""
    found = {}
    for dispatches in (False, True):
        for make in (loader, plain, whole, stream):
            setting = {"dispatch_batches": dispatches, "split_batches": make is whole}
            setting = DataLoaderConfiguration(**setting)
            accelerator = Accelerator(cpu=True, dataloader_config=setting)
            found[f"{make.__name__} {dispatches}"] = outcome(accelerator, make)
    return found


@pytest.fixture(scope="module")
def found():
    return on_ranks(2, __file__, "outcomes")


@pytest.mark.parametrize(
    ("kind", "is_same"), [("loader False", True), ("loader True", True), ("whole False", False)]
)
def test_accelerate_splits_a_loader_only_once(found, kind, is_same):
    first, second = (ranks[kind] for ranks in found)
    assert (first["same"], second["same"]) == (is_same, is_same)
    order = MixtureSampler(random_rows().sizes, WEIGHTS, batch_size=8)
    joined = [a + b for a, b in zip(first["rows"], second["rows"], strict=True)]
    assert joined == pairs_in_order(order, BATCHES)


@pytest.mark.parametrize("kind", ["plain True", "stream False"])
def test_a_second_split_is_refused_on_every_rank(found, kind):
    assert [ranks[kind] for ranks in found] == [MESSAGE] * 2
