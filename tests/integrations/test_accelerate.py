"""accelerate on two ranks: our loader is left as it is, and a second split is found out."""

from __future__ import annotations

import json

import pytest
from places import SUPPORT
from ranks import finish, start_ranks
from sampler_rows import located
from torch.utils.data import DataLoader
from trainer_parts import random_rows

from mixopt import MixtureSampler

pytest.importorskip("accelerate", reason="accelerate is absent")
pytestmark = pytest.mark.nightly

JOB = SUPPORT / "accelerate_job.py"
BATCHES = 7
MESSAGE = (
    "accelerate's prepare() would split each batch over the ranks a second time: do not prepare "
    "a DataLoader over a MixtureSampler or a MixtureStream; use MixtureLoader(dataset, sampler), "
    "which prepare() leaves unchanged"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("accelerate")
    finish(start_ranks(2, JOB, out))
    return [json.loads((out / f"found.{rank}").read_text()) for rank in range(2)]


def expected():
    order = MixtureSampler(random_rows().sizes, [0.5, 0.3, 0.2], batch_size=8)
    pairs = [located(order, k, k + 1) for k in range(BATCHES)]
    return [[list(p) for p in zip(d.tolist(), r.tolist(), strict=True)] for d, r in pairs]


@pytest.mark.parametrize("dispatches", [False, True])
def test_a_prepared_loader_of_ours_is_left_as_it_is(found, dispatches):
    one, other = (ranks[f"loader {dispatches}"] for ranks in found)
    assert one["same"]
    assert other["same"]
    joined = [a + b for a, b in zip(one["rows"], other["rows"], strict=True)]
    assert joined == expected()


@pytest.mark.parametrize("dispatches", [False, True])
@pytest.mark.parametrize("kind", ["plain", "stream"])
def test_a_second_split_is_refused_on_every_rank(found, kind, dispatches):
    assert [ranks[f"{kind} {dispatches}"] for ranks in found] == [MESSAGE] * 2


@pytest.mark.parametrize("dispatches", [False, True])
def test_accelerate_may_split_what_is_not_split_yet(found, dispatches):
    one, other = (ranks[f"whole {dispatches}"]["rows"] for ranks in found)
    assert [a + b for a, b in zip(one, other, strict=True)] == expected()


def test_one_process_may_prepare_what_it_likes():
    from accelerate import Accelerator

    order = MixtureSampler(random_rows().sizes, [0.5, 0.3, 0.2], batch_size=8, batches=3)
    prepared = Accelerator(cpu=True).prepare(DataLoader(random_rows(), batch_sampler=order))
    assert len(list(prepared)) == 3
    assert not hasattr(order, "sampler")
