"""A user's columns keep their names, and what mixopt adds to a batch survives any collate."""

from __future__ import annotations

import re

import pytest
from datasets import Dataset, DatasetDict

from mixopt import CorpusError, MixtureDataset, MixtureLoader, MixtureSampler

THEIRS = {"domain": "arxiv", "row": 7, "batch": "b", "position": 3.5, "mixture": "m", "tokens": 9}


def dataset_of(columns, *, count=12):
    """Two domains, one with the columns."""
    rows = [{"input_ids": [k, k + 1], **columns} for k in range(count)]
    return MixtureDataset({"web": Dataset.from_list(rows), "code": [{"input_ids": [1, 2]}] * count})


def loader_over(dataset, **options):
    sampler = MixtureSampler(dataset.sizes, [1, 0], batch_size=4)
    return MixtureLoader(dataset, sampler, **options)


@pytest.mark.parametrize(("name", "workers"), [("domain", 0), ("tokens", 2)])
def test_a_column_of_the_users_is_kept_and_ours_gets_a_prefix(name, workers):
    loader = loader_over(dataset_of({name: THEIRS[name]}), workers=workers)
    plain = loader_over(dataset_of({}))
    batch, other = next(iter(loader)), next(iter(plain))
    kept = batch[name] if isinstance(THEIRS[name], str) else batch[name].tolist()
    assert kept == [THEIRS[name]] * 4
    assert {loader.fields[n] for n in THEIRS} == (set(THEIRS) - {name}) | {f"mixopt_{name}"}
    for ours in set(THEIRS) - {"tokens"}:
        assert str(batch[loader.fields[ours]]) == str(other[ours])


def test_a_column_that_the_first_row_has_not_is_refused():
    rows = [{"input_ids": [1]}, {"input_ids": [2], "row": 5}]
    with pytest.raises(CorpusError, match=r"domain 'web', row 1: has a column 'row', which the"):
        MixtureDataset({"web": rows}).__getitems__([0, 1])


def test_a_collate_that_returns_no_fields_is_refused():
    loader = loader_over(dataset_of({}), collate=len)
    with pytest.raises(CorpusError, match="collate returned a int; it must return fields"):
        next(iter(loader))


def test_a_dataset_dict_is_refused_with_the_split_to_name():
    splits = DatasetDict({"train": Dataset.from_list([{"a": 1}]), "test": Dataset.from_list([])})
    message = (
        "domain 'web': a DatasetDict of 'train', 'test' is several datasets; give one of them,"
        " such as source['train']"
    )
    with pytest.raises(CorpusError, match=re.escape(message)):
        MixtureDataset({"web": splits})
