import inspect

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, strategies as st
from made_corpus import prepared, write_lines
from refusals import refuses

from mixopt.corpus import (
    check_tokenizer_name,
    document_ends,
    export_tokenizer,
    folder_vocabulary,
    known_size,
    saved_tokenizer,
    vocabulary_of,
)
from mixopt.corpus.tokenizer import ByteTokenizer, FastTokenizer, open_tokenizer, token_dtype
from mixopt.errors import CorpusError

TEXTS = [inspect.getsource(inspect), "漢字 é \t\x00"]


@pytest.fixture(scope="module")
def bpe():
    return FastTokenizer.train(TEXTS, 300)


def documents(tokenizer, tokens):
    ends = np.flatnonzero(tokens == tokenizer.end_of_document)
    return [tokenizer.decode(part) for part in np.split(tokens, ends + 1)[:-1]]


@example(texts=["a<|endoftext|>b"])  # which is text
@given(texts=st.lists(st.text(max_size=50), max_size=5))
def test_bytes_and_bpe_give_back_every_document(bpe, texts):
    for tokenizer in (ByteTokenizer(), bpe):
        assert documents(tokenizer, tokenizer.encode(texts)) == texts


def corpus_of(folder, tokenizer):
    lines = write_lines(folder / "lines.jsonl", [f"line {k} of a file. " * 40 for k in range(60)])
    out = folder / f"corpus-{len(tokenizer)}"
    return prepared(out, {"lines": {"path": lines}}, tokenizer=tokenizer)


@pytest.mark.parametrize(("tokenizer", "ids"), [("bytes", 257), ("bpe:300", 300)])
def test_the_folder_of_a_prepared_corpus_is_its_tokenizer(tmp_path, tokenizer, ids):
    corpus = corpus_of(tmp_path, tokenizer)
    opened = open_tokenizer(str(corpus.path))
    same = saved_tokenizer(corpus.path, tokenizer).encode(TEXTS)
    np.testing.assert_array_equal(opened.encode(TEXTS), same)
    assert opened.vocab_size == known_size(str(corpus.path)) == ids
    second = corpus_of(tmp_path, str(corpus.path))
    assert saved_tokenizer(second.path, second.tokenizer).vocab_size == ids
    assert second.domains[0].train.tokens == corpus.domains[0].train.tokens


def test_the_corpus_stores_an_unusual_end_of_document_token_and_adds_no_begin_token(tmp_path):
    tokenizer = FastTokenizer.train(TEXTS, 300)
    begin = {"single": "<|endoftext|> $A", "special_tokens": [("<|endoftext|>", 0)]}
    tokenizer.inner.post_processor = tokenizers.processors.TemplateProcessing(**begin)
    (tmp_path / "own").mkdir()
    tokenizer.save(tmp_path / "own")
    (tmp_path / "own" / "tokenizer_config.json").write_text('{"eos_token": {"content": "a"}}')
    corpus = corpus_of(tmp_path, str(tmp_path / "own"))
    opened = saved_tokenizer(corpus.path, corpus.tokenizer)
    assert opened.end_of_document == opened.inner.token_to_id("a")
    ids = [opened.inner.token_to_id(letter) for letter in "za"]
    assert opened.encode(["z"]).tolist() == ids
    assert document_ends(corpus) == (opened.end_of_document,)


def test_what_can_be_told_of_a_name_is_told_without_the_hub(tmp_path):
    for name in ("bytes", "bpe:257", "no/such"):
        check_tokenizer_name(name)
    sizes = [known_size(name) for name in ("bytes", "bpe:8_192", "no/such")]
    assert sizes == [257, 8192, None]
    assert [token_dtype(size).name for size in (1 << 16, (1 << 16) + 1)] == ["uint16", "uint32"]
    for name, message in (
        ("bpe:256", "'bpe:256': a byte-level BPE has at least 257 ids"),
        ("bpe8192:300", "is not bytes, bpe:<vocab>, a folder or a name on the hub"),
        ("./no", "tokenizer './no': no such folder or file; name a local folder, or use bytes"),
        (str(tmp_path), "has no tokenizer.json: write one, AutoTokenizer"),
    ):
        refuses(CorpusError, message, check_tokenizer_name, name)
    (tmp_path / "tokenizer.json").write_text("{}")
    refuses(CorpusError, r"tokenizer '.*': .*tokenizer.json: ", open_tokenizer, str(tmp_path))


def test_a_tokenizer_without_an_end_or_on_a_hub_that_cannot_be_reached_is_refused(
    bpe, tmp_path, monkeypatch
):
    bpe.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|x|>"))
    refuses(CorpusError, r"has no end-of-document token: .* eos_token", open_tokenizer, str(path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = "^tokenizer 'no/such' is not on this machine and the hub"
    refuses(CorpusError, message, open_tokenizer, "no/such")


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_an_exported_tokenizer_has_the_vocabulary_of_the_one_it_was(tmp_path, bpe, kind):
    tokenizer = ByteTokenizer() if kind == "bytes" else bpe
    export_tokenizer(tokenizer, tmp_path, length=8)
    found = folder_vocabulary(tmp_path)
    assert found == vocabulary_of(tokenizer)
    assert found[0] == tokenizer.vocab_size
    assert folder_vocabulary(tmp_path.parent) is None
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert written.encode("é \t").ids == tokenizer.encode(["é \t"])[:-1].tolist()
    other = FastTokenizer.train([*TEXTS[1:], "zebra zebra quartz quartz quiz"], 270)
    assert vocabulary_of(other)[1] != vocabulary_of(tokenizer)[1]
