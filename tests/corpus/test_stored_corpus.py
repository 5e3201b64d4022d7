"""A prepared corpus in a store: published, taken by another run, verified, and refused."""

import json
import os

import pytest
import yaml
from typer.testing import CliRunner

import mixopt.cli.main  # noqa: F401  adds the commands
from mixopt.cli.options import app
from mixopt.config import load_config
from mixopt.corpus import Corpus, corpus_hash, publish_corpus
from mixopt.errors import ConfigError, CorpusError
from mixopt.pipeline import check, run as run_experiment
from mixopt.system import cache_folder


def text(name: str) -> str:
    rows = [f"{name} document {k}: " + f"{name} " * (20 + k % 7) for k in range(60)]
    return "".join(json.dumps({"text": row}) + "\n" for row in rows)


def config(path, **corpus):
    content = {
        "corpus": corpus,
        "objective": {"mean": {"a": 1}},
        "design": {"max_usage": None},
        "proxy": {"name": "ngram"},
        "tracking": {"enabled": False},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def run(tmp_path):
    """A run that prepared its own text."""
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(text(name))
    a, b = ({"path": str(tmp_path / f"{name}.jsonl")} for name in "ab")
    domains = {"a": a, "n": {"b": b}}
    return run_experiment(
        config(tmp_path / "own.yaml", domains=domains), tmp_path / "own", until="prepare"
    ).path


def other(tmp_path, where, **corpus):
    given = {"domains": {"a": {}, "n": {"b": {}}}, **corpus}
    return config(tmp_path / "other.yaml", prepared=where, **given)


def publish(run, url: str) -> str:
    done = CliRunner().invoke(app, ["export", str(run), "--to", "corpus", "--out", url])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_published_corpus_is_taken_by_another_run_and_is_the_same(s3, run, tmp_path):
    s3.put("other", b"")
    assert "9 files written" in publish(run, "s3://texts/corpora/one")
    assert "already there" in publish(run, "s3://texts/corpora/one")
    asked = other(tmp_path, "s3://texts/corpora/one")
    assert check(load_config(asked)).problems == []
    taken = run_experiment(asked, tmp_path / "taken", until="prepare")
    assert corpus_hash(taken.path / "corpus") == corpus_hash(run / "corpus")
    assert Corpus.open(taken.path / "corpus").inventory == Corpus.open(run / "corpus").inventory
    assert run_experiment(asked, tmp_path / "taken", until="prepare").is_done("prepare")


def test_a_folder_is_taken_too_and_its_files_are_linked(run, tmp_path):
    taken = run_experiment(
        other(tmp_path, str(run / "corpus")), tmp_path / "taken", until="prepare"
    ).path
    files = [path / "corpus/a/train/00000.bin" for path in (run, taken)]
    assert files[0].stat().st_ino == files[1].stat().st_ino
    assert corpus_hash(taken / "corpus") == corpus_hash(run / "corpus")


def test_a_corpus_is_opened_by_its_url_and_fetched_once(s3, run):
    s3.put("other", b"")
    publish(run, "s3://texts/one")
    first = Corpus.open("s3://texts/one")
    assert first.path.is_relative_to(cache_folder())
    shard = "GET /texts/one/a/train/00000.bin"
    before = s3.log.read_text().count(shard)
    assert Corpus.open("s3://texts/one").path == first.path
    assert s3.log.read_text().count(shard) == before


def test_what_is_wrong_in_the_store_is_one_line_and_not_kept(s3, run):
    s3.put("other", b"")
    publish(run, "s3://texts/one")
    content = s3.get("one/a/train/00000.bin")
    s3.put("one/a/train/00000.bin", content[:-2] + b"!!")
    with pytest.raises(CorpusError, match=r"^s3://texts/one/a/train.*SHA-256"):
        Corpus.open("s3://texts/one")
    s3.delete("one/a/train/00000.bin")
    with pytest.raises(CorpusError, match=r"^s3://texts/one/a/train.*not found"):
        Corpus.open("s3://texts/one")
    assert not list(cache_folder().rglob("*.bin"))
    s3.put("one/a/train/00000.bin", content)
    assert Corpus.open("s3://texts/one").domain_names == ("a", "n/b")


def test_a_publication_that_was_cut_off_is_no_corpus_and_another_is_not_written_over(s3, run):
    s3.put("other", b"")
    publish(run, "s3://texts/one")
    s3.delete("one/index.json")
    with pytest.raises(CorpusError, match=r"s3://texts/one/index.json: no such object"):
        Corpus.open("s3://texts/one")
    assert "files written" in publish(run, "s3://texts/one")
    assert Corpus.open("s3://texts/one").domain_names == ("a", "n/b")
    s3.put("one/index.json", b"{}")
    with pytest.raises(CorpusError, match="already holds another corpus"):
        publish_corpus(run / "corpus", "s3://texts/one")


def test_a_link_that_leads_out_is_not_published(s3, run, tmp_path):
    s3.put("other", b"")
    os.symlink(tmp_path / "own.yaml", run / "corpus" / "a" / "own.yaml")
    with pytest.raises(CorpusError, match="is a link to"):
        publish_corpus(run / "corpus", "s3://texts/one")
    assert s3.keys() == ["other"]


def test_a_corpus_of_another_kind_is_refused(run, tmp_path):
    asked = other(tmp_path, str(run / "corpus"), domains={"a": {}, "c": {}})
    with pytest.raises(ConfigError, match="corpus.domains: a, c, and .* was prepared with a, n/b"):
        run_experiment(asked, tmp_path / "taken", until="prepare")
    asked = other(tmp_path, str(run / "corpus"), tokenizer="bpe:512")
    with pytest.raises(ConfigError, match="corpus.tokenizer: bpe:512, and .* prepared with bytes"):
        run_experiment(asked, tmp_path / "taken", until="prepare")
