"""MixtureStream: exact shares over streams, which do not depend on workers, and exact resume."""

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
@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_every_document_of_a_lane_comes_once_before_any_comes_twice(make, lanes):
    rows = [i for batch in ids(islice(make(lanes=lanes), 70)) for i in batch]
    shards = {1: 1, 2: 2, 8: 4}[lanes] if make is hub else 1
    for first, size in ((1000, 300), (2000, 120), (3000, 60)):
        mine = [i - first for i in rows if first <= i < first + 1000]
        for lane in range(lanes):
            own = documents_of_lane(lane, lanes, shards, size)
            seen = [own.index(i) for i in mine if i in own]
            full = len(seen) // len(own) * len(own)
            counts = np.bincount(np.array(seen[:full], int), minlength=len(own))
            assert counts.tolist() == [full // len(own)] * len(own)


def documents_of_lane(lane, lanes, shards, size):
    """The shards of a part one after the other, dealt to the part's lanes."""
    shared = lanes // shards
    bounds = np.linspace(0, size, 5).astype(int)
    part = [
        k
        for shard in range(lane // shared, 4, shards)
        for k in range(bounds[shard], bounds[shard + 1])
    ]
    own = part if shards > 1 else list(range(size))
    return own[lane % shared :: shared]


def test_lanes_come_to_the_end_of_their_documents_together():
    rows = np.array([i for batch in ids(islice(lists(), 70)) for i in batch]) - 1000
    web = rows[rows < 1000][:270]  # nine tenths of a pass
    assert len(set(web.tolist())) >= 266


def test_documents_are_shuffled_and_otherwise_in_the_next_pass():
    one = MixtureStream({"web": numbered("web")}, [1.0], batch_size=20, buffer=100, lanes=1)
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
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_workers(make, workers):
    batches = list(islice(make(workers=workers), 20))
    for mine, other in zip(batches, islice(make(), 20), strict=True):
        assert mine.keys() == other.keys()
        assert all(np.array_equal(mine[name], other[name]) for name in mine)


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
    batches = list(islice(lists(schedule=[(10, OTHER)], workers=2), 30))
    assert counts(batches[:10])[0] == 40
    assert counts(batches[10:])[0] == 0


@pytest.mark.parametrize("prefetch", [1, 3])
def test_weights_change_with_workers_from_the_first_batch_that_none_was_asked_for(prefetch):
    one = lists(workers=2, prefetch=prefetch)
    iterator = iter(one)
    first = [next(iterator) for _ in range(5)]
    with pytest.raises(SamplerError, match=f"comes too late: {5 + prefetch} is the next"):
        one.set_weights(OTHER, 5)
    held = one.set_weights(OTHER)
    assert held == 5 + prefetch
    batches = first + [next(iterator) for _ in range(10)]
    planned = lists(schedule=[(held, OTHER)])
    assert ids(batches) == ids(islice(planned, 15))
    iterator.close()
    assert one.set_weights(WEIGHTS) == 15


def test_a_worker_of_a_dataloader_is_refused():
    with pytest.raises(SamplerError, match=r"give MixtureStream\(workers=\)"):
        next(iter(DataLoader(lists(), batch_size=None, num_workers=1)))


def test_a_dataloader_without_workers_hands_the_batches_on():
    assert ids(islice(DataLoader(lists(), batch_size=None), 5)) == ids(islice(lists(), 5))


def test_a_pass_has_a_length():
    one = lists(batches=5)
    assert len(one) == 5
    assert len(ids(one)) == 5
    assert ids(islice(lists(), 10))[5:] == ids(one)


def test_a_lane_without_documents_says_so():
    few = MixtureStream({"a": [{"id": 0}]}, [1.0], batch_size=4, rank=1, world_size=2)
    with pytest.raises(CorpusError, match="'a': its source, or a part of it, has 1 documents for"):
        next(iter(few))


def test_what_is_not_a_state_is_refused():
    with pytest.raises(
        SamplerError, match="not a state of format 'mixopt-stream/4': it has no format"
    ):
        lists().load_state_dict({})
