"""The command line around the sampler: what a job would draw, and tokens of other tools."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mixopt import Mixture, MixtureSampler
from mixopt.corpus import TokenShards, TokenWriter


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mixopt", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def proposal(tmp_path):
    """A mixture beside a corpus of two domains, 600 and 40 rows of 16 tokens."""
    for name, rows in {"web": 600, "code": 40}.items():
        path = tmp_path / "corpus" / name / "train"
        with TokenWriter(path, dtype=np.dtype("uint16"), tokenizer="bytes") as writer:
            writer.write(np.arange(rows * 16) % 250, documents=1, bytes=rows * 16)
        with TokenWriter(
            path.parent / "validation", dtype=np.dtype("uint16"), tokenizer="bytes"
        ) as w:
            w.write(np.arange(64), documents=1, bytes=64)
    index = {"format": "mixopt-corpus/1", "tokenizer": "bytes", "vocab_size": 257}
    index |= {"domains": ["web", "code"], "targets": [], "fingerprint": "x", "provenance": {}}
    (tmp_path / "corpus" / "index.json").write_text(json.dumps(index))
    path = tmp_path / "proposal.yaml"
    Mixture({"web": 0.9, "code": 0.1}).to_file(path)
    return path


def test_simulate_says_what_the_sampler_will_draw(proposal):
    asked = ["--batches", 100, "--batch-size", 8, "--length", 16]
    answer = json.loads(command("simulate", proposal, *asked, "--json").stdout)
    sampler = MixtureSampler(
        {"web": 600, "code": 40}, Mixture.from_file(proposal), batch_size=8, seed=0
    )
    drawn = {one["domain"]: one["tokens"] // 16 for one in answer["domains"]}
    assert drawn == sampler.counts(100)
    table = command("simulate", proposal, *asked).stdout
    assert "web" in table


def test_simulate_without_a_corpus_is_one_line(tmp_path):
    Mixture({"web": 1.0}).to_file(tmp_path / "mixture.yaml")
    ended = command("simulate", tmp_path / "mixture.yaml", "--batches", 3)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_tokens_of_another_tool_become_shards(tmp_path):
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "train.bin")
    out = tmp_path / "corpus" / "web" / "train"
    given = [tmp_path / "train.bin", out, "--tokenizer", "gpt2", "--dtype", "uint16"]
    ended = command("tokens", "import", *given)
    assert ended.returncode == 0, ended.stderr
    assert TokenShards.open(out).read(0, 100).tolist() == list(range(100))
    again = command("tokens", "import", *given)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "already exists" in again.stderr


def test_a_step_that_is_not_there_is_answered_with_the_nearest(config_path):
    ended = command("run", config_path, "--from", "swep")
    assert ended.returncode == 2
    assert "no such step: 'swep'; did you mean 'sweep'?" in ended.stderr
