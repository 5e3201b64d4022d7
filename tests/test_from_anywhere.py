"""One YAML: text in a store, tokens of Megatron's, tasks as the objective; to a recommendation."""

import json
import subprocess
import sys

import polars as pl
import pytest
import yaml
from token_writers import write_megatron

from mixopt.corpus import Corpus

END = 256  # of the tokenizer `bytes`
YAML = """\
name: anywhere
corpus:
  tokenizer: bytes
  domains:
    prose: {path: "s3://texts/prose/*.jsonl"}
    code: {path: code_text_document, format: megatron}
tasks:
  root: s3://texts/tasks
  sets:
    functions: {path: functions.jsonl, family: coding}
    classes: {path: classes.jsonl, family: coding}
    sentences: {path: sentences.jsonl, family: english}
design: {trials: 8, replicates: 3, max_usage: null}
proxy: {name: ngram, tokens: 100000, eval_tokens: 4096}
sweep: {workers: 2}
fit: {folds: 3}
objective: {target: family/coding}
propose: {samples: 2000, bootstrap: 3}
validate: {max_seeds: 3, rounds: 1}
tracking: {enabled: false}
"""


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def continued(texts, size=160):
    """Items of which each goes on with a text where it was cut."""
    return jsonl(
        {"id": k, "context": text[:size].rstrip() + "\n", "continuation": text[size : 2 * size]}
        for k, text in enumerate(texts)
    )


@pytest.mark.nightly
def test_text_in_a_store_and_tokens_of_megatron_come_to_a_recommendation(
    s3, text_files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sources, prose = (pl.read_ndjson(text_files[kind])["text"] for kind in ("code", "prose"))
    half = len(prose) // 2
    s3.put("prose/0.jsonl", jsonl({"text": text} for text in prose[:half]))
    s3.put("prose/1.jsonl", jsonl({"text": text} for text in prose[half : half + 40]))
    write_megatron(tmp_path / "code_text_document", [[*s.encode(), END] for s in sources[40:]])
    s3.put("tasks/functions.jsonl", continued(sources[:20]))
    s3.put("tasks/classes.jsonl", continued(sources[20:40]))
    questions = [text for text in prose[half + 40 :] if len(text) > 200]
    s3.put("tasks/sentences.jsonl", continued(questions[:20], 100))
    (tmp_path / "anywhere.yaml").write_text(YAML)
    command = [sys.executable, "-m", "mixopt", "run", "anywhere.yaml", "--out", "run"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

    corpus = Corpus.open("run/corpus")
    assert [task.name for task in corpus.tasks] == ["functions", "classes", "sentences"]
    code = corpus.domains[1].validation
    assert code.bytes == code.tokens - code.documents > 0
    trials = pl.read_parquet("run/trials.parquet")
    for name in ("sentences", "functions"):
        assert (trials[f"task/{name}/bits_per_byte"] > 0).all()
    decided = yaml.safe_load((tmp_path / "run/recommendation.yaml").read_text())
    assert set(decided["weights"]) == {"prose", "code"}
