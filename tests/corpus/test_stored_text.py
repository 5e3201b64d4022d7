"""Text in stores: found, prepared, counted and streamed as local files are, named by its URL."""

import json

import pytest
import yaml

from mixopt.config import CorpusConfig, load_config
from mixopt.corpus import Corpus, count_domains, prepare_corpus
from mixopt.errors import CorpusError, RunError
from mixopt.pipeline import run as run_experiment
from mixopt.system import cache_folder

ITEMS = [{"id": str(k), "context": f"{k} and", "continuation": f" {k + 1}"} for k in range(8)]


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def texts(name, count=60) -> list[str]:
    return [f"{name} document {k}: " + f"{name} " * (20 + k % 7) for k in range(count)]


def parquet(path, rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": rows}), path)
    return path.read_bytes()


@pytest.fixture
def files(tmp_path) -> dict[str, bytes]:
    """The same text for a folder and for a bucket."""
    return {
        "web/train-0.jsonl": lines({"text": t} for t in texts("web")[:30]),
        "web/train-1.jsonl": lines({"text": t} for t in texts("web")[30:]),
        "web/test.jsonl": lines([{"text": "not trained on"}]),
        "code/a.parquet": parquet(tmp_path / "a.parquet", texts("code")),
        "held/out.txt": b"held-out text " * 30,
        "prose/a.jsonl": lines({"text": t} for t in texts("prose")),
        "target.jsonl": lines({"text": t} for t in texts("target")),
        "tasks/sums.jsonl": lines(ITEMS),
        "sizes.yaml": b"web: 1e6\ncode: 2e6\nprose: 3e6\n",
    }


def experiment(base: str) -> dict:
    domains = {
        "web": {"path": f"{base}/web"},
        "code": {"path": f"{base}/code/*.parquet"},
        "prose": {"data_files": "prose/*.jsonl", "validation": ["held/out.txt"]},
    }
    return {
        "corpus": {"root": base, "domains": domains, "inventory": f"{base}/sizes.yaml"},
        "evaluation": {"target": {"path": f"{base}/target.jsonl"}},
        "tasks": {"sets": {"sums": f"{base}/tasks/sums.jsonl"}},
        "objective": {"mean": {"task/sums/bits_per_byte": 1}},
        "design": {"max_usage": None},
        "proxy": {"name": "ngram"},
        "tracking": {"enabled": False},
    }


def written(path, content: dict):
    path.write_text(yaml.safe_dump(content))
    return path


def shards(corpus) -> dict[str, list[str]]:
    named = {f"{d.name}/held": d.validation for d in corpus.evaluation}
    named |= {f"{d.name}/train": d.train for d in corpus.domains}
    return {name: [shard.sha256 for shard in split.shards] for name, split in named.items()}


def test_an_experiment_on_s3_prepares_the_same_corpus_as_on_a_disk(s3, files, tmp_path):
    for name, content in files.items():
        s3.put(name, content)
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(content)
    there = written(tmp_path / "there.yaml", experiment("s3://texts"))
    here = written(tmp_path / "here.yaml", experiment(str(tmp_path / "local")))
    remote, local = (
        run_experiment(there, tmp_path / "remote", until="prepare"),
        run_experiment(here, tmp_path / "run", until="prepare"),
    )
    assert shards(remote.corpus) == shards(local.corpus)
    assert remote.corpus.tasks[0].rows == 8
    counted = {one.name: one for one in count_domains(load_config(there).corpus)}
    assert (counted["web"].files, counted["web"].bytes) == (2, sum(map(len, texts("web"))))
    assert remote.inventory == {"web": 10**6, "code": 2 * 10**6, "prose": 3 * 10**6}


def test_what_is_wrong_with_an_object_names_its_url(s3, tmp_path):
    url = s3.put("bad.jsonl", b'{"text": "good"}\n{"text": 7}\n')
    config = CorpusConfig.model_validate({"domains": {"web": {"path": url}}})
    with pytest.raises(CorpusError) as caught:
        prepare_corpus(config, {}, tmp_path / "corpus", fingerprint="f")
    assert str(caught.value).startswith(f"domain 'web': {url}:2: column 'text'")
    assert str(cache_folder()) not in str(caught.value)


def test_a_foreign_run_asks_no_store_without_trust(s3, files, tmp_path):
    for name, content in files.items():
        s3.put(name, content)
    run = tmp_path / "run"
    run_experiment(written(tmp_path / "x.yaml", experiment("s3://texts")), run, until="prepare")
    made = shards(Corpus.open(run / "corpus"))
    (run / "corpus" / "index.json").unlink()
    asked = s3.log.read_text().count("/texts")
    with pytest.raises(RunError, match="made this directory, add --trust"):
        run_experiment(run / "config.yaml", run, until="prepare")
    assert s3.log.read_text().count("/texts") == asked
    run_experiment(run / "config.yaml", run, trust=True, until="prepare")
    assert shards(Corpus.open(run / "corpus")) == made
