"""While a model with experts still trains, a real server has numbers and figures of each window."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from places import SUPPORT

from mixopt.testing import tiny_corpus

pytest.importorskip("mlflow")
# A server and two processes are started, which takes more than 20 s.
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

STEPS, WAITS = 16, 9  # with a window after every second


class Job:
    """A pretraining in a process of its own, that waits in its tenth step."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.out, self.go = folder / "run", folder / "go"
        options = {"steps": WAITS, "file": str(self.go)}
        training = {"steps": STEPS, "batch": 8, "sequence_length": 32, "lr": 3e-3}
        content = {
            "corpus": str(tiny_corpus(folder / "corpus").path),
            "name": folder.name,
            "model": {"name": "experts_job:Waiting", "options": options},
            "training": {**training, "precision": "float32"},
            "metrics": {"every": 2},
            "experts": {"every": 2},
            "tracking": {"uri": uri},
        }
        config = folder / "run.yaml"
        config.write_text(yaml.safe_dump(content))
        command = [sys.executable, "-m", "mixopt", "pretrain", str(config), "--out", str(self.out)]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
            )

    def end(self) -> int:
        """Let it take the steps that are left."""
        self.go.touch()
        return self.process.wait(timeout=240)


@pytest.fixture
def job(tmp_path, mlflow_server):
    mlflow_server.start()
    job = Job(tmp_path, mlflow_server.uri)
    yield job
    job.process.kill()
    job.process.wait()


@pytest.fixture
def client(mlflow_server):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow_server.uri)


def run_of(client, name: str):
    found = client.get_experiment_by_name(name)
    runs = client.search_runs([found.experiment_id]) if found else []
    return runs[0] if runs else None


def wait_for(condition, what: str):
    deadline = time.monotonic() + 240
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
    return found


def pictures(client, run: str) -> set[str]:
    """Return what MLflow's page shows beside the charts, as figure and step."""
    names = [Path(one.path).name.split("+") for one in client.list_artifacts(run, "images")]
    return {f"{name[0]} {name[2]}" for name in names}


def figures(client, run: str) -> set[str]:
    return {Path(one.path).stem for one in client.list_artifacts(run, "figures")}


def seen(client, name: str, step: int):
    """Return a run once it has numbers and figures of a window."""
    run = run_of(client, name)
    if run is None or "moe/specialisation/mean" not in run.data.metrics:
        return None
    steps = [
        one.step for one in client.get_metric_history(run.info.run_id, "moe/specialisation/mean")
    ]
    if step not in steps or not pictures(client, run.info.run_id):
        return None
    return run


def test_a_run_that_trains_has_numbers_and_figures_at_the_server(job, client, tmp_path):
    run = wait_for(lambda: seen(client, tmp_path.name, 8), "a window is at the server")
    assert job.process.poll() is None, "it trains"
    assert run.info.status == "RUNNING"
    identity = run.info.run_id
    history = client.get_metric_history(identity, "moe/effective_experts/mean")
    assert [one.step for one in history] == [2, 4, 6, 8]
    wait_for(lambda: "experts_over_time" in figures(client, identity), "figures are there")
    assert run_of(client, tmp_path.name).data.tags["mlflow.loggedImages"] == "True"
    assert job.process.poll() is None, "it still trains"
    assert job.end() == 0
    assert run_of(client, tmp_path.name).info.status == "FINISHED"
    assert f"experts_load {STEPS}" in pictures(client, identity)
    assert len(client.get_metric_history(identity, "moe/effective_experts/mean")) == STEPS // 2


@pytest.mark.nightly
def test_a_run_that_is_killed_has_what_was_written_until_then(job, client, tmp_path):
    def drawn():
        return list((job.out / "experts/images").glob("*/*.png"))

    wait_for(drawn, "a window is drawn")
    wait_for((job.out / "experts/counts/part-00000008.parquet").exists, "8 steps")
    os.kill(job.process.pid, signal.SIGKILL)
    job.process.wait()
    run = wait_for(
        lambda: (
            (found := run_of(client, tmp_path.name)) and found.info.status == "KILLED" and found
        ),
        "the record is closed",
    )
    identity = run.info.run_id
    steps = [one.step for one in client.get_metric_history(identity, "moe/effective_experts/mean")]
    assert steps == [2, 4, 6, 8]
    assert len(client.list_artifacts(identity, "moe/counts")) == 4
    assert pictures(client, identity)
