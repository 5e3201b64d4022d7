"""A corpus is prepared: what is held out, left out, refused; by any number of processes."""

import inspect
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
from hypothesis import given, strategies as st
from made_corpus import content, documents, prepared, refused, sealed_again, write_lines
from places import SUPPORT
from refusals import refuses

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import (
    Corpus,
    corpus_hash,
    domain_text,
    saved_tokenizer,
    spooled_documents,
    true_inventory,
)
from mixopt.corpus.reader_context import Document
from mixopt.corpus.spooled_documents import HeldOutSplit, Spooled, content_digest
from mixopt.errors import CorpusError, ShardError
from mixopt.loading import MixtureDataset


def words(name, count=60):
    return [f"{name} document {k}: " + f"{name} " * (20 + k % 7) for k in range(count)]


@pytest.fixture
def sources(tmp_path):
    return {name: {"path": write_lines(tmp_path / f"{name}.jsonl", words(name))} for name in "ab"}


def prepare(path, domains, targets=None, **options):
    return prepared(path / "corpus", domains, targets, **{"validation_fraction": 0.1} | options)


def test_every_document_is_on_exactly_one_side(tmp_path, sources):
    corpus = prepare(tmp_path, sources)
    for domain in corpus.domains:
        train, held_out = documents(domain.train), documents(domain.validation)
        assert sorted(train + held_out) == sorted(words(domain.name))
        assert not set(train) & set(held_out)
        share = domain.validation.bytes / (domain.train.bytes + domain.validation.bytes)
        assert share == pytest.approx(0.1, abs=1 / 60), "of the bytes"
        mean = domain.train.tokens / domain.train.documents
        assert corpus.sample_tokens[domain.name] == mean
    assert repr(corpus).endswith("corpus': 2 domains, 0 targets, 6.56k tokens, tokenizer bytes)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "mixopt-corpus/2"}, "format 'mixopt-corpus/2', expected 'mixopt-corpus/3'"),
        ({"domains": ["a", "b", "a"]}, "index.json: domain 'a' is listed twice; prepare the corp"),
        ({"files": {}}, "tokenizer.json: does not belong to this corpus"),
        ({"files": {"a/train/index.json": {"bytes": 1, "sha256": "0" * 64}}}, "index.json: has "),
    ],
)
def test_an_index_that_is_not_of_this_corpus_is_refused(tmp_path, sources, change, message):
    corpus = prepare(tmp_path, sources)
    assert MixtureDataset.from_corpus(corpus.path, length=8).domains == ("a", "b")
    sealed_again(corpus.path / "index.json", **change)
    (corpus.path / "tokenizer.json").write_text("{}")
    refuses(CorpusError, message, Corpus.open, corpus.path)
    refuses(CorpusError, "holds no prepared corpus: index.json is missing", corpus_hash, tmp_path)


def test_documents_that_are_held_out_anywhere_are_not_trained_on(tmp_path, sources):
    target = {"path": write_lines(tmp_path / "t.jsonl", [*words("a", 5), *words("t")])}
    corpus = prepare(tmp_path, sources, {"t": target})
    assert not set(documents(corpus.domains[0].train)) & set(words("a", 5))
    read = corpus.provenance["sources"]["a"]["read"]
    held_out = set(documents(corpus.domains[0].validation))
    assert read["equal_to_evaluation"] == len(set(words("a", 5)) - held_out)
    assert corpus.domains[0].train.documents == read["train_documents"]
    assert corpus.evaluation_names == ("a", "b", "t")
    assert corpus.targets[0].train is None
    assert documents(corpus.targets[0].validation) == [*words("a", 5), *words("t")]


def test_files_of_held_out_documents_are_used_as_they_are(tmp_path, sources):
    held_out = write_lines(tmp_path / "v.jsonl", [*words("v", 10), words("a")[0]])
    corpus = prepare(tmp_path, {"a": {**sources["a"], "validation": held_out}})
    assert documents(corpus.domains[0].validation) == [*words("v", 10), words("a")[0]]
    assert documents(corpus.domains[0].train) == words("a")[1:]


