"""MixtureStream: exact shares, the same batches for any ranks and workers, exact resume."""

import json
from itertools import islice

import datasets
import numpy as np
import pytest
from changed_state import replaced
from datasets.distributed import split_dataset_by_node
from refusals import refusal, refuses
from stream_sources import SIZES, Resumable, hub, numbered, tokens_of
from torch.utils.data import DataLoader

from mixopt import CorpusError, MixtureStream, SamplerError
from mixopt.errors import MixoptError
from mixopt.loading.stream_lanes import deal

WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}
OTHER = {"web": 0.0, "code": 0.2, "books": 0.8}


def lists(**options):
    sources = {name: numbered(name) for name in SIZES}
    return MixtureStream(sources, WEIGHTS, batch_size=8, buffer=16, **options)


def sharded(**options):
    sources = {name: hub(numbered(name), 8) for name in SIZES}
    return MixtureStream(sources, WEIGHTS, batch_size=8, buffer=16, **options)


def stream_of(source, **options):
    return MixtureStream({"web": source}, [1.0], **{"batch_size": 4, "buffer": 8, **options})


def ids(batches):
    return [batch["id"].tolist() for batch in batches]


@pytest.mark.parametrize("lanes", [1, 8])
def test_every_document_of_a_lane_comes_once_before_any_comes_twice(lanes):
    rows = [i for batch in ids(islice(sharded(lanes=lanes), 70)) for i in batch]
    for name, size in SIZES.items():
        first = numbered(name)[0]["id"]
        bounds = [k * (size // 8) + min(k, size % 8) for k in range(9)]  # as datasets has it
        for lane in range(lanes):
            shards = [range(bounds[k], bounds[k + 1]) for k in range(lane, 8, lanes)]
            expected = [first + k for shard in shards for k in shard]
            seen = [expected.index(i) for i in rows if i in expected]
            full = len(seen) // len(expected) * len(expected)
            found = np.bincount(np.array(seen[:full], int), minlength=len(expected))
            assert found.tolist() == [full // len(expected)] * len(expected)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_dataloader_hands_the_batches_on_and_one_with_workers_is_refused():
    assert ids(islice(DataLoader(lists(), batch_size=None), 5)) == ids(islice(lists(), 5))
    assert not hasattr(lists(), "set_epoch")
    batch = next(iter(stream_of(numbered("web"), length=40, tokenize=tokens_of)))
    assert batch["tokens"].tolist() == [int((batch["document"] >= 0).sum())]
    assert batch["supervised"].tolist() == [int((batch["labels"] >= 0).sum())]
    assert set(batch["input_ids"][batch["document"] < 0].tolist()) == {0}
    with pytest.raises(SamplerError, match=r"give MixtureStream\(workers=\)"):
        next(iter(DataLoader(lists(), batch_size=None, num_workers=1)))


def test_with_workers_new_weights_apply_from_the_first_batch_not_yet_requested():
    prefetch = 3
    stream = sharded(workers=2, prefetch=prefetch)
    iterator = iter(stream)
    first = [next(iterator) for _ in range(5)]
    refuses(
        SamplerError, f"comes too late: {5 + prefetch} is the next", stream.set_weights, OTHER, 5
    )
    held = stream.set_weights(OTHER)
    assert held == 5 + prefetch
    batches = first + [next(iterator) for _ in range(10)]
    assert ids(batches) == ids(islice(sharded(schedule=[(held, OTHER)]), 15))
    iterator.close()
    assert stream.set_weights(WEIGHTS) == 15


def test_a_source_that_has_shrunk_or_cannot_go_on_is_one_line():
    passes = iter([numbered("web", 40), numbered("web", 39)])
    with pytest.raises(CorpusError, match=r"after 39 .* in pass 1; the pass before had 40: part"):
        list(islice(stream_of(lambda: next(passes)), 30))
    stream, other = stream_of(numbered("web", 40)), stream_of(numbered("web", 20))
    list(islice(stream, 8))
    other.load_state_dict(stream.state_dict())
    refuses(CorpusError, r"^domain 'web': .* part of it is missing", next, iter(other))

    class Stubborn(Resumable):
        def load_state_dict(self, state):
            raise KeyError("place")

    stream = stream_of(lambda: Resumable(numbered("web", 40)))
    other = stream_of(lambda: Stubborn(numbered("web", 40)))
    list(islice(stream, 8))
    other.load_state_dict(stream.state_dict())
    refuses(CorpusError, r"source: cannot be resumed: KeyError: 'place'", next, iter(other))


def test_a_shard_that_vanishes_between_passes_is_one_line(tmp_path):
    files = [tmp_path / f"{k}.jsonl" for k in range(4)]
    for k, file in enumerate(files):
        file.write_text("".join(json.dumps({"id": 10 * k + i}) + "\n" for i in range(10)))
    names = [str(file) for file in files]
    source = datasets.load_dataset("json", data_files=names, split="train", streaming=True)
    stream = iter(stream_of(source, lanes=1))
    list(islice(stream, 9))
    files[2].unlink()
    with pytest.raises(CorpusError, match=r"^domain 'web': after document \d+ of pass 1 .*FileNot"):
        list(islice(stream, 20))


@pytest.mark.parametrize("resumable", [True, False])
def test_resume_tokenises_a_block_and_reads_up_to_it_what_has_no_state(resumable):
    class Source(Resumable):
        read = 0

        def __iter__(self):
            for document in super().__iter__():
                Source.read += 1
                yield document

    documents, seen = numbered("web", 300), []
    options = {
        "length": 16,
        "tokenize": lambda stream: seen.append(stream["id"]) or tokens_of(stream),
    }

    def source():
        return Source(documents) if resumable else iter(Source(documents))

    stream = stream_of(source, **options)
    list(islice(stream, 30))
    last = max(seen)
    seen.clear()
    Source.read = 0
    other = stream_of(source, **options)
    other.load_state_dict(stream.state_dict())
    next(iter(other))
    assert last - 8 < min(seen) <= max(seen) <= last + 8
    assert (Source.read <= 16) is resumable


def test_the_state_is_small_and_does_not_grow_with_what_was_read():
    stream = stream_of(numbered("web"), length=512, tokenize=tokens_of)
    sizes = []
    for _ in range(3):
        list(islice(stream, 3))
        sizes.append(len(json.dumps(stream.state_dict()["domains"])))
    assert max(sizes) < 60
    many = MixtureStream({"web": hub(numbered("web"), 32)}, [1.0], batch_size=32).state_dict()
    assert (many["lanes"], many["block"], many["length"]) == (16, 4096 // 16, None)
    dealt = deal(np.array([0, 0, 1, 1, 2, 2, 0, 1]), 4, 3).tolist()
    assert dealt == [[0, 1], [2, 0], [1, 2], [0, 1]], "as by earlier versions"
    first = ids(islice(sharded(), 1))
    assert first == [[1000, 1038, 1076, 1115, 2061, 2076, 3047, 3053]]


def test_what_is_no_source_and_settings_that_cannot_be_right_are_refused():
    refuses(CorpusError, "domain 'web': NoneType cannot be iterated over", stream_of, None)
    empty = type("Empty", (list,), {"num_shards": 0, "shard": None})
    refuses(SamplerError, "'web': its source can be divided into 0", stream_of, empty())
    with pytest.raises(SamplerError, match="given to ranks by split_dataset_by_node"):
        stream_of(split_dataset_by_node(hub(numbered("web"), 4), 0, 2))
    for options, says in (
        ({"lanes": 3}, r"lanes 3: 1 ranks .* lanes= can be 1, 2, 4, 8"),
        ({"rank": 0, "world_size": 4, "lanes": 2}, r"lanes= can be 4, 8"),
        ({"lanes": 16}, "'web': its source can be divided into 8, and 16 lanes"),
        ({"workers": 9}, "workers 9: a rank has 8 lanes; use at most that"),
    ):
        refuses(SamplerError, says, sharded, **options)


def test_documents_are_shuffled_and_otherwise_in_the_next_pass():
    stream = stream_of(numbered("web"), batch_size=20, buffer=100)
    rows = [i for batch in ids(islice(stream, 30)) for i in batch]
    assert rows[:100] != sorted(rows[:100])
    assert sorted(rows[:100]) == list(range(1000, 1100))
    assert sorted(rows[300:]) == sorted(rows[:300])
    assert rows[300:] != rows[:300]


ABSURD = [2**63, -1, float("nan"), "x", None, True, [], {}, [[[]]], 1.5]


def advanced(**options):
    stream = sharded(lanes=2, **options)
    list(islice(stream, 7))
    return stream


def places(content, path=()):
    for name, value in content.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


def test_every_missing_field_is_named_at_once_and_an_absurd_one_with_the_first_batch():
    state = advanced().state_dict()
    for k, place in enumerate(places(state)):
        stream = sharded(lanes=2)
        refuses(MixoptError, place[-1], stream.load_state_dict, replaced(state, place, ...))
        absurd = replaced(state, place, ABSURD[k % len(ABSURD)])
        refusal(stream.load_state_dict, absurd) or refusal(next, iter(stream))


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("domains", "web", "0"), [-1, 0, 0, 0, 0, None], "domains: web: 0.0: -1 is not a whole n"),
        (("block",), 64, "block: it is 64, here 8"),
        (("format",), "x", "not a state of format 'mixopt-stream/5'"),
    ],
)
def test_a_state_that_is_refused_changes_nothing(place, value, says):
    stream, state = advanced(), advanced().state_dict()
    refuses(SamplerError, says, stream.load_state_dict, replaced(state, place, value))
    assert stream.state_dict() == state


def test_more_rows_taken_than_the_block_has_is_refused_each_time():
    stream, state = sharded(lanes=2), advanced().state_dict()
    first = state["domains"]["web"]["0"]
    stream.load_state_dict(replaced(state, ("domains", "web", "0"), [*first[:4], 99, first[5]]))
    for _ in range(2):
        refuses(
            CorpusError, "has taken 99 rows of a block that has 8 here", list, islice(stream, 20)
        )


def test_a_state_of_ranks_is_gathered_by_torch_distributed(monkeypatch):
    ranks, alone = [advanced(rank=rank, world_size=2) for rank in range(2)], sharded(lanes=2)
    later = ids(islice(sharded(lanes=2), 16))[7:]
    refuses(SamplerError, "torch.distributed is not initialised", ranks[0].state_dict)

    def gather(found, state):
        found[:] = [rank._own_state() for rank in ranks]

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    alone.load_state_dict(ranks[1].state_dict())
    assert ids(islice(alone, 9)) == later
    next(iter(ranks[1]))
    refuses(SamplerError, "state of rank 1: sampler: is not that of rank 0", ranks[0].state_dict)
