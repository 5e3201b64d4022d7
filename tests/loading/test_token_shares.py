"""Batches say their tokens by domain, and shares are of tokens where samples differ in length."""

from itertools import islice

import numpy as np
import pytest
from datasets import Dataset
from refusals import refuses
from token_writers import write_shards

from mixopt import MixtureDataset, MixtureLoader, MixtureSampler
from mixopt.errors import CorpusError, SamplerError
from mixopt.loading.dataset import count_samples

WEIGHTS = {"web": 0.5, "code": 0.3, "books": 0.2}


def samples(count, mean, seed, *, labels=True):
    rng = np.random.default_rng(seed)
    for n in np.maximum(1, mean * rng.lognormal(0, 0.7, count)).astype(int):
        supervised = {"labels": np.where(np.arange(n) % 3 == 0, 1, -100)}
        yield {"input_ids": rng.integers(0, 50, n)} | (supervised if labels else {})


def sources(**options):
    """Return samples of random lengths; every third token of a sample carries loss."""
    sizes = {"web": (60, 20, 0), "code": (200, 60, 1), "books": (80, 300, 2)}
    return {name: list(samples(*how, **options)) for name, how in sizes.items()}


def length_lists(given, unit="tokens"):
    def count(one):
        return int((one["labels"] != -100).sum()) if unit == "supervised" else len(one["input_ids"])

    return {name: [count(item) for item in each] for name, each in given.items()}


def keep_ids(batch):
    return {"input_ids": [item["input_ids"] for item in batch]}


def loader(given, unit="tokens", lengths=None):
    dataset, how = MixtureDataset(given), {"unit": unit, "lengths": lengths}
    sampler = MixtureSampler(dataset.sizes, WEIGHTS, batch_size=8, **how)
    return MixtureLoader(dataset, sampler, output="numpy", collate=keep_ids)


def test_a_batch_says_its_tokens_and_those_that_carry_loss():
    given = sources()
    one, names = loader(given, "samples"), list(given)
    tokens, supervised = np.zeros(3, int), np.zeros(3, int)
    for _, batch in zip(range(20), one, strict=False):
        rows = zip(batch["domain"], batch["row"], strict=True)
        lengths = [len(given[names[d]][row]["input_ids"]) for d, row in rows]
        assert batch["tokens"].tolist() == np.bincount(batch["domain"], lengths, 3).tolist()
        assert batch["tokens"].sum() == sum(map(len, batch["input_ids"]))
        tokens += batch["tokens"]
        supervised += batch["supervised"]
    assert list(one.realised().values()) == (tokens / tokens.sum()).tolist()
    assert 0 < supervised.sum() < tokens.sum() / 2


def test_lengths_that_are_not_those_of_the_samples_are_one_line():
    given = sources(labels=False)
    lengths = length_lists(given) | {"web": [7] * 60}
    message = "lengths: domain 'web', row .* tokens, but lengths has 7"
    refuses(SamplerError, message, list, islice(loader(given, lengths=lengths), 5))


def test_realised_shares_are_those_of_the_mixture():
    given = sources()
    one = loader(given, "supervised", MixtureDataset(given).lengths("supervised"))
    for _ in zip(one, range(150), strict=False):
        pass
    assert one.realised() == pytest.approx(WEIGHTS, abs=0.03)
    tokens = one.sampler.tokens()
    assert one.realised() == {name: each / sum(tokens.values()) for name, each in tokens.items()}


@pytest.mark.parametrize("unit", ["tokens", "supervised"])
def test_lengths_come_from_the_columns_of_a_dataset(unit):
    given = sources()
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
    assert one.realised() == {}
    for _, batch in zip(range(6), one, strict=False):
        expected = np.bincount(batch["domain"], minlength=3) * 16
        assert batch["tokens"].tolist() == batch["supervised"].tolist() == expected.tolist()
        total += batch["tokens"]
    assert total.sum() == 48 * 16
    assert list(one.realised().values()) == (total / total.sum()).tolist()
