"""MixtureDataset and MixtureLoader: the sampler's order, whoever fetches; state of what arrived."""

import json
import pickle
import sys
from functools import partial
from itertools import islice

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from refusals import refuses
from sampler_rows import pairs_in_order, pairs_of
from token_writers import write_index, write_shards
from torch.utils.data import DataLoader

from mixopt import CorpusError, MixtureDataset, MixtureLoader, MixtureSampler, SamplerError
from mixopt.corpus import TokenShards

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

LENGTH = 16
WEIGHTS = [0.5, 0.3, 0.2]
OTHER = [0.0, 0.1, 0.9]
NAMES = ("web", "code", "books")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for k, (name, rows) in enumerate(zip(NAMES, (90, 41, 17), strict=True)):
        tokens = np.random.default_rng(k).integers(0, 50, rows * LENGTH + 5)
        write_shards(folder / name / "train", tokens, shard_tokens=300 if k == 1 else 1 << 20)
    write_index(folder, NAMES)
    return folder


@pytest.fixture
def dataset(corpus):
    return MixtureDataset.from_corpus(corpus, length=LENGTH)


def sampler(dataset, **options):
    return MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, **options)


def order(sizes):
    """Return a sampler of all domains alike."""
    return MixtureSampler(sizes, [1 / len(sizes)] * len(sizes), batch_size=4)


def loader(dataset, *, workers=0, prefetch=2, accumulation=None, **options):
    how = {"workers": workers, "prefetch": prefetch, "accumulation": accumulation}
    return MixtureLoader(dataset, sampler(dataset, **options), **how)


def expected(dataset, batches, *, changes=()):
    known = sampler(dataset)
    for batch, weights in changes:
        known.set_weights(weights, batch=batch)
    return pairs_in_order(known, batches)


def drive(one, batches, swaps=()):
    """Run a loop over a loader; swap weights after some batches, note when they hold."""
    seen, held, swaps = [], [], dict(swaps)
    for batch in one:
        seen.append(batch)
        if len(seen) in swaps:
            held.append(one.set_weights(swaps[len(seen)]))
        if len(seen) == batches:
            break
    return seen, held


def test_a_dataset_has_the_domains_one_after_the_other(dataset, corpus):
    assert dataset.sizes == {"web": 90, "code": 41, "books": 17}
    tokens = np.fromfile(corpus / "books" / "train" / "00000.bin", "<u2")
    sample = dataset[90 + 41 + 2]
    assert sample["input_ids"].tolist() == tokens[2 * LENGTH : 3 * LENGTH].tolist()
    assert (int(sample["domain"]), int(sample["row"])) == (2, 2)
    samples = dataset.__getitems__([0, 91, 2])
    assert [int(item["row"]) for item in samples] == [0, 1, 2]
    sent = pickle.dumps(dataset)  # to another process, without its tokens
    assert len(sent) < 3000
    assert np.array_equal(pickle.loads(sent).read([5])["input_ids"], dataset.read([5])["input_ids"])
    refuses(IndexError, "rows -1 to 3 of 148", dataset.read, [3, -1])
    with pytest.raises(IndexError, match="rows 148 to 148 of 148"):
        dataset[148]


def test_uint32_and_uint16_domains_make_one_batch(tmp_path):
    small = write_shards(tmp_path / "a", np.arange(64))
    large = write_shards(tmp_path / "b", np.arange(64) + 100_000, dtype="uint32")
    batch = MixtureDataset({"a": small, "b": large}, length=8).read([0, 8, 9, 1])
    assert batch["input_ids"].dtype == np.uint32
    assert batch["input_ids"][:, 0].tolist() == [0, 100_000, 100_008, 8]


def test_a_batch_says_where_documents_begin(tmp_path):
    shards = write_shards(tmp_path / "a", [5, 0, 6, 6, 0, 7, 7, 0])
    packed = MixtureDataset({"a": shards}, length=4, document_end=0, packed=True).read([1, 0])
    for batch in (MixtureDataset({"a": shards}, length=4, document_end=0).read([1, 0]), packed):
        assert batch["document"].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]
        assert batch["cu_seqlens"].tolist() == [0, 1, 4, 6, 8]
    assert packed["labels"].tolist() == [[-100, -100, 7, 0], [-100, 0, -100, 6]]
    assert packed["position_ids"].tolist() == [[0, 0, 1, 2], [0, 1, 0, 1]]
    assert (packed["tokens"].tolist(), packed["supervised"].tolist()) == ([4, 4], [2, 2])
    assert packed["max_seqlen"] == 3


def test_domains_that_cannot_be_read_are_refused(corpus):
    shards = TokenShards.open(corpus / "web" / "train")
    for sources, options, message in (
        ({}, {}, "at least one domain"),
        ({"a": iter([1])}, {}, "'a': list_iterator has no length and index; for a stream use"),
        ({"web": shards}, {}, "'web': length None of a row of token shards; say how long"),
        ({"web": shards}, {"length": 0}, "length 0 of a row"),
    ):
        refuses(CorpusError, message, MixtureDataset, sources, **options)
    with pytest.raises(CorpusError, match="only domains of token shards can be read as one batch"):
        MixtureDataset({"a": [{"x": 1}]}).read([0])


