"""Domains of tokens: what is held out, what is left out, links, bytes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from made_corpus import documents, prepared, refused, write_lines
from token_writers import write_megatron

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus import count_domains, tokens_per_byte
from mixopt.corpus.tokenizer import ByteTokenizer, FastTokenizer, TokenText, open_tokenizer

END = 256
TEXTS = [f"document {k}: " + chr(97 + k % 26) * (20 + k % 17) + " é" for k in range(120)]


def encode(text):
    return [*text.encode(), END]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


MEGATRON = {"path": "web", "format": "megatron"}


@pytest.fixture
def tokenizer(folder):
    """A tokenizer of this folder, in whose tokens `web` has the documents."""
    FastTokenizer.train(TEXTS, 400).save(folder)
    tokenizer = open_tokenizer(".")
    write_megatron(folder / "web", [tokenizer.encode([text]).tolist() for text in TEXTS])
    return tokenizer


def test_documents_of_tokens_are_held_out_by_their_content_whatever_their_order(folder):
    tokens = [encode(text) for text in (*TEXTS, *TEXTS[:30])] + [[END], [END]]
    write_megatron(folder / "web", tokens)
    write_megatron(folder / "turned", tokens[::-1])
    corpus = prepared(folder / "a", {"web": MEGATRON})
    turned = prepared(folder / "b", {"web": MEGATRON | {"path": "turned"}}).domains[0]
    other = prepared(folder / "c", {"web": MEGATRON}, seed=1).domains[0]
    (first,) = corpus.domains
    held, train = documents(first.validation), documents(first.train)
    assert set(held) == set(documents(turned.validation)) != set(documents(other.validation))
    assert sorted(held + train) == sorted(TEXTS)
    assert (first.train.documents, first.validation.documents) == (len(train), len(held))
    share = first.validation.tokens / (first.validation.tokens + first.train.tokens)
    assert 0.03 < share < 0.1
    read = corpus.provenance["sources"]["web"]["read"]
    assert (read["duplicates"], read["empty"], read["equal_to_evaluation"]) == (30, 2, 0)


def test_of_a_quarter_as_many_tokens_as_bytes_are_held_out_at_most(folder, tokenizer):
    limits = {"max_validation_bytes": 200, "tokenizer": ".", "validation_fraction": 0.4}
    corpus = prepared(folder / "out", {"web": MEGATRON}, {"t": MEGATRON}, **limits)
    assert corpus.targets[0].validation.tokens == 50
    assert corpus.domains[0].validation.tokens <= 50
    assert corpus.provenance["sources"]["web"]["read"]["equal_to_evaluation"] > 0


def test_bytes_of_held_out_tokens_are_those_of_their_text(folder, tokenizer):
    sides = {
        "path": write_lines(folder / "a.jsonl", TEXTS[:60]),
        "validation": write_lines(folder / "b.jsonl", TEXTS[60:]),
    }
    write_megatron(folder / "b", [tokenizer.encode([text]).tolist() for text in TEXTS[60:]])
    of_text = prepared(folder / "text", {"web": sides}, tokenizer=".")
    of_tokens = prepared(folder / "out", {"web": MEGATRON | {"validation": "b"}}, tokenizer=".")
    a, b = of_text.domains[0], of_tokens.domains[0]
    assert (a.validation.bytes, a.validation.tokens) == (b.validation.bytes, b.validation.tokens)
    assert a.validation.bytes == sum(len(text.encode()) for text in TEXTS[60:])
    assert (a.train.bytes, a.train.tokens) == (b.train.bytes, b.train.tokens), "60 are held out"
    assert tokens_per_byte(of_text) == tokens_per_byte(of_tokens)
    saved = json.loads((of_tokens.path / "index.json").read_text())
    assert saved["provenance"]["sources"]["web"]["read"]["equal_to_evaluation"] == 60
    assert saved["provenance"]["sources"]["web"]["format"] == "megatron"


def test_the_bytes_of_tokens_are_counted_or_decoded_without_what_is_no_text():
    bytes_ = ByteTokenizer()
    tokens = bytes_.encode(["héllo", "x"])
    assert TokenText(bytes_).bytes(tokens) == 7
    trained = FastTokenizer.train(TEXTS, 400)
    text = TokenText(trained)
    assert text.is_quick
    for document in ("document é", "ascii", "😀 split over tokens", ""):
        tokens = trained.encode([document])
        assert text.bytes(tokens) == len(document.encode())
        assert text.text(tokens) == document
    assert TokenText(trained, document_end=int(tokens[0])).bytes(tokens) == 0
    ids = {"<unk>": 0, "</s>": 1, "a": 2, "é": 3}
    words = FastTokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, "<unk>")), "</s>")
    text = TokenText(words)
    assert (text.is_quick, text.bytes(np.array([2, 3, 1]))) == (False, len("a é".encode()))


def test_what_is_held_out_as_text_is_not_trained_on_as_tokens_and_the_other_way_round(folder):
    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    domains = {"web": MEGATRON, "text": {"path": write_lines(folder / "a.jsonl", TEXTS)}}
    corpus = prepared(folder / "out", domains)
    held = {d for domain in corpus.domains for d in documents(domain.validation)}
    trained = {d for domain in corpus.domains for d in documents(domain.train)}
    assert len(held) >= 6
    assert held.isdisjoint(trained)
    assert corpus.domain_names == tuple(corpus.provenance["sources"]) == ("web", "text")


def test_tokens_without_documents_are_held_out_by_blocks(folder):
    rng = np.random.default_rng(0)
    rng.integers(0, 250, 200_000).astype("<u2").tofile(folder / "a.bin")
    raw = {"path": "a.bin", "format": "raw", "dtype": "uint16"}
    domain = prepared(folder / "out", {"web": raw}).domains[0]
    assert (domain.validation.tokens, domain.train.tokens) == (3 * 4096, 200_000 - 3 * 4096)
    assert (domain.train.documents, domain.validation.documents) == (0, 0)


def test_files_of_which_nothing_is_left_out_become_shards_by_hard_links(folder, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    files = [folder / f"web_{k}.bin" for k in (2, 0, 1)]
    for k in range(3):
        write_megatron(folder / f"web_{k}", [encode(text) for text in TEXTS[20 * k : 20 * k + 20]])
    write_megatron(folder / "held", [encode(text) for text in TEXTS[60:]])
    source = {"path": ["web_2", "web_[01].idx"], "format": "megatron", "validation": "held"}
    train = prepared(folder / "linked", {"web": source}).domains[0].train
    assert [shard.tokens for shard in train.shards] == [file.stat().st_size // 2 for file in files]
    for file, shard in zip(files, train.shards, strict=True):
        assert (train.path / shard.file).samefile(file)
    assert documents(train) == TEXTS[40:60] + TEXTS[:40]
    assert (train.documents, train.bytes) == (60, sum(len(text.encode()) for text in TEXTS[:60]))
    with monkeypatch.context() as patch:
        patch.setattr("os.link", refuse)  # another disk
        apart = prepared(folder / "apart", {"web": source}).domains[0].train
    assert (documents(apart), apart.bytes) == (documents(train), train.bytes)
    write_megatron(folder / "held", [encode(text) for text in TEXTS[59:]])
    copied = prepared(folder / "copied", {"web": source}).domains[0].train
    assert not (copied.path / "00000.bin").samefile(files[0])
    assert set(documents(copied)) == set(TEXTS[:59])


def test_max_tokens_takes_the_first_tokens_of_a_domain(folder):
    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    domain = prepared(folder / "out", {"web": MEGATRON | {"max_tokens": 2000}}).domains[0]
    assert domain.train.tokens + domain.validation.tokens == 2000
    assert domain.train.read(0, 20).tobytes() in (folder / "web.bin").read_bytes()[:4000]
    counts = count_domains(CorpusConfig(domains={"web": SourceConfig(**MEGATRON)}))
    assert counts[0].tokens == sum(len(encode(text)) for text in TEXTS)
    assert (counts[0].bytes, counts[0].is_exact, counts[0].files) == (0, True, 1)


def test_bad_sources_of_tokens_are_one_line_with_the_domain(folder, monkeypatch):
    def none(message, source=MEGATRON, **options):
        refused(message, folder / "out", {"web": source}, **options)

    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    none("domain 'web': none: not found", MEGATRON | {"path": "none"})
    none("'web': z*: the glob matches no file", MEGATRON | {"path": "z*"})
    raw = {"path": "web.bin", "format": "raw", "dtype": "uint16", "document_end": 257}
    none("domain 'web': document_end 257: 'bytes' has the ids 0 to 256", raw)
    none("the run would train bpe:300", tokenizer="bpe:300")
    write_megatron(folder / "big", [encode("fine"), [5, 300, END]])
    message = "domain 'web': big.bin: token 6 is 300, but 'bytes' has the ids 0 to 256"
    none(message, MEGATRON | {"path": "big"})
    digest = "mixopt.corpus.domain_tokens.token_digest"
    monkeypatch.setattr(digest, lambda *_: Path("web.bin").touch() or b"")
    none("domain 'web': web.bin: changed while it was being read")
    (folder / "web.bin").unlink()
    none("domain 'web': web.bin: cannot be read")


def test_tokens_whose_tokenizer_is_not_here_have_no_bytes_and_as_many_ids_as_are_met(folder):
    write_megatron(folder / "web", [[7, 70, 7000 + k, 2] for k in range(100)])
    corpus = prepared(folder / "out", {"web": MEGATRON}, tokenizer="./nowhere")
    domain = corpus.domains[0]
    assert (corpus.vocab_size, domain.train.bytes, domain.validation.bytes) == (7100, 0, 0)
    assert tokens_per_byte(corpus) == {}
    both = {"web": MEGATRON, "text": {"path": write_lines(folder / "a.jsonl", TEXTS)}}
    message = "tokenizer './nowhere': no such folder"
    refused(message, folder / "none", both, tokenizer="./nowhere")
