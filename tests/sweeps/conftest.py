"""A designed run for the tests that have it trained by tasks."""

import pytest
from work_fixtures import designed, local_table, work_run

from mixopt.config import CorpusConfig
from mixopt.corpus import prepare_corpus

__all__ = ["designed", "local_table", "work_run"]


@pytest.fixture(scope="module")
def corpus_path(text_files, tmp_path_factory):
    """A prepared corpus of two domains."""
    path = tmp_path_factory.mktemp("sweeps") / "corpus"
    domains = {name: {"path": str(text_files[name])} for name in ("code", "prose")}
    config = CorpusConfig.model_validate({"domains": domains})
    prepare_corpus(config, {}, path, fingerprint="test", seed=0, min_tokens=2)
    return path
