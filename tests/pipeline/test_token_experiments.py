"""Experiments whose domains are tokens: checked, sized, run to a recommendation, and resumed."""

import json

import numpy as np
import pytest
from command_line import mixopt
from token_writers import write_megatron, write_nanogpt

from mixopt import load_run
from mixopt.config import load_config
from mixopt.corpus import Corpus
from mixopt.errors import ConfigError
from mixopt.pipeline import check

EXPERIMENT = """
name: tokens
corpus:
  domains:
    web: {path: [data/web_00, data/web_01*], format: megatron}
    code: {path: data/train.bin, format: raw, dtype: uint16, document_end: 256}
    text: {path: data/text.jsonl}
evaluation:
  news: {path: data/news, format: megatron}
design: {trials: 6, replicates: 0, max_usage: null}
proxy: {name: ngram, tokens: 4000, eval_tokens: 2000, options: {order: 2}}
sweep: {workers: 1}
fit: {regressors: [linear], folds: 2}
objective: {mean: {web: 1, code: 1, news: 1}}
propose: {samples: 300, bootstrap: 2}
validate: {rounds: 1, max_seeds: 3}
tracking: {enabled: false}
"""


def texts(kind, count, seed):
    rng = np.random.default_rng(seed)
    words = [f"{kind}{k}" for k in range(30)]
    return [" ".join(rng.choice(words, 30)) for _ in range(count)]


def tokens(*kind_count_and_seed):
    return [[*text.encode(), 256] for text in texts(*kind_count_and_seed)]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    write_megatron(data / "web_00", tokens("w", 60, 0))
    write_megatron(data / "web_01", tokens("w", 60, 1))
    write_nanogpt(data / "train.bin", tokens("c", 90, 2))
    rows = (json.dumps({"text": text}) + "\n" for text in texts("t", 90, 3))
    (data / "text.jsonl").write_text("".join(rows))
    write_megatron(data / "news", tokens("n", 20, 4))
    path = tmp_path / "tokens.yaml"
    path.write_text(EXPERIMENT)
    return path


def test_a_megatron_prefix_a_raw_file_and_text_run_from_one_yaml(experiment, tmp_path):
    ended = mixopt("run", experiment, "--out", "run")
    assert ended.code == 0, ended.error
    assert "Recommendation" in ended.out
    corpus = Corpus.open("run/corpus")
    assert all(domain.validation.bytes > 0 for domain in corpus.evaluation)
    assert set(corpus.inventory) == {"web", "code", "text"}
    run = load_run(tmp_path / "run")
    assert run.trials.has("bits_per_byte")
    repeated = mixopt("run", experiment, "--out", "run")
    assert (repeated.code, repeated.error) == (0, ""), "nothing is prepared twice"
    assert mixopt("verify", "run").code == 0
    with open("run/corpus/web/train/00000.bin", "r+b") as stream:
        stream.write(b"\x01\x00")
    assert mixopt("verify", "run").code != 0


def test_tokens_of_which_nobody_has_the_tokenizer_give_losses_in_nats_alone(experiment, tmp_path):
    domains = (
        "{web: {path: data/web_00, format: megatron},"
        " code: {path: data/train.bin, format: raw, dtype: uint16, document_end: 256}}"
    )
    options = ["--set", "corpus.tokenizer=./nowhere", "--set", f"corpus.domains={domains}"]
    ended = mixopt("run", experiment, "--out", "run", *options)
    message = "objective.unit: bits_per_byte needs the bytes of each token, and the tokenizer './no"
    assert ended.code == 2
    assert message in ended.error
    assert not (tmp_path / "run" / "corpus" / "index.json").exists()
    options += ["--set", "objective.unit=nats_per_token"]
    assert mixopt("run", experiment, "--out", "run", *options).code == 0
    trials = load_run(tmp_path / "run").trials
    assert (trials.has("nats_per_token"), trials.has("bits_per_byte")) == (True, False)


def test_check_knows_tokens_without_reading_them_and_names_what_is_not_sound(experiment):
    files = ("data/web_00", "data/web_01*", "--out", "out", "--tokenizer", "bytes")
    assert "120 documents" in mixopt("import", *files).out
    said = mixopt("import", "data", "--out", "all", "--tokenizer", "bytes").error
    assert "the tokens are megatron (data/news) and raw (data/train.bin); select one" in said
    assert check(load_config(experiment)).problems == []
    ended = mixopt("check", experiment, "--write", "inventory.yaml", "--json")
    rows = {row["domain"]: row for row in json.loads(ended.out)["counted"]}
    size = sum((experiment.parent / f"data/web_0{k}.bin").stat().st_size for k in range(2))
    assert (rows["web"]["tokens"], rows["web"]["exact"]) == (size // 2, True)
    sized = load_config(experiment, ["corpus.inventory=inventory.yaml"])
    assert check(sized).sizes.inventory["web"] == size // 2
    (experiment.parent / "sizes.yaml").write_text("web: {bytes: 2e6}\ncode: 5e5\ntext: 5e5\n")
    with pytest.raises(ConfigError, match="domain 'web': bytes are a size of text"):
        load_config(experiment, ["corpus.inventory=sizes.yaml"])
    (experiment.parent / "data" / "web_00.bin").unlink()
    with open("data/train.bin", "ab") as stream:
        stream.write(b"x")
    found = [str(problem) for problem in check(load_config(experiment)).problems]
    assert any("domain 'web': data/web_00.bin: cannot be read" in item for item in found)
    assert any("data/train.bin: " in item and "not a whole number" in item for item in found)
