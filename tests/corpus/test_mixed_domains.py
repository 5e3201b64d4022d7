"""Replay: domains in fixed shares that are prepared as one, exact to a document."""

from collections import Counter

import numpy as np
import pytest
from made_corpus import documents, prepared, write_lines

from mixopt.config import CorpusConfig
from mixopt.corpus import true_inventory
from mixopt.errors import CorpusError

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
    _, train, made = mixed(files, tmp_path, parts_of(files, mixture=SHARES))
    assert abs(made["tokens"]["web"] - 0.7 * train.tokens) <= 200
    assert sum(made["tokens"].values()) == train.tokens
    assert 1 - 0.03 < max(made["epochs"].values()) <= 1, "as large as no part is repeated for"


def test_what_is_held_out_of_a_part_is_not_trained_on(files, tmp_path):
    corpus, train, _ = mixed(files, tmp_path, parts_of(files))
    assert corpus.domain_names == ("math", "replay")
    assert corpus.evaluation_names[2:] == ("web", "code")
    assert not (tmp_path / "corpus" / "web" / "train").exists()
    rows, held = set(documents(train)), set(documents(corpus.targets[0].validation))
    assert len(rows) > len(held) > 20
    assert not rows & held


def test_a_share_that_takes_more_epochs_than_allowed_is_refused_with_the_epochs(files, tmp_path):
    with pytest.raises(CorpusError) as caught:
        mixed(files, tmp_path, parts_of(files, mixture=SHARES, tokens=30_000))
    assert str(caught.value) == (
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
    _, train, made = mixed(files, tmp_path, of_tokens(tmp_path, document_end=0))
    assert made["tokens"] == {"web": 4_000, "code": 4_000}
    assert (train.tokens, train.documents) == (8_000, 80)
    assert Counter(text[5] for text in documents(train, end=0)) == {"w": 40, "c": 40}
    assert train.bytes == 80 * 99, "the id that ends a document stands for no text"
    _, _, made = mixed(files, tmp_path, of_tokens(tmp_path))
    assert made["shares"] == pytest.approx({"web": 0.5, "code": 0.5}, abs=0.07)


def test_a_part_may_be_repeated_where_that_is_allowed_and_counts_once(files, tmp_path):
    parts = parts_of(files, mixture=SHARES, tokens=30_000, max_epochs=3)
    corpus, train, made = mixed(files, tmp_path, parts)
    epochs = made["epochs"]["web"]
    assert train.tokens == pytest.approx(30_000, abs=200)
    assert epochs == pytest.approx(2.19, abs=0.05)
    math, once = corpus.domains[0].train.tokens, round(train.tokens / epochs)
    assert corpus.inventory == {"math": math, "replay": once}
    assert corpus.natural["replay"] == pytest.approx(once / (once + math))
    config = CorpusConfig(domains={"math": files["math"], "replay": {"mixed": parts}})
    assert true_inventory(config.domains, corpus) == corpus.inventory
