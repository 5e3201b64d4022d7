"""A corpus of which some text, or all, is elsewhere: names, sizes, and no tokens to read."""

import json

import pytest

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus import Corpus, corpus_hash, prepare_corpus, true_inventory
from mixopt.errors import ShardError
from mixopt.system import write_sealed


def prepared(tmp_path, domains, evaluation=("mmlu",), tokenizer="bytes"):
    config = CorpusConfig(domains=domains, tokenizer=tokenizer)
    targets = {name: SourceConfig() for name in evaluation}
    return prepare_corpus(config, targets, tmp_path / "corpus", fingerprint="x")


def test_names_and_sizes_are_written_and_read_back(tmp_path):
    sources = {"web": SourceConfig(tokens=10**12), "code": SourceConfig(tokens=3)}
    prepared(tmp_path, sources)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.inventory == {"web": 10**12, "code": 3}
    assert true_inventory(sources, corpus) == {"web": 10**12, "code": 3}
    assert corpus.evaluation_names == ("web", "code", "mmlu")
    assert all(domain.validation.is_elsewhere for domain in corpus.evaluation)
    assert corpus_hash(tmp_path / "corpus")


def test_text_that_is_elsewhere_cannot_be_read(tmp_path):
    corpus = prepared(tmp_path, {"web": SourceConfig(tokens=100)})
    message = "web/train: its text is not available here; only your own trainer reads it"
    with pytest.raises(ShardError, match=message):
        corpus.domains[0].train.read(0, 1)
    with pytest.raises(ShardError, match=message):
        corpus.domains[0].train.rows([0], 1)


def test_some_text_may_be_here(tmp_path, text_files):
    sources = {"web": SourceConfig(tokens=100), "code": SourceConfig(path=str(text_files["code"]))}
    corpus = prepared(tmp_path, sources)
    web, code = corpus.domains
    assert web.train.is_elsewhere
    assert not code.train.is_elsewhere
    assert code.validation.tokens > 0


def test_an_index_that_merely_lacks_its_shards_is_damaged(tmp_path):
    prepared(tmp_path, {"web": SourceConfig(tokens=100)})
    index = tmp_path / "corpus" / "web" / "train" / "index.json"
    content = json.loads(index.read_text()) | {"elsewhere": False}
    del content["sha256"]
    write_sealed(index, content)
    with pytest.raises(ShardError, match="100 tokens, but its shards have 0"):
        Corpus.open(tmp_path / "corpus", verify=False)
