"""A source of tokens has the fields that its format has a use for, and no others."""

from __future__ import annotations

from mixopt.config import SourceConfig


def test_a_source_may_name_many_files():
    source = SourceConfig(path=["a.jsonl", "more/*.jsonl"])
    assert (source.paths, source.one_path) == (("a.jsonl", "more/*.jsonl"), None)
    assert SourceConfig(path="a.jsonl").paths == ("a.jsonl",)
    assert SourceConfig(environment="legal").paths == ()


def test_what_a_run_records_of_a_source_is_read_again():
    for source in ({"path": ["a", "b"], "format": "raw", "dtype": "uint16"}, {"path": "a.jsonl"}):
        made = SourceConfig(**source)
        assert SourceConfig(**made.model_dump()) == made
