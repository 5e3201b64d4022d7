"""Domains of tokens: what is held out, what is left out, links, bytes, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers
from token_writers import write_megatron

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus import count_domains, prepare_corpus, tokens_per_byte
from mixopt.corpus.tokenizer import ByteTokenizer, FastTokenizer, TokenText, open_tokenizer
from mixopt.errors import CorpusError

END = 256
TEXTS = [f"document {k}: " + chr(97 + k % 26) * (20 + k % 17) + " é" for k in range(120)]


def encode(text):
    return [*text.encode(), END]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared(folder, domains, *, evaluation=None, seed=0, name="corpus", **options):
    sources = {name: SourceConfig(**source) for name, source in domains.items()}
    targets = {name: SourceConfig(**source) for name, source in (evaluation or {}).items()}
    config = CorpusConfig(domains=sources, **options)
    return prepare_corpus(config, targets, folder / name, fingerprint="f", seed=seed)


def refused(message, folder, domains, **options):
    with pytest.raises(CorpusError) as caught:
        prepared(folder, domains, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "corpus" / "index.json").exists()


def documents(shards):
    tokens = shards.read(0, len(shards))
    *found, rest = np.split(tokens, np.flatnonzero(tokens == END) + 1)
    assert not len(rest)
    return [tuple(one.tolist()) for one in found]


def write_lines(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


MEGATRON = {"path": "web", "format": "megatron"}


def test_documents_of_tokens_are_held_out_by_their_content_whatever_their_order(folder):
    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    write_megatron(folder / "turned", [encode(text) for text in TEXTS[::-1]])
    first = prepared(folder, {"web": MEGATRON}).domains[0]
    turned = prepared(folder, {"web": MEGATRON | {"path": "turned"}}, name="b").domains[0]
    other = prepared(folder, {"web": MEGATRON}, seed=1, name="c").domains[0]
    held, train = documents(first.validation), documents(first.train)
    assert set(held) == set(documents(turned.validation)) != set(documents(other.validation))
    assert sorted(held + train) == sorted(tuple(encode(text)) for text in TEXTS)
    assert (first.train.documents, first.validation.documents) == (len(train), len(held))
    share = first.validation.tokens / (first.validation.tokens + first.train.tokens)
    assert 0.03 < share < 0.1


def test_of_a_quarter_as_many_tokens_as_bytes_are_held_out_at_most(folder):
    FastTokenizer.train(TEXTS, 400).save(folder)
    tokenizer = open_tokenizer(".")
    write_megatron(folder / "web", [tokenizer.encode([text]).tolist() for text in TEXTS])
    limits = {"max_validation_bytes": 200, "tokenizer": ".", "validation_fraction": 0.4}
    corpus = prepared(folder, {"web": MEGATRON}, evaluation={"t": MEGATRON}, **limits)
    assert corpus.targets[0].validation.tokens == 50
    assert corpus.domains[0].validation.tokens <= 50
    assert corpus.provenance["sources"]["web"]["read"]["equal_to_evaluation"] > 0


def test_bytes_of_held_out_tokens_are_those_of_their_text(folder):
    FastTokenizer.train(TEXTS, 400).save(folder)
    tokenizer = open_tokenizer(".")
    write_megatron(folder / "web", [tokenizer.encode([text]).tolist() for text in TEXTS])
    write_lines(folder / "a.jsonl", TEXTS[:60])
    write_lines(folder / "b.jsonl", TEXTS[60:])
    write_megatron(folder / "b", [tokenizer.encode([text]).tolist() for text in TEXTS[60:]])
    of_text = prepared(folder, {"web": {"path": "a.jsonl", "validation": "b.jsonl"}}, tokenizer=".")
    source = MEGATRON | {"path": "web", "validation": "b"}
    of_tokens = prepared(folder, {"web": source}, tokenizer=".", name="tokens")
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


def test_duplicates_and_empty_documents_are_left_out(folder):
    tokens = [encode(text) for text in (*TEXTS, *TEXTS[:30])] + [[END], [END]]
    write_megatron(folder / "web", tokens)
    corpus = prepared(folder, {"web": MEGATRON})
    domain = corpus.domains[0]
    both = documents(domain.train) + documents(domain.validation)
    assert sorted(both) == sorted(tuple(encode(text)) for text in TEXTS)
    read = corpus.provenance["sources"]["web"]["read"]
    assert (read["duplicates"], read["empty"], read["equal_to_evaluation"]) == (30, 2, 0)


def test_what_is_held_out_as_text_is_not_trained_on_as_tokens_and_the_other_way_round(folder):
    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    write_lines(folder / "a.jsonl", TEXTS)
    domains = {"web": MEGATRON, "text": {"path": "a.jsonl"}}
    corpus = prepared(folder, domains, tokenizer="bytes")
    held = {d for domain in corpus.domains for d in documents(domain.validation)}
    trained = {d for domain in corpus.domains for d in documents(domain.train)}
    assert len(held) >= 6
    assert held.isdisjoint(trained)
    assert corpus.domain_names == ("web", "text")
    assert list(corpus.provenance["sources"]) == ["web", "text"]


def test_tokens_without_documents_are_held_out_by_blocks(folder):
    rng = np.random.default_rng(0)
    rng.integers(0, 250, 200_000).astype("<u2").tofile(folder / "a.bin")
    raw = {"path": "a.bin", "format": "raw", "dtype": "uint16"}
    domain = prepared(folder, {"web": raw}).domains[0]
    assert domain.validation.tokens == 3 * 4096
    assert domain.validation.tokens + domain.train.tokens == 200_000
    assert (domain.train.documents, domain.validation.documents) == (0, 0)


def test_files_of_which_nothing_is_left_out_become_shards_by_hard_links(folder, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    for k in range(3):
        write_megatron(folder / f"web_{k}", [encode(text) for text in TEXTS[20 * k : 20 * k + 20]])
    write_megatron(folder / "held", [encode(text) for text in TEXTS[60:]])
    source = {"path": ["web_2", "web_[01].idx"], "format": "megatron", "validation": "held"}
    domain = prepared(folder, {"web": source}).domains[0]
    assert [shard.tokens for shard in domain.train.shards] == [
        (folder / f"web_{k}.bin").stat().st_size // 2 for k in (2, 0, 1)
    ]
    for k, shard in zip((2, 0, 1), domain.train.shards, strict=True):
        assert (domain.train.path / shard.file).samefile(folder / f"web_{k}.bin")
    wanted = [tuple(encode(text)) for text in TEXTS[40:60] + TEXTS[:40]]
    assert documents(domain.train) == wanted
    assert (domain.train.documents, domain.train.bytes) == (
        60, sum(len(text.encode()) for text in TEXTS[:60]),
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("os.link", refuse)  # another disk
        apart = prepared(folder, {"web": source}, name="apart").domains[0]
    assert documents(apart.train) == wanted
    assert apart.train.bytes == domain.train.bytes
    write_megatron(folder / "held", [encode(text) for text in TEXTS[59:]])
    copied = prepared(folder, {"web": source}, name="copy").domains[0]
    assert not (copied.train.path / "00000.bin").samefile(folder / "web_2.bin")
    assert set(documents(copied.train)) == set(wanted) - {tuple(encode(TEXTS[59]))}


def test_max_tokens_takes_the_first_tokens_of_a_domain(folder):
    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    domain = prepared(folder, {"web": MEGATRON | {"max_tokens": 2000}}).domains[0]
    assert domain.train.tokens + domain.validation.tokens == 2000
    whole = b"".join(np.array(encode(text), "<u2").tobytes() for text in TEXTS)[:4000]
    assert domain.train.read(0, 20).tobytes() in whole
    counts = count_domains(CorpusConfig(domains={"web": SourceConfig(**MEGATRON)}))
    assert counts[0].tokens == sum(len(encode(text)) for text in TEXTS)
    assert (counts[0].bytes, counts[0].is_exact, counts[0].files) == (0, True, 1)


def test_bad_sources_of_tokens_are_one_line_with_the_domain(folder):
    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    refused("domain 'web': none: not found", folder, {"web": MEGATRON | {"path": "none"}})
    refused("'web': z*: the glob matches no file", folder, {"web": MEGATRON | {"path": "z*"}})
    raw = {"path": "web.bin", "format": "raw", "dtype": "uint16", "document_end": 257}
    refused("domain 'web': document_end 257: 'bytes' has the ids 0 to 256", folder, {"web": raw})
    refused("is trained by the run", folder, {"web": MEGATRON}, tokenizer="bpe:300")
    write_megatron(folder / "big", [encode("fine"), [5, 300, END]])
    message = "domain 'web': big.bin: token 6 is 300: 'bytes' has the ids 0 to 256"
    refused(message, folder, {"web": MEGATRON | {"path": "big"}})
    (folder / "web.bin").unlink()
    refused("domain 'web': web.bin: cannot be read", folder, {"web": MEGATRON})


def test_a_file_that_changes_while_it_is_read_is_refused(folder, monkeypatch):
    write_megatron(folder / "web", [encode(text) for text in TEXTS])
    from mixopt.corpus import domain_tokens

    def slow(tokens, end):
        (folder / "web.bin").touch()
        return digest(tokens, end)

    digest = domain_tokens.token_digest
    monkeypatch.setattr(domain_tokens, "token_digest", slow)
    refused("domain 'web': web.bin: changed while it was being read", folder, {"web": MEGATRON})


def test_tokens_whose_tokenizer_is_not_here_have_no_bytes_and_as_many_ids_as_are_met(folder):
    write_megatron(folder / "web", [[7, 70, 7000 + k, 2] for k in range(100)])
    corpus = prepared(folder, {"web": MEGATRON}, tokenizer="./nowhere")
    domain = corpus.domains[0]
    assert (corpus.vocab_size, domain.train.bytes, domain.validation.bytes) == (7100, 0, 0)
    assert tokens_per_byte(corpus) == {}
    write_lines(folder / "a.jsonl", TEXTS)
    refused("tokenizer './nowhere': no such folder", folder,
            {"web": MEGATRON, "text": {"path": "a.jsonl"}}, tokenizer="./nowhere")  # fmt: skip
