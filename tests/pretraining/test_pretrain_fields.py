"""The fields of a pretraining's file: how many there are, what they say, and numbers in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from pretrain_runs import write_config
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mixopt.errors import ConfigError
from mixopt.pretraining import PretrainConfig, load_pretraining

LENGTHS = {"batch": 8, "sequence_length": 32, "lr": "3e-4"}


def sections_of(kind: object) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from sections_of(inner)


def fields_of(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        sections = list(sections_of(field.annotation))
        place = f"{before}{field.alias or name}"
        for section in sections:
            yield from fields_of(section, f"{place}.")
        if not sections:
            yield place, field


def test_there_are_at_most_70_fields_each_with_a_sentence():
    fields = dict(fields_of(PretrainConfig))
    assert len(fields) <= 70
    tracking = {name for name in fields if name.startswith("tracking.")}  # of every experiment
    assert [name for name in fields.keys() - tracking if not fields[name].description] == []


def test_an_error_has_the_sentence_of_the_field(tmp_path):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, LENGTHS | {"steps": "many"})
    sentence = dict(fields_of(PretrainConfig))["training.steps"].description
    assert str(caught.value).endswith(f"got 'many' ({sentence})")


def loaded(tmp_path, training: dict, **parts) -> PretrainConfig:
    return load_pretraining(write_config(tmp_path, corpus="x", training=training, **parts))


def test_a_length_is_given_in_tokens_as_people_write_them(tmp_path):
    for tokens in ("50B", "50e9", 50_000_000_000):
        training = loaded(tmp_path, LENGTHS | {"tokens": tokens}).training
        assert training.steps == -(-50_000_000_000 // (8 * 32))
    config = loaded(tmp_path, LENGTHS | {"steps": "2k"}, held_out={"tokens": "64k"})
    assert (config.training.steps, config.held_out.tokens) == (2_000, 64_000)
    metrics = loaded(tmp_path, LENGTHS | {"steps": 1}, metrics={"peak_flops": "989T"}).metrics
    assert metrics.peak_flops == 989e12
