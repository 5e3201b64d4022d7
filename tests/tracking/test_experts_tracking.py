"""What MLflow has of the experts of a pretraining: numbers of each window, counts and figures."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml

from mixopt import pretrain
from mixopt.pretraining.loop import Loop
from mixopt.testing import tiny_corpus
from mixopt.tracking.sender import Sender

pytest.importorskip("mlflow")

# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

STEPS = 8


class KilledError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.mark.nightly
def test_a_pretraining_that_was_killed_has_numbers_counts_and_figures(
    empty_database, tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
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
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("toy").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.run_name == "run/pretrain"
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    for name in ("moe/max_vio/mean", "loss"):
        values = [line for line in map(json.loads, lines) if name in line]
        history = client.get_metric_history(run.info.run_id, name)
        assert [item.step for item in history] == [4, 8]
        assert [item.value for item in history] == [line[name] for line in values]
    assert "moe/specialisation/layer_01" in run.data.metrics
    assert len([name for name in run.data.metrics if name.startswith("moe/")]) <= 400

    monkeypatch.chdir(tmp_path)  # artifacts are beside the database

    def kept(folder):
        return {Path(item.path).name for item in client.list_artifacts(run.info.run_id, folder)}

    assert {"experts_load.svg", "experts_domains.svg", "experts_over_time.svg"} <= kept("figures")
