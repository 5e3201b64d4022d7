"""MixtureStream: exact shares over streams, their own parts for ranks and workers, exact resume."""

from __future__ import annotations

import json
from itertools import islice

import datasets
import numpy as np
import pytest
from torch.utils.data import DataLoader

from mixopt import CorpusError, MixtureStream, SamplerError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}
OTHER = {"web": 0.0, "code": 0.2, "books": 0.8}
SIZES = {"web": 300, "code": 120, "books": 60}


def numbered(name):
    """Documents that say which they are: one token by domain, number and end."""
    first = {"web": 1000, "code": 2000, "books": 3000}[name]
    return [{"id": first + k} for k in range(SIZES[name])]


def streamed(name, shards=4):
    table = datasets.Dataset.from_list(numbered(name))
    return table.to_iterable_dataset(num_shards=shards)


def lists(**options):
    options.setdefault("batch_size", 8)
    options.setdefault("buffer", 16)
    return MixtureStream({name: numbered(name) for name in SIZES}, WEIGHTS, **options)


def hub(**options):
    options.setdefault("batch_size", 8)
    options.setdefault("buffer", 16)
    return MixtureStream({name: streamed(name) for name in SIZES}, WEIGHTS, **options)


def ids(batches):
    return [batch["id"].tolist() for batch in batches]


def counts(batches):
    return np.bincount(np.concatenate([batch["domain"] for batch in batches]), minlength=3)


@pytest.mark.parametrize("make", [lists, hub])
def test_shares_are_exact_at_every_batch(make):
    batches = list(islice(make(), 50))
    for k in range(1, 50):
        assert np.abs(counts(batches[:k]) - k * 8 * np.array([0.5, 0.3, 0.2])).max() < 2


@pytest.mark.parametrize("make", [lists, hub])
def test_every_document_comes_once_before_any_comes_twice(make):
    rows = [i for batch in ids(islice(make(), 70)) for i in batch]
    for first, size in ((1000, 300), (2000, 120), (3000, 60)):
        mine = [i for i in rows if first <= i < first + 1000]
        full = len(mine) // size * size
        assert (
            np.bincount(np.array(mine[:full], int) - first, minlength=size).tolist()
            == [full // size] * size
        )


def test_documents_are_shuffled_and_otherwise_in_the_next_pass():
    one = MixtureStream({"web": numbered("web")}, [1.0], batch_size=20, buffer=100)
    rows = [i for batch in ids(islice(one, 30)) for i in batch]
    assert rows[:100] != sorted(rows[:100])
    assert sorted(rows[:100]) == list(range(1000, 1100))
    assert sorted(rows[300:]) == sorted(rows[:300])
    assert rows[300:] != rows[:300]


@pytest.mark.parametrize("make", [lists, hub])
def test_ranks_draw_other_documents_and_exact_shares_together(make):
    ranks = [list(islice(make(rank=rank, world_size=2), 20)) for rank in range(2)]
    first, second = ({i for batch in ids(rank) for i in batch} for rank in ranks)
    assert not first & second
    assert np.abs(counts([*ranks[0], *ranks[1]]) - 160 * np.array([0.5, 0.3, 0.2])).max() < 2


@pytest.mark.parametrize("make", [lists, hub])
def test_workers_draw_other_documents_and_exact_shares_together(make):
    batches = list(islice(DataLoader(make(), batch_size=None, num_workers=2), 20))
    rows = [i for batch in ids(batches) for i in batch if i < 2000]
    assert len(set(rows)) == len(rows)
    assert [batch["batch"] for batch in batches] == list(range(20))
    assert np.abs(counts(batches) - 160 * np.array([0.5, 0.3, 0.2])).max() < 2


@pytest.mark.parametrize("make", [lists, hub])
@pytest.mark.parametrize("stop", [0, 1, 7, 25, 60])
def test_a_stream_goes_on_exactly_from_its_state(make, stop):
    whole = ids(islice(make(), 75))
    one = make()
    taken = ids(islice(one, stop))
    state = json.loads(json.dumps(one.state_dict()))
    other = make()
    other.load_state_dict(state)
    assert taken + ids(islice(other, 75 - stop)) == whole


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_packed_documents_go_on_exactly_from_a_state(packing):
    def packed():
        documents = {
            n: [{"text": str(d["id"]) * (d["id"] % 5 + 1)} for d in numbered(n)] for n in SIZES
        }
        return MixtureStream(
            documents,
            WEIGHTS,
            batch_size=4,
            buffer=10,
            length=16,
            packing=packing,
            tokenize=lambda document: [*document["text"].encode(), 0],
        )

    whole = list(islice(packed(), 40))
    assert whole[0]["input_ids"].shape == (4, 16)
    one, other = packed(), packed()
    list(islice(one, 13))
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for before, after in zip(whole[13:], islice(other, 27), strict=True):
        assert np.array_equal(before["input_ids"], after["input_ids"])
        assert np.array_equal(before["document"], after["document"])


def test_weights_change_between_batches_of_this_process():
    one = lists()
    iterator = iter(one)
    first = [next(iterator) for _ in range(10)]
    assert one.set_weights(OTHER) == 10
    second = [next(iterator) for _ in range(20)]
    assert counts(first)[0] == 40
    assert counts(second)[0] == 0
    assert abs(counts(second)[2] - 0.8 * 160) < 2


def test_weights_known_beforehand_reach_workers():
    stream = lists(schedule=[(10, OTHER)])
    batches = list(islice(DataLoader(stream, batch_size=None, num_workers=2), 30))
    assert counts(batches[:10])[0] == 40
    assert counts(batches[10:])[0] == 0


def test_workers_that_would_not_hear_of_new_weights_are_said_so():
    stream = lists(batches=4)
    list(DataLoader(stream, batch_size=None, num_workers=2))
    with pytest.raises(SamplerError, match=r"worker processes, which do not hear.*schedule="):
        stream.set_weights(OTHER)


def test_a_pass_has_a_length():
    one = lists(batches=5)
    assert len(one) == 5
    assert len(ids(one)) == 5
    assert ids(islice(lists(), 10))[5:] == ids(one)


def test_a_worker_without_documents_says_so():
    few = MixtureStream({"a": [{"id": 0}]}, [1.0], batch_size=4, rank=1, world_size=2)
    with pytest.raises(CorpusError, match="'a': reader 1 of 2 gets no documents"):
        next(iter(few))


def test_a_state_of_other_workers_is_refused():
    state = lists(rank=0, world_size=2).state_dict()
    other = lists()
    other.load_state_dict(state)
    with pytest.raises(SamplerError, match="rank 0 of 2, worker 0 of 1; here it is rank 0 of 1"):
        next(iter(other))


def test_what_is_not_a_state_is_refused():
    with pytest.raises(
        SamplerError, match="not a state of format 'mixopt-stream/1': it has no format"
    ):
        lists().load_state_dict({})
