"""Domains of tokens: what is held out, what is left out, links, bytes, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from made_corpus import documents, prepared, refused, write_lines
from refusals import refusal
from token_writers import write_megatron

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import count_domains, tokens_per_byte, true_inventory
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
    """A tokenizer in this folder, and the documents of `web` in its tokens."""
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


def test_held_out_text_is_dropped_from_training_tokens_and_held_out_tokens_from_text(folder):
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


def test_files_used_completely_become_shards_by_hard_links(folder, monkeypatch):
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
    counts = count_domains(CorpusConfig(domains={"web": DomainConfig(**MEGATRON)}))
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


def test_tokens_without_their_tokenizer_have_no_bytes_and_ids_up_to_the_largest_read(folder):
    write_megatron(folder / "web", [[7, 70, 7000 + k, 2] for k in range(100)])
    corpus = prepared(folder / "out", {"web": MEGATRON}, tokenizer="./nowhere")
    domain = corpus.domains[0]
    assert (corpus.vocab_size, domain.train.bytes, domain.validation.bytes) == (7100, 0, 0)
    assert tokens_per_byte(corpus) == {}
    both = {"web": MEGATRON, "text": {"path": write_lines(folder / "a.jsonl", TEXTS)}}
    message = "tokenizer './nowhere': no such folder"
    refused(message, folder / "none", both, tokenizer="./nowhere")


# --- Replay: domains in fixed shares that are prepared as one, exact to a document ----------------


SHARES = {"web": 0.7, "code": 0.3}


@pytest.fixture
def files(tmp_path) -> dict[str, dict]:
    """Documents of one letter, each with a number of its own."""
    sizes = {"web": ("w", 120, 99), "code": ("c", 100, 199), "math": ("m", 80, 149)}
    return {
        name: {
            "path": write_lines(
                tmp_path / f"{name}.jsonl", [f"{k:05d}".ljust(n, x) for k in range(rows)]
            )
        }
        for name, (x, rows, n) in sizes.items()
    }


def parts_of(files, **more):
    return {"domains": {name: files[name] for name in ("web", "code")}} | more


def mixed(files, tmp_path, parts):
    """Prepare a domain of its own beside one of parts; return the corpus and what was made."""
    domains = {"math": files["math"], "replay": {"mixed": parts}}
    corpus = prepared(tmp_path / "corpus", domains, validation_fraction=0.2, seed=3)
    return corpus, corpus.domains[1].train, corpus.provenance["mixed"]["replay"]


def test_a_mixed_domain_has_its_parts_in_their_shares_to_a_document(files, tmp_path):
    _, train, measured = mixed(files, tmp_path, parts_of(files, mixture=SHARES))
    assert abs(measured["tokens"]["web"] - 0.7 * train.tokens) <= 200
    assert sum(measured["tokens"].values()) == train.tokens
    assert 1 - 0.03 < max(measured["epochs"].values()) <= 1, "as large as no part is repeated for"


def test_what_is_held_out_of_a_part_is_not_trained_on(files, tmp_path):
    corpus, train, _ = mixed(files, tmp_path, parts_of(files))
    assert corpus.domain_names == ("math", "replay")
    assert corpus.evaluation_names[2:] == ("web", "code")
    assert not (tmp_path / "corpus" / "web" / "train").exists()
    rows, held = set(documents(train)), set(documents(corpus.targets[0].validation))
    assert len(rows) > len(held) > 20
    assert not rows & held


def test_a_share_that_takes_more_epochs_than_allowed_is_refused_with_the_epochs(files, tmp_path):
    parts = parts_of(files, mixture=SHARES, tokens=30_000)
    assert refusal(mixed, files, tmp_path, parts) == (
        "domain 'replay': a share of 0.7 of 'web' in 30,000 tokens takes 2.19 epochs of its 9,600"
        " tokens, and mixed.max_epochs is 1: lower mixed.tokens to 13,714, or allow max_epochs: 3"
    )
    _, train, _ = mixed(files, tmp_path, parts_of(files, mixture=SHARES, tokens=13_714))
    assert train.tokens == pytest.approx(13_714, abs=100)


def of_tokens(folder, **stated):
    """Parts of 24,000 tokens that another tool wrote: documents of 100 tokens that end in 0."""
    domains = {}
    for name in ("web", "code"):
        rows = [[*f"{n:05d}".encode(), *[ord(name[0])] * 94, 0] for n in range(300)]
        paths = {field: str(folder / f"{name}.{field}") for field in ("path", "validation")}
        for path, part in zip(paths.values(), (rows[:240], rows[240:]), strict=True):
            np.array(part, np.uint16).tofile(path)
        domains[name] = {**paths, "format": "raw", "dtype": "uint16", **stated}
    return {"domains": domains, "mixture": {"web": 0.5, "code": 0.5}, "tokens": 8_000}


def test_parts_of_tokens_end_with_the_id_that_they_state_or_are_taken_in_blocks(files, tmp_path):
    _, train, measured = mixed(files, tmp_path, of_tokens(tmp_path, document_end=0))
    assert measured["tokens"] == {"web": 4_000, "code": 4_000}
    assert (train.tokens, train.documents) == (8_000, 80)
    assert Counter(text[5] for text in documents(train, end=0)) == {"w": 40, "c": 40}
    assert train.bytes == 80 * 99, "the id that ends a document stands for no text"
    _, _, measured = mixed(files, tmp_path, of_tokens(tmp_path))
    assert measured["shares"] == pytest.approx({"web": 0.5, "code": 0.5}, abs=0.07)


def test_a_part_may_be_repeated_where_that_is_allowed_and_counts_once(files, tmp_path):
    parts = parts_of(files, mixture=SHARES, tokens=30_000, max_epochs=3)
    corpus, train, measured = mixed(files, tmp_path, parts)
    epochs = measured["epochs"]["web"]
    assert train.tokens == pytest.approx(30_000, abs=200)
    assert epochs == pytest.approx(2.19, abs=0.05)
    math, once = corpus.domains[0].train.tokens, round(train.tokens / epochs)
    assert corpus.inventory == {"math": math, "replay": once}
    assert corpus.natural["replay"] == pytest.approx(once / (once + math))
    config = CorpusConfig(domains={"math": files["math"], "replay": {"mixed": parts}})
    assert true_inventory(config.domains, corpus) == corpus.inventory
