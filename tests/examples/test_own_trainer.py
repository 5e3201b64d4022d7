"""Examples of trainers of one's own run, and an interrupted sweep of one goes on."""

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml
from fault_runs import command, variables
from places import PROJECT

from mixopt import Mixture, run
from mixopt.sweeps import read_entry

SMALL = (
    "corpus.max_bytes=200000",
    "design={trials: 3, replicates: 0, anchors: [natural]}",
    "fit={folds: 2, regressors: [linear]}",
    "propose={samples: 500, bootstrap: 0}",
    "validate={seeds: 3, rounds: 1, baselines: [natural]}",
    "sweep.workers=2",
    "tracking.enabled=false",
)


def started(config: Path, out: Path, *overrides: str) -> subprocess.Popen:
    """Start `mixopt run` as the configuration's own comment says."""
    sets = [word for item in (*SMALL, *overrides) for word in ("--set", item)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    words = command("run", config, "--out", out, *sets)
    return subprocess.Popen(words, cwd=PROJECT, env=variables({}), **pipes)


def losses(out: Path) -> pl.DataFrame:
    table = pl.read_parquet(out / "trials.parquet")
    assert set(table["status"]) == {"finished"}
    return table


pytestmark = pytest.mark.nightly


def test_a_plain_pytorch_script_trains_the_trials_and_an_interrupted_run_goes_on(tmp_path):
    config, out = PROJECT / "examples" / "own_trainer" / "own.yaml", tmp_path / "run"
    first = started(config, out, "proxy.tokens=6000")
    folder = out / "trials"
    until = time.monotonic() + 300
    while not list(folder.glob("files/*/done.json")) and time.monotonic() < until:
        assert first.poll() is None, first.communicate()[0].decode()
        time.sleep(0.05)
    before = {path.parent.name: path.read_bytes() for path in folder.glob("files/*/done.json")}
    running = [child.pid for child in psutil.Process(first.pid).children(recursive=True)]
    first.kill()
    first.communicate()
    assert before
    until = time.monotonic() + 30
    while left := [pid for pid in running if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, left
        time.sleep(0.05)

    resumed = started(config, out, "proxy.tokens=6000")
    output, _ = resumed.communicate(timeout=500)
    assert resumed.returncode == 0, output.decode()
    table = losses(out)
    assert table["parameters"].min() > 50_000
    assert len(set(table["loss/readme"])) == len(table)
    for trial, done in before.items():
        assert (folder / "files" / trial / "done.json").read_bytes() == done
        assert not (folder / "files" / trial / "attempt-2").exists()
    text = yaml.safe_load((out / "recommendation.yaml").read_text())
    assert set(text["weights"]) == {"docstrings", "python", "stubs"}


def test_a_trainer_with_its_own_data_needs_no_text_here(tmp_path):
    folder = PROJECT / "examples" / "own_trainer"
    subprocess.run([sys.executable, folder / "bins" / "prepare.py", tmp_path / "data"], check=True)
    text = (folder / "bins.yaml").read_text().replace("=runs/data", f"={tmp_path / 'data'}")
    config, out = tmp_path / "bins.yaml", tmp_path / "run"
    config.write_text(text.replace("folder: ../..", f"folder: {PROJECT}"))
    small = (*(item for item in SMALL if "max_bytes" not in item), "proxy.tokens=5120")
    swept = run(config, out, overrides=small, until="sweep")
    assert swept.natural == Mixture({"code": 0.5, "prose": 0.5})
    table = losses(out)
    assert table["loss/prose"].max() < 6
    assert table["bpb/prose"].null_count() == len(table)
    results = [read_entry(path)[1] for path in sorted((out / "trials").glob("t000?.json"))]
    assert [len(result.curve) for result in results] == [1] * 3


def test_a_model_is_fine_tuned_on_three_sources_and_its_right_answers_keep_a_floor(tmp_path):
    pytest.importorskip("trl", reason="trl is absent: make trainers")
    config = PROJECT / "examples" / "finetuning" / "finetuning.yaml"
    small = [item for item in SMALL if "max_bytes" not in item]
    small += ["propose.target_tokens=8000", "constraints.floors={echo_right: 0.01}"]
    small += ["objective.noise=allow"]
    found = run(config, tmp_path / "run", overrides=small)
    right = losses(tmp_path / "run")["loss/echo_right"]
    assert right.is_between(0, 1).all()
    assert right.max() > 0.2
    assert set(found.objective.higher) == {"echo_right", "next_right"}
    assert found.fit.objective.items == {"echo_right": 40, "next_right": 40}
    assert set(found.recommendation.mixture) == {"echo", "next", "chat"}
    assert found.constraints.guardrails.floors == {"echo_right": 0.01}