def test_max_bytes_cuts_the_text_and_reads_no_further(tmp_path):
    path = Path(write_lines(tmp_path / "a.jsonl", words("a")))
    path.write_text(path.read_text() + "broken\n")
    corpus = prepare(tmp_path, {"a": {"path": str(path), "max_bytes": 2_000}})
    domain = corpus.domains[0]
    assert domain.train.bytes + domain.validation.bytes == 2_000
    source = {"path": write_lines(tmp_path / "b.jsonl", words("b"))}
    corpus = prepare(tmp_path, {"b": source}, {"t": source}, max_validation_bytes=300)
    assert 0 < corpus.domains[0].validation.bytes <= corpus.targets[0].validation.bytes == 300


def test_bpe_learns_from_equal_bytes_of_each_domain(tmp_path, monkeypatch):
    monkeypatch.setattr("mixopt.corpus.preparation.BPE_BYTES", 2_000)
    source = inspect.getsource(inspect)
    pieces = [source[at : at + 900] for at in range(0, len(source), 900)]
    domains = {
        "small": {
            "path": write_lines(tmp_path / "s.jsonl", [f"{k} " + "qz " * 200 for k in range(3)])
        },
        "big": {"path": write_lines(tmp_path / "b.jsonl", pieces)},
    }
    corpus = prepare(tmp_path, domains, tokenizer="bpe:300")
    inner = saved_tokenizer(corpus.path, corpus.tokenizer).inner
    assert inner.token_to_id("qz") is not None


def test_duplicates_up_to_white_space_and_bad_documents_are_left_out_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path, [*words("a"), *(text.replace(" ", "\n ") for text in words("a")), ""])
    path.write_text(path.read_text() + "broken\n")
    said, domains = [], {"a": {"path": str(path)}}
    corpus = prepare(tmp_path, domains, on_bad_document="skip", progress=said.append)
    read = corpus.provenance["sources"]["a"]["read"]
    assert "a.jsonl:122: broken JSON" in read.pop("first_bad")
    assert read == {
        "train_documents": 53, "validation_documents": 7, "empty": 1, "duplicates": 60,
        "equal_to_evaluation": 0, "bad": 1,
    }  # fmt: skip
    assert said == [
        "a: 60 documents, 0.00 MB to train on, 0.00 MB held out"
        " (60 duplicates, 1 empty, 1 bad left out)",
        "a: 3,275 training tokens, 423 held-out tokens",
    ]
    assert len(documents(corpus.domains[0].train)) == 53


def spooled(document):
    return Spooled(content_digest(document.text), document.text.encode())


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    most=st.integers(1, 400),
    data=st.data(),
)
def test_what_is_held_out_does_not_depend_on_the_order_of_documents(sizes, most, data):
    documents = [Document(f"{k} {'x' * size}") for k, size in enumerate(sizes)]
    sides = []
    for order in (documents, data.draw(st.permutations(documents))):
        held_out = HeldOutSplit(0.1, most, seed=3)
        list(held_out.training((None, spooled(document)) for document in order))
        sides.append(sorted(item.content for item in held_out.held_out))
        kept = sum(len(text) for text in sides[-1])
        assert sides[-1]
        assert kept <= most or len(sides[-1]) == 1
    assert sides[0] == sides[1]


@pytest.mark.parametrize(("most", "documents"), [(100, 3), (20, 2), (5, 1)])
def test_the_fewest_documents_with_their_share_of_the_bytes_are_held_out(most, documents):
    held_out = HeldOutSplit(0.25, most, seed=0)
    documents_of_ten = (Document(f"{k:010}") for k in range(10))
    given = list(held_out.training((None, spooled(document)) for document in documents_of_ten))
    assert (len(held_out.held_out), len(given)) == (documents, 10 - documents)


