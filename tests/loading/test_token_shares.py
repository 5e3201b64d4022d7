"""Batches say their tokens by domain, and shares are of tokens where samples differ in length."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from token_writers import write_shards

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.errors import CorpusError, SamplerError
from mixopt.loading.collate import count_samples

WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}


def samples(count, mean, seed, *, labels=False):
    """Return samples of random lengths; every third token of a sample carries loss."""
    rng = np.random.default_rng(seed)
    lengths = np.maximum(1, mean * rng.lognormal(0, 0.7, count)).astype(int)
    made = [{"input_ids": rng.integers(0, 50, n)} for n in lengths]
    if labels:
        for one in made:
            one["labels"] = np.where(np.arange(len(one["input_ids"])) % 3 == 0, 1, -100)
    return made


def sources(**options):
    return {
        "web": samples(60, 20, 0, **options),
        "code": samples(200, 60, 1, **options),
        "books": samples(80, 300, 2, **options),
    }


def length_lists(given, unit="tokens"):
    def count(one):
        return int((one["labels"] != -100).sum()) if unit == "supervised" else len(one["input_ids"])

    return {name: [count(one) for one in each] for name, each in given.items()}


def keep_ids(batch):
    return {"input_ids": [one["input_ids"] for one in batch]}


def loader(given, unit="tokens", lengths=None, **options):
    dataset = MixtureDataset(given)
    sampler = MixtureSampler(
        dataset.sizes, WEIGHTS, batch_size=8, rank=0, world_size=1, unit=unit, lengths=lengths
    )
    made = {"output": "numpy", "collate": keep_ids} | options
    return MixtureLoader(dataset, sampler, **made)


def test_a_batch_says_its_tokens_and_those_that_carry_loss():
    given = sources(labels=True)
    one, names = loader(given, "samples"), list(given)
    tokens, supervised = np.zeros(3, int), np.zeros(3, int)
    for _, batch in zip(range(20), one, strict=False):
        rows = zip(batch["domain"], batch["row"], strict=True)
        lengths = [len(given[names[d]][row]["input_ids"]) for d, row in rows]
        assert batch["tokens"].tolist() == np.bincount(batch["domain"], lengths, 3).tolist()
        assert batch["tokens"].sum() == sum(map(len, batch["input_ids"]))
        tokens += batch["tokens"]
        supervised += batch["supervised"]
    realised = one.realised()
    assert list(realised.tokens.values()) == tokens.tolist()
    assert list(realised.supervised.values()) == supervised.tolist()
    assert 0 < supervised.sum() < tokens.sum() / 2
    assert realised.ranks == "own"


def test_lengths_that_are_not_those_of_the_samples_are_one_line():
    lengths = length_lists(sources()) | {"web": [7] * 60}
    message = "lengths: domain 'web', row .* tokens, but lengths has 7"
    with pytest.raises(SamplerError, match=message) as error:
        for _ in zip(loader(sources(), lengths=lengths), range(5), strict=False):
            pass
    assert "\n" not in str(error.value)


def test_realised_shares_are_those_of_the_mixture():
    given = sources(labels=True)
    one = loader(given, "supervised", MixtureDataset(given).lengths("supervised"))
    for _ in zip(one, range(150), strict=False):
        pass
    realised = one.realised()
    assert realised.shares == pytest.approx(WEIGHTS, abs=0.03)
    assert realised.ranks == "all"
    assert realised.supervised == one.sampler.tokens()


@pytest.mark.parametrize("unit", ["tokens", "supervised"])
def test_lengths_come_from_the_columns_of_a_dataset(unit):
    given = sources(labels=True)
    made = {n: Dataset.from_list(each).select(range(5, len(each))) for n, each in given.items()}
    kept = {name: each[5:] for name, each in given.items()}
    expected = length_lists(kept, unit)
    found = MixtureDataset(made).lengths(unit)
    assert {name: lengths.tolist() for name, lengths in found.items()} == expected
    read = MixtureDataset(given).lengths(unit)
    assert {name: each.tolist() for name, each in read.items()} == length_lists(given, unit)


@pytest.mark.parametrize(
    ("sample", "counts"),
    [
        ({"input_ids": [1, 2, 0], "attention_mask": [1, 1, 0]}, [2, 2]),
        ({"input_ids": [1, 2, 0], "document": [0, 0, -1], "labels": [-100, 2, -100]}, [2, 1]),
        ({"input_ids": [1, 2], "labels": 5, "attention_mask": [1]}, [2, 2]),
    ],
)
def test_padding_and_what_carries_no_loss_are_not_counted(sample, counts):
    assert np.ravel(count_samples([sample, sample]))[[0, 2]].tolist() == counts
    assert count_samples([sample, "text"]) is None
    with pytest.raises(CorpusError, match="domain 'a': rows have no input_ids, whose tokens count"):
        MixtureDataset({"a": Dataset.from_dict({"x": [1]})}).lengths()


@pytest.mark.parametrize("unit", ["samples", "tokens"])
def test_rows_of_one_length_are_counted_by_the_order(tmp_path, unit):
    shards = {name: write_shards(tmp_path / name, np.zeros(40 * 16)) for name in WEIGHTS}
    dataset = MixtureDataset(shards, length=16)
    how = {} if unit == "samples" else {"unit": unit, "lengths": dataset.lengths()}
    sampler = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, **how)
    one, total = MixtureLoader(dataset, sampler, output="numpy"), np.zeros(3, int)
    for _, batch in zip(range(6), one, strict=False):
        expected = np.bincount(batch["domain"], minlength=3) * 16
        assert batch["tokens"].tolist() == batch["supervised"].tolist() == expected.tolist()
        total += batch["tokens"]
    realised = one.realised()
    assert list(realised.tokens.values()) == total.tolist()
    assert (realised.ranks, sum(realised.samples.values())) == ("all", 48)
