"""Pretraining in MLflow: all metrics once, what made the run; nothing where no run began.

Most is sent from this process, which has MLflow already; one run has its own process that sends.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from mixopt import pretrain
from mixopt.errors import MixoptError
from mixopt.system import package_versions
from mixopt.testing import tiny_corpus
from mixopt.tracking.sender import Sender

pytest.importorskip("mlflow")
pytestmark = [
    pytest.mark.nightly,  # whole pretrainings
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

MODEL = {"name": "decoder", "options": {"layers": 1, "width": 32, "heads": 2, "ff": 48}}
TRAINING = {"steps": 8, "batch": 4, "sequence_length": 32, "lr": 3e-3, "precision": "float32"}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    content = {
        "name": "tracked",
        "corpus": str(tiny_corpus(folder / "corpus").path),
        "model": MODEL,
        "training": TRAINING,
        "mixture": {"weights": {"code": 0.7, "manual": 0.3}},
        "held_out": {"every": 4, "tokens": 512},
        "checkpoint": {"every": 3},
        "metrics": {"every": 2},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class KilledError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.fixture(scope="module")
def run(config, empty_database, tmp_path_factory):
    """A run that was killed in step 6, after its checkpoint at 3, and went on; MLflow has it."""
    from mlflow import MlflowClient

    out = tmp_path_factory.mktemp("runs") / "run"
    out.mkdir()
    shutil.copy(empty_database, out / "mlflow.db")
    (out / "config.yaml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixopt.tracking.tracker.Tracker._begin", lambda tracker: None)
        patch.setattr("mixopt.pretraining.loop.Loop._save", killed_at(6))
        with pytest.raises(KilledError):
            pretrain(config, out)
    send(out)
    said: list[str] = []
    pretrain(config, out, say=said.append)
    assert said == []
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tracked")
    (only,) = client.search_runs([experiment.experiment_id])
    return client, only, out


def send(out: Path) -> None:
    """Send what there is, as a process does when training is gone."""
    sender = Sender(out, f"sqlite:///{out / 'mlflow.db'}", "tracked", own=True)
    assert sender.attempt(last=True), sender.trouble


def killed_at(step: int):
    from mixopt.pretraining.loop import Loop

    save = Loop._save

    def saving(loop):
        if loop.step == step:
            raise KilledError
        save(loop)

    return saving


def test_each_metric_has_each_step_once_though_the_run_was_killed_and_went_on(run):
    client, only, out = run
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for key, member in (
        ("loss", None),
        ("train_loss", "code"),
        ("realised", "code"),
        ("held_out_loss", "manual"),
    ):
        name = key if member is None else f"{key}/{member}"
        history = client.get_metric_history(only.info.run_id, name)
        steps = [line["step"] for line in lines if key in line]
        assert [point.step for point in history] == steps, name
    assert only.info.status == "FINISHED"


def test_a_run_says_what_made_it(run, monkeypatch):
    client, only, out = run
    monkeypatch.chdir(out)  # artifacts are beside the database
    assert only.info.run_name == "run/pretrain"
    assert only.data.params["training/batch"] == "4"
    assert only.data.tags["mixopt.version"] == package_versions()["mixopt"]
    assert "mixopt.fingerprint" in only.data.tags
    kept = {file.path for file in client.list_artifacts(only.info.run_id)}
    assert kept == {"config.yaml", "mixture_log.jsonl"}
    assert f"torch {package_versions()['torch']}" in only.data.tags["mixopt.versions"]


def test_a_run_that_never_began_is_not_in_mlflow(config, tmp_path):
    with pytest.raises(MixoptError, match="weights add up to 0.5, not 1"):
        pretrain(config, tmp_path / "run", ["mixture={weights: {code: 0.5}}"])
    assert not list((tmp_path / "run").glob("tracking*"))
