"""Megatron-Core's own datasets, builder, samplers' contract and parallel state, on a mixture."""

import warnings
from itertools import chain

import numpy as np
import pytest
import torch
from ranks import on_ranks
from sampler_rows import pairs_in_order
from torch.utils.data import DataLoader

from mixopt import MixtureDataset, MixtureSampler, SamplerError
from mixopt.corpus import TokenShards, TokenWriter
from mixopt.integrations.megatron import MegatronMixture, epochs_of
from mixopt.sampling import check_ranks

pytestmark = pytest.mark.filterwarnings("ignore")

LENGTH = 16
END = 0
WEIGHTS = [0.5, 0.3, 0.2]
OTHER = [0.1, 0.1, 0.8]
DOMAINS = ("web", "code", "books")


@pytest.fixture
def core():
    return pytest.importorskip("megatron.core", reason="Megatron-Core is absent: make trainers")


def tokens_of(k):
    return np.random.default_rng(k).integers(0, 12, (90, 41, 17)[k] * (LENGTH + 1))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for k, name in enumerate(DOMAINS):
        with TokenWriter(folder / name, dtype="uint16", tokenizer="t") as writer:
            writer.write(tokens_of(k).astype(np.uint16), documents=1, bytes=1)
    return {name: TokenShards.open(folder / name) for name in DOMAINS}


@pytest.fixture(scope="module")
def rows(shards):
    return MixtureDataset(shards, length=LENGTH + 1, document_end=END)


def mixture(datasets, **options):
    given = {"samples": 240, "global_batch_size": 8} | options
    return MegatronMixture(datasets, WEIGHTS, **given)