@pytest.mark.parametrize(
    ("texts", "held_out", "message"),
    [
        ([" ", "\n"], None, "domain 'a': no documents; add documents, or leave the domain out"),
        (words("a"), [" "], "domain 'a': no held-out documents; add documents"),
        (["only this"], None, "domain 'a': all of its 1 documents are held out, so none is left"),
        (["one", "three"], words("v"), "domain 'a': 10 training tokens, fewer than one sequence of"
         " 128; add text"),
        (words("a"), ["seven"], "domain 'a': 6 held-out tokens, fewer than one sequence of 128;"
         " raise corpus.validation_fraction, or name files as 'validation'"),
    ],
)  # fmt: skip
def test_a_domain_that_is_too_small_is_refused(tmp_path, texts, held_out, message):
    source = {"path": write_lines(tmp_path / "a.jsonl", texts)}
    if held_out:
        source["validation"] = write_lines(tmp_path / "v.jsonl", held_out)
    refused(message, tmp_path / "corpus", {"a": source}, min_tokens=128)
    targets = {"t": {"path": write_lines(tmp_path / "t.jsonl", [" "])}}
    whole = {"path": write_lines(tmp_path / "b.jsonl", words("b"))}
    refused("domain 't': no documents", tmp_path / "corpus", {"b": whole}, targets)


def test_the_environment_is_taken_up_to_max_bytes(tmp_path):
    out, legal = tmp_path / "corpus", {"environment": "legal"}
    message = "evaluation.a: is already the name of a training domain; rename it"
    refused(message, out, {"a": legal}, {"a": legal})
    assert not out.exists()
    corpus = prepare(tmp_path, {"a": legal | {"max_bytes": 50_000}})
    assert corpus.domains[0].train.bytes + corpus.domains[0].validation.bytes == 50_000
    assert corpus.provenance["environment"]["numpy"] == np.__version__


def test_an_interrupted_preparation_is_no_corpus_and_is_done_again(tmp_path, sources):
    whole = content(prepare(tmp_path / "whole", sources, tokenizer="bpe:300").path)
    prepare(tmp_path, sources)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, sources, progress=Mock(side_effect=[None, None, KeyboardInterrupt]))
    refuses(CorpusError, "not found", Corpus.open, tmp_path / "corpus")
    assert content(prepare(tmp_path, sources, tokenizer="bpe:300").path) == whole


def test_absent_text_has_names_and_sizes_but_cannot_be_read(tmp_path, sources):
    corpus = prepare(tmp_path, {"web": {"tokens": 10**12}, "a": sources["a"]}, {"mmlu": {}})
    stated = {"web": DomainConfig(tokens=10**12)}
    assert corpus.inventory["web"] == true_inventory(stated, corpus)["web"] == 10**12
    assert corpus.evaluation_names == ("web", "a", "mmlu")
    web, a = corpus.domains
    assert [web.train.is_elsewhere, a.train.is_elsewhere] == [True, False]
    message = "web/train: its text is not available here; only your own trainer reads it"
    for read in (lambda: web.train.read(0, 1), lambda: web.train.rows([0], 1)):
        refuses(ShardError, message, read)
    sealed_again(web.train.path / "index.json", elsewhere=False)
    with pytest.raises(ShardError, match="1000000000000 tokens, but its shards have 0"):
        Corpus.open(corpus.path, verify=False)


# --- Several processes give the same bytes, and end in one line when one dies ---------------------


RUN = """
import sys
from pathlib import Path
import mixopt.corpus.domain_text as text
from made_corpus import prepared
text.PARALLEL_BYTES = 0
domains = {name: {"path": f"{sys.argv[1]}/{name}.jsonl"} for name in "abc"}
prepared(Path(sys.argv[2]), domains, workers=2)
"""