def test_any_map_style_dataset_is_a_domain():
    table = datasets.Dataset.from_dict({"text": [f"t{k}" for k in range(9)], "n": list(range(9))})
    mixed = MixtureDataset({"table": table, "list": [{"text": "x", "n": k} for k in range(4)]})
    samples = mixed.__getitems__([10, 3, 0])
    assert [s["text"] for s in samples] == ["x", "t3", "t0"]
    assert [(s["domain"], s["row"]) for s in samples] == [(1, 1), (0, 3), (0, 0)]
    one = MixtureLoader(mixed, order(mixed.sizes), prefetch=0)
    batch = next(iter(one))
    assert len(batch["text"]) == 4
    assert batch["n"].shape == (4,)

    class Broken(list):
        def __getitem__(self, index):
            raise OSError(f"disk gone at {index}")

    one = MixtureLoader(MixtureDataset({"a": Broken(range(9))}), order({"a": 9}))
    with pytest.raises(OSError, match="disk gone"):  # in the thread that reads ahead
        next(iter(one))


def test_samples_of_different_lengths_ask_for_a_collate_function():
    ragged = MixtureDataset({"a": [{"ids": [0] * (k + 1)} for k in range(4)]})
    with pytest.raises(SamplerError, match=r"'ids': samples of shapes .* pass MixtureLoader"):
        next(iter(MixtureLoader(ragged, order(ragged.sizes))))
    padded = MixtureLoader(
        ragged, order(ragged.sizes), collate=lambda rows: {"n": [len(r["ids"]) for r in rows]}
    )
    assert sorted(next(iter(padded))["n"]) == [1, 2, 3, 4]


def test_a_plain_dataloader_has_the_samplers_order_and_batches_their_number_and_mixture(dataset):
    plain = DataLoader(dataset, batch_sampler=sampler(dataset, batches=12), num_workers=2)
    batches = list(plain)
    assert pairs_of(batches) == expected(dataset, 12)
    assert batches[0]["input_ids"].shape == (8, LENGTH)
    assert next(iter(loader(dataset)))["input_ids"].dtype == torch.int64
    ranks = [loader(dataset, rank=rank, world_size=2) for rank in range(2)]
    ranks[1].set_weights(OTHER, batch=1)
    batches = list(islice(ranks[1], 2))
    assert [(b["batch"], b["position"]) for b in batches] == [(0, 4), (1, 12)]
    mixtures = [entry.mixture.fingerprint for entry in ranks[1].sampler.log]
    assert [b["mixture"] for b in batches] == mixtures


@pytest.mark.parametrize(("workers", "prefetch", "lag"), [(0, 0, 0), (0, 2, 0), (3, 1, 3)])
def test_new_weights_hold_after_exactly_what_was_asked_for(dataset, workers, prefetch, lag):
    one = loader(dataset, workers=workers, prefetch=prefetch)
    batches, held = drive(one, 50, swaps={10: OTHER, 30: WEIGHTS})
    assert held == [10 + lag, 30 + lag]
    changes = [(held[0], OTHER), (held[1], WEIGHTS)]
    assert pairs_of(batches) == expected(dataset, 50, changes=changes)
    assert 0 not in [d for b in batches[held[0] : held[1]] for d in b["domain"].tolist()]
    for batch in batches[::7]:
        rows = np.array([0, 90, 131])[batch["domain"]] + batch["row"].numpy()
        assert np.array_equal(batch["input_ids"], dataset.read(rows)["input_ids"])


@pytest.mark.parametrize(("workers", "then"), [(0, 2), (3, 0)])
def test_the_state_covers_received_batches_and_pending_changes(dataset, workers, then):
    one = loader(dataset, workers=workers)
    batches, held = [], None
    for batch in one:
        batches.append(batch)
        if len(batches) == 7:
            held = one.set_weights(OTHER)
        if len(batches) == 9:  # with two workers the change is pending still
            state = json.loads(json.dumps(one.state_dict()))
            break
    other = loader(dataset, workers=then)
    other.load_state_dict(state)
    batches += drive(other, 20)[0]
    assert pairs_of(batches) == expected(dataset, 29, changes=[(held, OTHER)])


def test_a_stream_that_ends_ends_the_loop(dataset):
    for workers in (0, 2):
        one = loader(dataset, workers=workers, exhausted="redistribute")
        assert len(list(one)) == len(one) == (90 + 41 + 17) // 8
        assert list(one) == []


