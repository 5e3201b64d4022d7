"""Every example is checked as it stands, and `make nightly` runs those that need no cluster."""

import re

import pytest
from command_line import mixopt
from places import PROJECT

from mixopt import check, pretrain
from mixopt.config import load_config

COMMANDS = re.findall(r"`(mixopt [^`]+)`", (PROJECT / "examples" / "README.md").read_text())
EXPERIMENTS = [words.split()[2] for words in COMMANDS if words.startswith("mixopt run")]
SMALL = (
    *("corpus.max_bytes=100000", "validate.seeds=3", "validate.rounds=1", "validate.max_seeds=3"),
    *("validate.baselines=[natural]", "tracking.enabled=false"),
    *("fit={folds: 2, regressors: [linear]}", "propose={samples: 500, bootstrap: 0}"),
    "design={trials: 4, replicates: 1, anchors: [natural]}",
)


@pytest.mark.nightly
@pytest.mark.parametrize("example", EXPERIMENTS)
def test_an_example_is_a_right_experiment(example, monkeypatch, tmp_path):
    monkeypatch.chdir(PROJECT)
    sets = []
    if example == "examples/midtraining.yaml":  # begins with what its first command trains
        few = ("training.steps=2", "held_out.tokens=512")
        pretrain("examples/midtraining_base.yaml", tmp_path, few)
        sets = [f"proxy.from={tmp_path}"]
    assert check(load_config(example, sets)).problems == []


def test_slurm_says_what_it_would_submit(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    args = ("run", "examples/slurm.yaml", "--dry-run", "--out", tmp_path / "run")
    done = mixopt(*args, "--set", SMALL[0])
    assert done.code == 0, done.error
    assert "#SBATCH --mem=4G" in done.out
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("example", ["examples/tasks.yaml", "examples/slurm.yaml"])
def test_an_example_runs_to_its_recommendation(example, tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    sets = [part for item in SMALL for part in ("--set", item)]
    small = ["--set", "sweep={workers: 2}", "--set", "proxy.tokens=20000", *sets]
    done = mixopt("run", example, "--out", tmp_path / "run", *small)
    assert done.code == 0, done.error
    assert (tmp_path / "run" / "recommendation.yaml").exists()