def rows_of(name: str, count: int = 300) -> list[str]:
    return [f"{name} document {k}: " + f"{name}{k % 11} " * (40 + k % 7) for k in range(count)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three domains that share some documents, and are read by several processes though small."""
    monkeypatch.setattr(domain_text, "PARALLEL_BYTES", 0)
    for name in "abc":
        rows = [*rows_of(name), *rows_of("same", 40), "", rows_of(name)[0]]
        write_lines(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def prepared_by(folder, workers: int, names="ab", **options) -> tuple[Corpus, list[str]]:
    *domains, target = ((name, {"path": str(folder / f"{name}.jsonl")}) for name in names + "c")
    # One domain alone is read in this process, where the size of a piece may be changed.
    targets, said = {"target": target[1]} if len(domains) > 1 else {}, []
    options |= {"workers": workers, "progress": said.append}
    return prepared(folder / f"corpus-{workers}", dict(domains), targets, **options), said


@pytest.mark.nightly
def test_any_number_of_processes_gives_the_same_bytes_and_says_the_same(folder):
    (single, said), (three, same) = (prepared_by(folder, k, tokenizer="bpe:300") for k in (1, 3))
    assert content(single.path) == content(three.path)
    assert said == same
    assert single.provenance["sources"]["a"]["read"]["equal_to_evaluation"] > 0
    assert Corpus.open(three.path).domain_names == ("a", "b")


def test_each_domain_is_reported_as_soon_as_it_and_those_before_it_are_read(tmp_path):
    said, good = [], {"path": write_lines(tmp_path / "a.jsonl", words("a"))}
    bad = good | {"column": "body"}
    refused("no column 'body'", tmp_path / "out", {"a": good, "b": bad}, progress=said.append)
    assert [line.partition(":")[0] for line in said] == ["a"]


def test_pieces_of_one_domain_are_shards_in_order(folder, monkeypatch):
    whole = prepared_by(folder, 1, "a")[0].domains[0].train
    text = whole.read(0, whole.tokens)
    monkeypatch.setattr(spooled_documents, "PIECE_BYTES", 20_000)
    (single, _), (two, _) = (prepared_by(folder, k, "a") for k in (1, 2))
    assert content(single.path) == content(two.path)
    train = single.domains[0].train
    assert len(train.shards) > 2
    assert (train.documents, train.bytes) == (whole.documents, whole.bytes)
    assert (train.read(0, train.tokens) == text).all()


def test_expected_bytes_follow_from_files_and_limits(folder):
    def expected(*, most=None, **source):
        config = CorpusConfig(domains={"d": DomainConfig(**source)}, max_bytes=most)
        text = domain_text.DomainText("d", config.domains["d"], config, folder, 0, is_target=False)
        return text.expected_bytes()

    path = folder / "a.jsonl"
    assert expected(path=str(path)) == path.stat().st_size
    assert expected(path=str(path), max_bytes=100) == expected(path=str(path), most=100) == 100
    assert expected(environment="json") == 4_000_000
    assert expected(path="owner/name") == math.inf


def started(folder, out) -> subprocess.Popen:
    """Start a long preparation, and wait until its children write."""
    for name in "abc":
        rows = (json.dumps({"text": f"{k} {row}"}) for k in range(60) for row in rows_of(name))
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(out)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not list(out.glob(".text/*/train")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    return process


DEADLY = """
import os, signal
import mixopt.corpus.sources as sources
read = sources.TextFile.rows
def rows(self, reading):
    if self.place.name == "b.jsonl":
        os.kill(os.getpid(), signal.SIGSEGV)
    return read(self, reading)
sources.TextFile.rows = rows
"""


@pytest.mark.nightly
def test_a_process_that_dies_of_a_file_names_it_in_one_line(folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    process = subprocess.run(
        [sys.executable, "-c", RUN,
         str(folder), str(folder / "out")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{SUPPORT}"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert process.returncode == 1
    last = process.stderr.strip().splitlines()[-1]
    named = f"domain 'b': {folder / 'b.jsonl'}: the process that reads or tokenises it died"
    assert named in last
    assert not [path for path in (folder / "out").rglob("*") if path.is_file()]


@pytest.mark.nightly
def test_a_process_that_is_killed_once_costs_nothing(folder):
    process = started(folder, folder / "out")
    workers = [
        p for p in psutil.Process(process.pid).children() if "spawn_main" in str(p.cmdline())
    ]
    workers[0].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert Corpus.open(folder / "out").domain_names == ("a", "b", "c")


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent_and_an_interrupt_leaves_no_file(folder, number):
    process = started(folder, folder / "out")
    children = psutil.Process(process.pid).children()
    process.send_signal(number)
    process.communicate(timeout=120)
    assert psutil.wait_procs(children, timeout=30)[1] == []
    left = [path for path in (folder / "out").rglob("*") if path.is_file()]
    assert number == signal.SIGKILL or left == []
