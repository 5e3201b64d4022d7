"""Two tokenizers are the same where each id stands for the same bytes, whatever reads them."""

from __future__ import annotations

import pytest

from mixopt.corpus import FastTokenizer, export_tokenizer, folder_vocabulary, identity_of
from mixopt.corpus.tokenizer import ByteTokenizer
from mixopt.errors import CorpusError

pytest.importorskip("tokenizers")
TEXTS = ["all that is solid melts into air", "the air is thin", "solid ground"]


@pytest.fixture
def trained():
    return FastTokenizer.train(TEXTS, 270)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_an_exported_tokenizer_has_the_vocabulary_of_the_one_it_was(tmp_path, trained, kind):
    tokenizer = ByteTokenizer() if kind == "bytes" else trained
    export_tokenizer(tokenizer, tmp_path, length=8)
    found = folder_vocabulary(tmp_path)
    assert found == identity_of(str(tmp_path), tokenizer)
    assert found.size == tokenizer.vocab_size
    assert folder_vocabulary(tmp_path.parent) is None


def test_tokenizers_of_one_size_and_other_tokens_differ(trained):
    other = FastTokenizer.train(["zebra zebra quartz quartz quiz"], 270)
    assert other.vocab_size == trained.vocab_size
    assert identity_of("a", other).sha256 != identity_of("a", trained).sha256


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CorpusError, match=r"tokenizer\.json: cannot be read: ") as caught:
        folder_vocabulary(tmp_path)
    assert "\n" not in str(caught.value)
