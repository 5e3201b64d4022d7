"""Every example is checked as it stands, and `make nightly` runs those that need no cluster."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixopt import check, pretrain
from mixopt.config import load_config

HOUSE = Path(__file__).parents[2]
PAGE = (HOUSE / "examples" / "README.md").read_text()
COMMANDS = re.findall(r"`(mixopt [^`]+)`", PAGE)
EXPERIMENTS = [words.split()[2] for words in COMMANDS if words.startswith("mixopt run")]
SMALL = (
    *("corpus.max_bytes=100000", "validate.seeds=3", "validate.rounds=1", "validate.max_seeds=3"),
    *("validate.baselines=[natural]", "tracking.enabled=false"),
    *("fit={folds: 2, regressors: [linear]}", "propose={samples: 500, bootstrap: 0}"),
    "design={trials: 4, replicates: 1, anchors: [natural]}",
)
HERE = ["examples/tasks.yaml", "examples/slurm.yaml"]


@pytest.mark.nightly
@pytest.mark.parametrize("example", EXPERIMENTS)
def test_an_example_is_a_right_experiment(example, monkeypatch, tmp_path):
    monkeypatch.chdir(HOUSE)
    sets = []
    if example == "examples/midtraining.yaml":  # begins with what its first command trains
        few = ("training.steps=2", "held_out.tokens=512")
        pretrain("examples/midtraining_base.yaml", tmp_path, few)
        sets = [f"proxy.from={tmp_path}"]
    assert not check(load_config(example, sets)).problems


def test_slurm_says_what_it_would_submit(tmp_path, monkeypatch):
    monkeypatch.chdir(HOUSE)
    words = [sys.executable, "-m", "mixopt", "run", "examples/slurm.yaml", "--dry-run"]
    sets = [part for one in SMALL[:1] for part in ("--set", one)]
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "run"), *sets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --mem=4G" in done.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("example", HERE)
def test_an_example_runs_to_its_recommendation(example, tmp_path, monkeypatch):
    monkeypatch.chdir(HOUSE)
    sets = [part for one in SMALL for part in ("--set", one)]
    words = [sys.executable, "-m", "mixopt", "run", example, "--out", str(tmp_path / "run")]
    small = ["--set", "sweep={workers: 2}", "--set", "proxy.tokens=20000", *sets]
    done = subprocess.run([*words, *small], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "recommendation.yaml").exists()
