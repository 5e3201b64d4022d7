"""Text and prepared corpora in a store, in memory or S3: read, published, taken, refused by URL."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from command_line import mixopt
from made_corpus import write_lines
from refusals import refusal, refuses

from mixopt.config import CorpusConfig, load_config
from mixopt.corpus import Corpus, corpus_hash, count_domains, prepare_corpus, publish_corpus
from mixopt.errors import ConfigError, CorpusError, RunError
from mixopt.pipeline import check, run as run_experiment
from mixopt.system import cache_folder

ITEMS = [{"id": str(k), "context": f"{k} and", "continuation": f" {k + 1}"} for k in range(8)]


@pytest.fixture
def store(store):
    store.put("other", b"")  # a bucket is there once it has an object
    return store


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def texts(name) -> list[str]:
    return [f"{name} document {k}: " + f"{name} " * (20 + k % 7) for k in range(60)]


def written(path, **sections):
    usual = {"objective": {"mean": {"a": 1}}, "design": {"max_usage": None}}
    usual |= {"proxy": {"name": "ngram"}, "tracking": {"enabled": False}}
    path.write_text(yaml.safe_dump(usual | sections))
    return path


def prepared(config, path, **options):
    return run_experiment(config, path, until="prepare", **options)


@pytest.fixture
def files(tmp_path) -> dict[str, bytes]:
    """The same text for a folder and for a bucket."""
    pq.write_table(pa.table({"text": texts("code")}), tmp_path / "a.parquet")
    return {
        "web/train-0.jsonl": lines({"text": t} for t in texts("web")[:30]),
        "web/train-1.jsonl": lines({"text": t} for t in texts("web")[30:]),
        "web/test.jsonl": lines([{"text": "not trained on"}]),
        "code/a.parquet": (tmp_path / "a.parquet").read_bytes(),
        "held/out.txt": b"held-out text " * 30,
        "prose/a.jsonl": lines({"text": t} for t in texts("prose")),
        "sums.jsonl": lines(ITEMS),
        "sizes.yaml": b"web: 1e6\ncode: 2e6\nprose: 3e6\n",
    }


def experiment(path, base: str):
    domains = {"web": {"path": f"{base}/web"}, "code": {"path": f"{base}/code/*.parquet"}}
    domains["prose"] = {"data_files": "prose/*.jsonl", "validation": ["held/out.txt"]}
    return written(
        path,
        corpus={"root": base, "domains": domains, "inventory": f"{base}/sizes.yaml"},
        evaluation={"target": {"path": f"{base}/held/out.txt"}},
        tasks={"sets": {"sums": f"{base}/sums.jsonl"}},
        objective={"mean": {"task/sums/bits_per_byte": 1}},
    )


def shards(corpus) -> dict[str, list[str]]:
    named = {f"{d.name}/held": d.validation for d in corpus.evaluation}
    named |= {f"{d.name}/train": d.train for d in corpus.domains}
    return {name: [shard.sha256 for shard in split.shards] for name, split in named.items()}


def test_a_store_gives_the_same_corpus_as_a_folder_and_an_untrusted_run_reads_no_store(
    store, files, tmp_path
):
    for name, content in files.items():
        store.put(name, content)
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(content)
    there = experiment(tmp_path / "there.yaml", store.url)
    remote = prepared(there, tmp_path / "remote")
    here = experiment(tmp_path / "here.yaml", str(tmp_path / "local"))
    expected = shards(remote.corpus)
    assert expected == shards(prepared(here, tmp_path / "run").corpus)
    assert remote.corpus.tasks[0].rows == 8
    counted = {item.name: item for item in count_domains(load_config(there).corpus)}
    assert (counted["web"].files, counted["web"].bytes) == (2, sum(map(len, texts("web"))))
    assert remote.inventory == {"web": 10**6, "code": 2 * 10**6, "prose": 3 * 10**6}

    run = remote.path
    (run / "corpus" / "index.json").unlink()
    for name in files:
        store.delete(name)
    refuses(RunError, "made this directory, add --trust", prepared, run / "config.yaml", run)
    for name, content in files.items():
        store.put(name, content)
    assert shards(prepared(run / "config.yaml", run, trust=True).corpus) == expected
    url = store.put("bad.jsonl", b'{"text": "good"}\n{"text": 7}\n')
    config = CorpusConfig.model_validate({"domains": {"web": {"path": url}}})
    line = refusal(prepare_corpus, config, {}, tmp_path / "corpus", fingerprint="f")
    assert line.startswith(f"domain 'web': {url}:2: column 'text'")
    assert str(cache_folder()) not in line


@pytest.fixture
def run(tmp_path):
    """A run that prepared its own text."""
    a, b = ({"path": write_lines(tmp_path / f"{name}.jsonl", texts(name))} for name in "ab")
    corpus = {"domains": {"a": a, "n": {"b": b}}}
    return prepared(written(tmp_path / "own.yaml", corpus=corpus), tmp_path / "own").path


def other(tmp_path, where, **corpus):
    given = {"prepared": where, "domains": {"a": {}, "n": {"b": {}}}, **corpus}
    return written(tmp_path / "other.yaml", corpus=given)


def publish(run, url: str) -> str:
    ended = mixopt("export", run, "--to", "corpus", "--out", url)
    assert ended.code == 0, ended.error
    return ended.out


def test_a_published_corpus_is_taken_by_another_run_and_is_the_same(store, run, tmp_path):
    url, link = f"{store.url}/one", run / "corpus" / "a" / "own.yaml"
    link.symlink_to(tmp_path / "own.yaml")
    refuses(CorpusError, "is a link to", publish_corpus, run / "corpus", url)
    assert store.keys() == ["other"]
    link.unlink()
    (run / "corpus" / ".half.tmp").write_text("half-written")
    said = []
    assert publish_corpus(run / "corpus", url, said.append) == len(said) == 9
    assert said[::8] == ["publish: 1 of 9: a/train/00000.bin", "publish: 9 of 9: index.json"]
    assert "already there" in publish(run, url)
    config = other(tmp_path, url)
    assert check(load_config(config)).problems == []
    taken = prepared(config, tmp_path / "taken")
    assert corpus_hash(taken.path / "corpus") == corpus_hash(run / "corpus")
    assert Corpus.open(taken.path / "corpus").inventory == Corpus.open(run / "corpus").inventory
    assert prepared(config, tmp_path / "taken").is_done("prepare")


def test_a_folder_is_taken_too_and_its_files_are_linked(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    config = other(tmp_path, str(run / "corpus"))
    for name in ("linked", "copied"):
        taken = prepared(config, tmp_path / name).path
        files = [path / "corpus/a/train/00000.bin" for path in (run, taken)]
        assert files[0].samefile(files[1]) == (name == "linked")
        assert corpus_hash(taken / "corpus") == corpus_hash(run / "corpus")
        monkeypatch.setattr("os.link", refuse)


def test_a_corpus_is_opened_by_its_url_and_fetched_once_without_what_lies_beside_it(store, run):
    assert "9 files written" in publish(run, f"{store.url}/one")
    store.put("one/beside/it.txt", b"not the corpus's")
    first = Corpus.open(f"{store.url}/one")
    assert first.path.is_relative_to(cache_folder())
    assert not (first.path / "beside").exists()
    assert corpus_hash(first.path) == corpus_hash(run / "corpus")
    store.delete("one/a/train/00000.bin")
    assert Corpus.open(f"{store.url}/one").path == first.path


def test_what_is_wrong_in_the_store_is_one_line_and_not_kept(store, run):
    publish(run, f"{store.url}/one")
    content = store.get("one/a/train/00000.bin")
    store.put("one/a/train/00000.bin", content[:-2] + b"!!")
    refuses(CorpusError, rf"^{store.url}/one/a/train.*SHA-256", Corpus.open, f"{store.url}/one")
    store.delete("one/a/train/00000.bin")
    refuses(CorpusError, rf"^{store.url}/one/a/train.*not found", Corpus.open, f"{store.url}/one")
    assert not list(cache_folder().rglob("*.bin"))
    store.put("one/a/train/00000.bin", content)
    assert Corpus.open(f"{store.url}/one").domain_names == ("a", "n/b")
    store.put("one/index.json", b"{}")
    with pytest.raises(CorpusError, match="already holds another corpus"):
        publish_corpus(run / "corpus", f"{store.url}/one")
    store.delete("one/index.json")  # a publication that was cut off
    with pytest.raises(CorpusError, match=rf"{store.url}/one/index.json: no such object"):
        Corpus.open(f"{store.url}/one")
    assert "files written" in publish(run, f"{store.url}/one")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"domains": {"a": {}, "c": {}}}, "corpus.domains: a, c, but .* prepared with a, n/b, in"),
        ({"tokenizer": "bpe:512"}, "corpus.tokenizer: bpe:512, but .* prepared with bytes; use th"),
    ],
)
def test_a_corpus_of_another_kind_is_refused(run, tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        prepared(other(tmp_path, str(run / "corpus"), **given), tmp_path / "taken")
