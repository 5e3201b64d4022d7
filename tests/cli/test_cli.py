"""The command line around the sampler: what a job would draw, and tokens of other tools."""

import json
import subprocess
import sys

import numpy as np

from mixopt import Mixture, MixtureSampler
from mixopt.corpus import TokenShards


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mixopt", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_simulate_says_what_the_sampler_will_draw(tmp_path):
    proposal = tmp_path / "proposal.yaml"
    Mixture({"web": 0.9, "code": 0.1}).to_file(proposal)
    (tmp_path / "sizes.yaml").write_text("web: 9600\ncode: 640\n")
    asked = ["--batches", 100, "--batch-size", 8, "--length", 16]
    asked += ["--inventory", tmp_path / "sizes.yaml"]
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
