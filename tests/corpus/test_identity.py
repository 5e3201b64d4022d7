"""Which corpus one is."""

import shutil

import pytest

from mixopt.corpus import corpus_hash
from mixopt.errors import CorpusError
from mixopt.testing import tiny_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("identity") / "corpus"
    tiny_corpus(path)
    return path


def test_a_copy_elsewhere_is_the_same_corpus(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "copy")
    assert corpus_hash(tmp_path / "copy") == corpus_hash(corpus)


def test_another_index_is_another_corpus(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "copy")
    index = next(path for path in (tmp_path / "copy").rglob("index.json"))
    index.write_text(index.read_text() + "\n")
    assert corpus_hash(tmp_path / "copy") != corpus_hash(corpus)


def test_a_folder_without_an_index_is_no_corpus(tmp_path):
    with pytest.raises(CorpusError, match="holds no prepared corpus"):
        corpus_hash(tmp_path)
