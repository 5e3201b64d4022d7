"""What MLflow has of experts: numbers of each window, counts and figures; and beside each trial."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from made_experts import counted

from mixopt import pretrain
from mixopt.mixture import Mixture
from mixopt.pretraining.loop import Loop
from mixopt.routing import ExpertCounts, trial_scalars
from mixopt.sweeps import TrialFolder
from mixopt.testing import tiny_corpus
from mixopt.tracking.record import JOURNAL, WantedRun, append_line
from mixopt.tracking.sender import Sender
from mixopt.trials import Losses, Trial, TrialResult

pytest.importorskip("mlflow")

# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

STEPS = 8


@pytest.fixture
def uri(tmp_path, empty_database) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs_at(uri: str):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("toy")
    return client, {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}


class KilledError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.mark.nightly
def test_a_pretraining_that_was_killed_has_numbers_counts_and_figures(uri, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    training = {"steps": STEPS, "batch": 8, "sequence_length": 32, "lr": 3e-3}
    content = {
        "corpus": str(tiny_corpus(tmp_path / "corpus").path),
        "name": "toy",
        "model": {"name": "experts_job:TinyExperts"},
        "training": {**training, "precision": "float32"},
        "metrics": {"every": 4},
        "experts": {"every": 4},
        "checkpoint": {"every": 3},
        "tracking": {"uri": uri},
    }
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(content))
    # What is wanted is sent from this process, which has MLflow already.
    monkeypatch.setattr(
        "mixopt.tracking.record.SenderProcess", Mock(**{"return_value.end.return_value": None})
    )
    save = Loop._save

    def saving(loop):
        if loop.step == 6:
            raise KilledError
        save(loop)

    with monkeypatch.context() as patch:  # killed after step 6, and sent; it resumes at step 3
        patch.setattr("mixopt.pretraining.loop.Loop._save", saving)
        with pytest.raises(KilledError):
            pretrain(config, tmp_path / "run")
    assert Sender(tmp_path / "run", uri).attempt(last=True) is None
    pretrain(config, tmp_path / "run")
    assert Sender(tmp_path / "run", uri).attempt(last=True) is None
    client, runs = runs_at(uri)
    run = runs["run/pretrain"]
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    for name in ("moe/max_vio/mean", "loss"):
        values = [line for line in map(json.loads, lines) if name in line]
        history = client.get_metric_history(run.info.run_id, name)
        assert [one.step for one in history] == [4, 8]
        assert [one.value for one in history] == [line[name] for line in values]
    assert "moe/specialisation/layer_01" in run.data.metrics
    assert len([name for name in run.data.metrics if name.startswith("moe/")]) <= 400

    monkeypatch.chdir(tmp_path)  # artifacts are beside the database

    def kept(folder):
        return {Path(one.path).name for one in client.list_artifacts(run.info.run_id, folder)}

    assert kept("moe/counts") == {"part-00000004.parquet", "part-00000008.parquet"}
    assert {"experts_load.svg", "experts_domains.svg", "experts_over_time.svg"} <= kept("figures")


def test_a_trials_child_run_has_them(uri, tmp_path):
    path, even = tmp_path / "run", np.full((2, 4), 1000)
    train = counted([even, np.tile([4000, 0, 0, 0], (2, 1))], names=("web", "code"))
    counts = ExpertCounts(train, train)
    trial = Trial("t0", Mixture({"web": 0.5, "code": 0.5}), seed=7)
    losses = Losses(1000, {"web": 2.0}, {"web": 1.0})
    result = TrialResult("t0", "finished", 1000, 42, 2.0, losses, experts=counts)
    TrialFolder(path / "trials").write([trial], [result])
    append_line(path / JOURNAL, asdict(WantedRun("sweep", None, "toy", "sweep", 0, "trials")))
    Sender(path, uri).attempt(last=True)
    _, runs = runs_at(uri)
    metrics = runs["t0"].data.metrics
    found = {name: value for name, value in metrics.items() if name.startswith("moe/")}
    assert found == trial_scalars(counts)
