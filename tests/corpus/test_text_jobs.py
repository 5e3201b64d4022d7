"""A preparation in several processes gives the same bytes, and ends in one line when one dies."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from made_corpus import content, prepared, write_lines

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus import Corpus, domain_text

PARALLEL = "import mixopt.corpus.domain_text as text\ntext.PARALLEL_BYTES = 0\n"
RUN = """
import sys
from mixopt.config import CorpusConfig
from mixopt.corpus import prepare_corpus
domains = {name: {"path": f"{sys.argv[1]}/{name}.jsonl"} for name in "abc"}
config = CorpusConfig.model_validate({"domains": domains})
prepare_corpus(config, {}, sys.argv[2], fingerprint="f", workers=2)
"""


def documents(name: str, count: int = 300) -> list[str]:
    return [f"{name} document {k}: " + f"{name}{k % 11} " * (40 + k % 7) for k in range(count)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three domains, a part of whose documents are each other's, however small worth processes."""
    monkeypatch.setattr(domain_text, "PARALLEL_BYTES", 0)
    for name in "abc":
        rows = [*documents(name), *documents("same", 40), "", documents(name)[0]]
        write_lines(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def made(folder, workers: int, names="ab", **options) -> tuple[Corpus, list[str]]:
    *domains, target = ((name, {"path": str(folder / f"{name}.jsonl")}) for name in names + "c")
    # One domain alone is read in this process, where the size of a piece may be changed.
    targets, said = {"target": target[1]} if len(domains) > 1 else {}, []
    options |= {"workers": workers, "progress": said.append}
    return prepared(folder / f"corpus-{workers}", dict(domains), targets, **options), said


@pytest.mark.nightly
def test_any_number_of_processes_gives_the_same_bytes_and_says_the_same(folder):
    (one, said), (three, same) = (made(folder, k, tokenizer="bpe:300") for k in (1, 3))
    assert content(one.path) == content(three.path)
    assert said == same
    assert one.provenance["sources"]["a"]["read"]["equal_to_evaluation"] > 0
    assert Corpus.open(three.path).domain_names == ("a", "b")


def test_pieces_of_one_domain_are_shards_in_order(folder, monkeypatch):
    whole = made(folder, 1, "a")[0].domains[0].train
    text = whole.read(0, whole.tokens)
    monkeypatch.setattr(domain_text, "PIECE_BYTES", 20_000)
    (one, _), (two, _) = (made(folder, k, "a") for k in (1, 2))
    assert content(one.path) == content(two.path)
    train = one.domains[0].train
    assert len(train.shards) > 2
    assert (train.documents, train.bytes) == (whole.documents, whole.bytes)
    assert (train.read(0, train.tokens) == text).all()


def test_the_bytes_that_a_domain_will_read_are_told_by_its_files_and_limits(folder):
    def expected(*, most=None, **source):
        config = CorpusConfig(domains={"d": SourceConfig(**source)}, max_bytes=most)
        text = domain_text.DomainText("d", config.domains["d"], config, folder, 0, is_target=False)
        return text.expected_bytes()

    path = folder / "a.jsonl"
    assert expected(path=str(path)) == path.stat().st_size
    assert expected(path=str(path), max_bytes=100) == expected(path=str(path), most=100) == 100
    assert expected(environment="json") == 4_000_000
    assert expected(path="owner/name") == math.inf


def started(folder, out) -> subprocess.Popen:
    """Begin a preparation that takes a while, and wait until its children spool."""
    for name in "abc":
        rows = (json.dumps({"text": f"{k} {row}"}) for k in range(60) for row in documents(name))
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    process = subprocess.Popen(
        [sys.executable, "-c", PARALLEL + RUN, str(folder), str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not list(out.glob(".text/*/train")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    return process


DEADLY = """
import os, signal
import mixopt.corpus.sources as sources
read = sources.TextFile.documents
def documents(self, reading):
    if self.place.name == "b.jsonl":
        os.kill(os.getpid(), signal.SIGSEGV)
    return read(self, reading)
sources.TextFile.documents = documents
"""


@pytest.mark.nightly
def test_a_process_that_dies_of_a_file_names_it_in_one_line(folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    process = subprocess.run(
        [sys.executable, "-c", PARALLEL + RUN,
         str(folder), str(folder / "out")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
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