def test_wrong_settings_of_a_loader_are_refused_and_without_torch_arrays_are_as_stored(
    dataset, monkeypatch
):
    made, own = partial(MixtureLoader, dataset), sampler(dataset)
    refuses(SamplerError, "prefetch: 0 is not a whole number", made, own, workers=2, prefetch=0)
    refuses(SamplerError, "output='jax'; it is 'torch' or 'numpy'", made, own, output="jax")
    other = MixtureSampler({**dataset.sizes, "web": 91}, WEIGHTS, batch_size=8)
    refuses(SamplerError, r"'web': 90.*the sampler .*'web': 91.*dataset.sizes", made, other)
    monkeypatch.setitem(sys.modules, "torch", None)
    stored = MixtureLoader(dataset, sampler(dataset), output="numpy")
    assert next(iter(stored))["input_ids"].dtype == np.uint16
    message = "^tensors and worker processes need torch: pip"
    refuses(SamplerError, message, MixtureLoader, dataset, sampler(dataset))


@pytest.mark.parametrize(
    ("accumulation", "workers", "received", "holds"), [(3, 0, 5, 6), (4, 2, 6, 12)]
)
def test_a_change_holds_from_the_first_batch_of_a_step(
    dataset, accumulation, workers, received, holds
):
    one = loader(dataset, workers=workers, accumulation=accumulation)
    batches, held = drive(one, 20, swaps={received: OTHER})
    assert held == [holds]
    assert pairs_of(batches) == expected(dataset, 20, changes=[(holds, OTHER)])
    refuses(SamplerError, r"=[34]\), but the trainer .* over 5 batches;", one.accumulate, 5)


@given(
    steps=st.integers(1, 6),
    begin=st.integers(0, 20),
    received=st.integers(0, 20),
    smaller=st.sampled_from([8, 4, 2]),
)
def test_a_change_begins_both_a_step_and_a_window(steps, begin, received, smaller):
    """A window is a global batch of the job that began the stream."""
    sizes = {"web": 90, "code": 41, "books": 17}
    resumed = MixtureSampler(sizes, WEIGHTS, batch_size=smaller)
    resumed.load_state_dict(MixtureSampler(sizes, WEIGHTS, batch_size=8).state_at(begin))
    begin *= 8 // smaller
    resumed.accumulate(steps)
    resumed.received(begin + received)
    held = resumed.set_weights(OTHER)
    assert held >= begin + received
    assert (held - begin) % steps == held * smaller % 8 == 0
    assert held - begin - received < steps * 8 // smaller


def read_ahead(one, steps, *, swap_at=None):
    """Train as nanoGPT does: the next batch is fetched before the step; return what was seen."""
    batches = iter(one)
    batch, seen = next(batches), []
    while True:
        seen.append(batch)  # forward
        batch = next(batches)  # ahead
        if batch["batch"] == swap_at:
            one.set_weights(OTHER)
        if len(seen) == steps:
            return seen, one.state_dict(consumed=seen[-1]["batch"] + 1)


@pytest.mark.parametrize(("workers", "swap_at"), [(0, None), (2, 9)])
def test_a_loop_that_reads_ahead_resumes_at_what_it_has_trained_on(dataset, workers, swap_at):
    whole, _ = read_ahead(loader(dataset, workers=workers), 20, swap_at=swap_at)
    first, state = read_ahead(loader(dataset, workers=workers), 9, swap_at=swap_at)
    again = loader(dataset)
    again.load_state_dict(json.loads(json.dumps(state)))
    assert pairs_of(first) + pairs_of(islice(again, 11)) == pairs_of(whole)


def test_more_than_was_received_cannot_be_consumed(dataset):
    one = loader(dataset, workers=2)
    drive(one, 3)
    for consumed in (4, 2.0):
        refuses(SamplerError, "consumed", one.state_dict, consumed=consumed)
    assert one.state_dict(consumed=3) == one.state_dict()


def loader_over(columns, **options):
    """A loader over two domains, one of them with the columns; all batches are of the first."""
    rows = datasets.Dataset.from_list([{"input_ids": [k, k + 1], **columns} for k in range(12)])
    made = MixtureDataset({"web": rows, "code": [{"input_ids": [1, 2]}] * 12})
    return MixtureLoader(made, MixtureSampler(made.sizes, [1, 0], batch_size=4), **options)


def test_what_cannot_be_one_batch_of_fields_is_refused():
    rows = [{"input_ids": [1]}, {"input_ids": [2], "row": 5}]
    with pytest.raises(CorpusError, match=r"domain 'web': has a column 'row', .*; rename it"):
        MixtureDataset({"web": rows}).__getitems__([0, 1])
    with pytest.raises(CorpusError, match="collate returned a int; it must return fields"):
        next(iter(loader_over({}, collate=len)))
    splits = datasets.DatasetDict({n: datasets.Dataset.from_list([]) for n in ("train", "test")})
    message = (
        r"'web': a DatasetDict of 'train', 'test' is .*; give one .*, such as source\['train'\]"
    )
    refuses(CorpusError, message, MixtureDataset, {"web": splits})