def places(sizes, stop, *changes):
    order = MixtureSampler(sizes, WEIGHTS, batch_size=8, rank=0, world_size=1)
    for batch, weights in changes:
        order.set_weights(weights, batch)
    return list(chain(*pairs_in_order(order, stop // 8)))


def test_the_sample_at_an_index_is_the_one_at_that_position_of_the_order(rows):
    dataset = mixture(rows, schedule=[(9, OTHER)])
    assert len(dataset) == 240
    expected = places(rows.sizes, 240, (9, OTHER))
    for index in (0, 7, 71, 72, 239, 100):
        domain, row = expected[index]
        text = tokens_of(domain).reshape(-1, LENGTH + 1)[row]
        sample = dataset[index]
        assert sample["dataset_id"] == domain
        assert sample["tokens"].tolist() == text[:-1].tolist()
        assert sample["labels"].tolist() == text[1:].tolist()
    with pytest.raises(IndexError, match="sample 240 of 240"):
        dataset[240]


def test_masks_and_positions_follow_from_the_ends_of_documents(rows, shards):
    dataset = mixture(rows, attention_mask=True)
    sample = next(dataset[k] for k in range(24) if (dataset[k]["tokens"][:-1] == END).sum() > 1)
    ends = sample["tokens"].numpy() == END
    number = np.cumsum(ends) - ends
    seen = np.tril(number[:, None] == number)
    assert sample["loss_mask"].tolist() == (~ends).tolist()
    assert sample["position_ids"].tolist() == (seen.sum(axis=1) - 1).tolist()
    assert sample["attention_mask"].tolist() == [(~seen).tolist()]
    assert not dataset[None]["loss_mask"].any()


@pytest.mark.nightly
def test_masks_and_positions_are_those_that_megatron_makes_of_documents(core, rows):
    from megatron.core.datasets.gpt_dataset import _get_ltor_masks_and_position_ids

    dataset = mixture(rows, attention_mask=True)
    for index in range(24):
        sample = dataset[index]
        theirs = _get_ltor_masks_and_position_ids(sample["tokens"], END, True, True, True, True)
        for name, value in zip(
            ("attention_mask", "loss_mask", "position_ids"), theirs, strict=True
        ):
            assert torch.equal(sample[name], value), name


@pytest.mark.nightly
def test_the_domains_of_megatrons_own_builder_are_drawn_in_our_order(core, tmp_path):
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    class Tokenizer:
        eod, pad, vocab_size, unique_identifiers = END, 99, 100, "t"

    prefixes = {}
    for k, name in enumerate(DOMAINS):
        prefixes[name] = str(tmp_path / f"{name}_text_document")
        builder = IndexedDatasetBuilder(f"{prefixes[name]}.bin", dtype=np.uint16)
        for part in np.array_split(tokens_of(k), 9):
            builder.add_document([*part, END], [len(part) + 1])
        builder.finalize(f"{prefixes[name]}.idx")
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=LENGTH,
        blend=(list(prefixes.values()), WEIGHTS),
        split="1,0,0",
        tokenizer=Tokenizer(),
        path_to_cache=str(tmp_path / "cache"),
        reset_position_ids=True,
        reset_attention_mask=True,
        eod_mask_loss=True,
    )
    datasets = epochs_of(prefixes, config, lambda: True)
    assert [len(datasets[name]) for name in DOMAINS] == [96, 44, 18]
    dataset = mixture(datasets)
    batch = next(iter(DataLoader(dataset, batch_size=8)))
    names = "dataset_id tokens labels attention_mask loss_mask position_ids"
    assert set(batch) == set(names.split())
    for index, (domain, row) in enumerate(places(dataset.sampler.sizes, 240)):
        sample = dataset[index]
        assert sample["dataset_id"] == domain
        assert torch.equal(sample["tokens"], datasets[DOMAINS[domain]][row]["tokens"])


class PretrainingSampler:
    """The contract of Megatron-LM's MegatronPretrainingSampler, whose package is no release."""

    def __init__(self, total, consumed, micro_batch, rank, ranks):
        self.total, self.consumed = total, consumed
        self.micro_batch, self.rank, self.ranks = micro_batch, rank, ranks

    def __iter__(self):
        batch, first = [], self.rank * self.micro_batch
        for index in range(self.consumed, self.total):
            batch.append(index)
            if len(batch) == self.micro_batch * self.ranks:
                yield batch[first : first + self.micro_batch]
                batch = []


def read(dataset, consumed, stop, micro_batch, ranks, workers=0):
    """The global stream that the ranks read between two counts, workers and all."""
    parts = []
    for rank in range(ranks):
        order = PretrainingSampler(stop, consumed, micro_batch, rank, ranks)
        parts.append(list(DataLoader(dataset, batch_sampler=order, num_workers=workers)))
    return [
        (int(domain), tokens.tolist())
        for micro in zip(*parts, strict=True)
        for part in micro
        for domain, tokens in zip(part["dataset_id"], part["tokens"], strict=True)
    ]


def test_a_run_resumes_at_consumed_samples_on_other_ranks_and_micro_batches(rows):
    before = read(mixture(rows, schedule=[(9, OTHER)]), 0, 104, micro_batch=2, ranks=2, workers=2)
    resumed = mixture(rows, schedule=[(9, OTHER)])
    after = read(resumed, 104, 240, micro_batch=1, ranks=8)
    expected = [
        (domain, tokens_of(domain).reshape(-1, LENGTH + 1)[row][:-1].tolist())
        for domain, row in places(rows.sizes, 240, (9, OTHER))
    ]
    assert before + after == expected
    with pytest.raises(SamplerError, match=r"the domains end after \d+ samples with max_epochs=1"):
        mixture(rows, max_epochs=1, samples=400)


def parted():
    """Return what a sampler of Megatron's parallel state, 2 x 2, says, takes and gives."""
    warnings.simplefilter("ignore")
    from megatron.core import parallel_state

    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=2, create_gloo_process_groups=False
    )
    sizes = {"web": 90, "code": 41, "books": 17}
    with pytest.raises(SamplerError) as refused:
        MixtureSampler(sizes, WEIGHTS, batch_size=8)
    rank = parallel_state.get_data_parallel_rank()
    ranks = parallel_state.get_data_parallel_world_size()
    order = MixtureSampler(sizes, WEIGHTS, batch_size=8, rank=rank, world_size=ranks)
    check_ranks(order)
    return str(refused.value), [rank, ranks], next(iter(order))


@pytest.mark.nightly
def test_megatrons_model_parallel_processes_are_asked_for_their_data_parallel_rank(core):
    refused, parts, rows = zip(*on_ranks(4, __file__, "parted"), strict=True)
    assert parts == ([0, 2], [0, 2], [1, 2], [1, 2])
    assert rows[0] == rows[1] != rows[2] == rows[3]
    for message in refused:
        assert message == (
            "2 processes share a replica of the model (process group 'TENSOR_MODEL_PARALLEL_GROUP')"
            " and need the same rows: give rank=parallel_state.get_data_parallel_rank() and"
            " world_size=parallel_state.get_data_parallel_world_size()"
        )
