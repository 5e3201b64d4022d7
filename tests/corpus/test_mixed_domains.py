"""Replay: domains in fixed shares that are prepared as one, exact to a document."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mixopt.config import CorpusConfig
from mixopt.corpus import Corpus, prepare_corpus, true_inventory
from mixopt.errors import CorpusError

WEB, CODE = 0.7, 0.3
HELD_OUT = 0.2


def documents(letter: str, count: int, length: int) -> list[str]:
    """Documents of one letter, each with a number of its own."""
    return [f"{number:05d}".ljust(length, letter) for number in range(count)]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    texts = {
        "web": documents("w", 120, 99),
        "code": documents("c", 100, 199),
        "math": documents("m", 80, 149),
    }
    for name, rows in texts.items():
        lines = (json.dumps({"text": row}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return {name: folder / f"{name}.jsonl" for name in texts}


def parts_of(files, **more) -> dict:
    return {"domains": {name: {"path": str(files[name])} for name in ("web", "code")}} | more


def configured(files, mixed) -> CorpusConfig:
    domains = {"math": {"path": str(files["math"])}, "replay": {"mixed": mixed}}
    return CorpusConfig.model_validate({"domains": domains, "validation_fraction": HELD_OUT})


def prepared(tmp_path, files, mixed) -> Corpus:
    config = configured(files, mixed)
    return prepare_corpus(config, {}, tmp_path / "corpus", fingerprint="f", seed=3)


def pieces(shards, end) -> set[bytes]:
    """Documents of bytes, without the id that ends them."""
    tokens = shards.read(0, shards.tokens).tolist()
    return set(bytes(t if t < end else 10 for t in tokens).split(b"\n")) - {b""}


def letters(shards) -> Counter:
    text = bytes(t for t in shards.read(0, shards.tokens).tolist() if t < 256)
    return Counter(chr(one) for one in text if chr(one).isalpha())


def test_a_mixed_domain_has_its_parts_in_their_shares_to_a_document(files, tmp_path):
    corpus = prepared(tmp_path, files, parts_of(files, mixture={"web": WEB, "code": CODE}))
    train = corpus.domains[1].train
    made = corpus.provenance["mixed"]["replay"]
    assert abs(made["tokens"]["web"] - WEB * train.tokens) <= 200
    assert sum(made["tokens"].values()) == train.tokens
    assert 1 - 0.03 < max(made["epochs"].values()) <= 1, "as large as no part is repeated for"


def test_what_is_held_out_of_a_part_is_not_trained_on(files, tmp_path):
    corpus = prepared(tmp_path, files, parts_of(files))
    assert (corpus.domain_names, corpus.evaluation_names[2:]) == (
        ("math", "replay"),
        ("web", "code"),
    )
    assert not (tmp_path / "corpus" / "web" / "train").exists()
    rows, held = pieces(corpus.domains[1].train, 256), pieces(corpus.targets[0].validation, 256)
    assert len(rows) > len(held) > 20
    assert not rows & held


def test_a_share_that_takes_more_epochs_than_allowed_is_refused_with_the_epochs(files, tmp_path):
    mixed = parts_of(files, mixture={"web": WEB, "code": CODE})
    with pytest.raises(CorpusError) as caught:
        prepared(tmp_path, files, mixed | {"tokens": 30_000})
    assert str(caught.value) == (
        "domain 'replay': a share of 0.7 of 'web' in 30,000 tokens takes 2.19 epochs of its 9,600"
        " tokens, and mixed.max_epochs is 1: lower mixed.tokens to 13,714, or allow max_epochs: 3"
    )
    corpus = prepared(tmp_path, files, mixed | {"tokens": 13_714})
    assert corpus.domains[1].train.tokens == pytest.approx(13_714, abs=100)


def token_files(folder) -> dict[str, dict]:
    """Two parts of 24,000 tokens that another tool wrote: documents of 100 tokens that end in 0."""
    found = {}
    for name, letter in (("web", ord("w")), ("code", ord("c"))):
        rows = [[*f"{n:05d}".encode(), *[letter] * 94, 0] for n in range(300)]
        for split, part in (("train", rows[:240]), ("validation", rows[240:])):
            np.array(part, np.uint16).tofile(folder / f"{name}-{split}.bin")
        files = {"path": f"{name}-train.bin", "validation": f"{name}-validation.bin"}
        paths = {field: str(folder / file) for field, file in files.items()}
        found[name] = {**paths, "format": "raw", "dtype": "uint16"}
    return found


def of_tokens(folder, **stated) -> dict:
    domains = {name: source | stated for name, source in token_files(folder).items()}
    return {"domains": domains, "mixture": {"web": 0.5, "code": 0.5}, "tokens": 8_000}


def test_parts_of_tokens_end_documents_with_the_id_that_they_state(files, tmp_path):
    corpus = prepared(tmp_path, files, of_tokens(tmp_path, document_end=0))
    made, train = corpus.provenance["mixed"]["replay"], corpus.domains[1].train
    assert made["tokens"] == {"web": 4_000, "code": 4_000}
    assert (train.tokens, train.documents) == (8_000, 80)
    assert letters(train) == {"w": 40 * 94, "c": 40 * 94}
    assert train.bytes == 80 * 99, "the id that ends a document stands for no text"


def test_parts_without_a_known_end_of_documents_are_taken_in_blocks(files, tmp_path):
    corpus = prepared(tmp_path, files, of_tokens(tmp_path))
    made = corpus.provenance["mixed"]["replay"]
    assert made["shares"] == pytest.approx({"web": 0.5, "code": 0.5}, abs=0.07)


def test_a_part_may_be_repeated_where_that_is_allowed_and_counts_once(files, tmp_path):
    mixed = parts_of(files, mixture={"web": WEB, "code": CODE}, tokens=30_000, max_epochs=3)
    corpus = prepared(tmp_path, files, mixed)
    train = corpus.domains[1].train.tokens
    epochs = corpus.provenance["mixed"]["replay"]["epochs"]["web"]
    assert (train, epochs) == (pytest.approx(30_000, abs=200), pytest.approx(2.19, abs=0.05))
    math, once = corpus.domains[0].train.tokens, round(train / epochs)
    assert corpus.inventory == {"math": math, "replay": once}
    assert corpus.natural["replay"] == pytest.approx(once / (once + math))
    assert true_inventory(configured(files, mixed).domains, corpus) == corpus.inventory
