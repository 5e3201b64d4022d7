"""A source of tokens has the fields that its format has a use for, and no others."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mixopt.config import SourceConfig


def refused(message, **source):
    with pytest.raises(ValidationError) as caught:
        SourceConfig(**source)
    assert message in str(caught.value)


def test_a_source_may_name_many_files():
    source = SourceConfig(path=["a.jsonl", "more/*.jsonl"])
    assert (source.paths, source.one_path) == (("a.jsonl", "more/*.jsonl"), None)
    assert SourceConfig(path="a.jsonl").paths == ("a.jsonl",)
    assert SourceConfig(environment="legal").paths == ()


def test_a_list_that_names_nothing_or_that_data_files_repeat_is_refused():
    refused("path: is an empty list", path=[])
    refused("data_files is redundant", path=["a.jsonl"], data_files="b.jsonl")


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "uint16"), ("document_end", 0), ("max_tokens", 5)],
)
def test_a_field_of_tokens_beside_text_is_refused(field, value):
    refused(f"{field}: applies to tokens, but this is text", path="a.jsonl", **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("column", "body"), ("max_bytes", 5), ("split", "test"), ("data_files", "a"), ("name", "x")],
)
def test_a_field_of_text_beside_tokens_is_refused(field, value):
    refused(f"{field}: applies to text", path="web", format="megatron", **{field: value})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"format": "megatron", "document_end": 0}, "its index says where documents end"),
        ({"format": "datatrove", "document_end": 0}, "its .index says where documents end"),
        ({"format": "npy", "dtype": "uint16"}, "a .npy says its type"),
        ({"format": "llmc", "dtype": "uint16"}, "its header says the type"),
        ({"format": "raw"}, "dtype: format: raw does not state the type of a token"),
        ({"format": "megatron", "bytes": 5}, "bytes: is the size of text"),
        ({"format": "megatron", "path": None}, "path: is missing"),
    ],
)
def test_a_field_that_a_format_has_no_use_for_is_refused(source, message):
    refused(message, **({"path": "web"} | source))


def test_what_a_run_records_of_a_source_is_read_again():
    for source in ({"path": ["a", "b"], "format": "raw", "dtype": "uint16"}, {"path": "a.jsonl"}):
        made = SourceConfig(**source)
        assert SourceConfig(**made.model_dump()) == made
