"""The record in MLflow: complete, sent once, and never in the way."""

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from memory_store import listed
from places import SUPPORT
from ranks import free_port

from mixopt.config import TrackingConfig
from mixopt.mixture import Mixture
from mixopt.tracking import MetricLines, Tracker
from mixopt.tracking.journal import JOURNAL
from mixopt.tracking.keys import names_of
from mixopt.tracking.lines import LineFile
from mixopt.tracking.process import Sender
from mixopt.tracking.record import RECORD
from mixopt.trials import Losses, Trial, TrialFolder, TrialResult

pytest.importorskip("mlflow")

# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

PARAMS = {"seed": "0", "proxy": "decoder"}
TAGS = {"mixopt.fingerprint": "0123"}


@pytest.fixture
def run_path(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


def trial_file(path: Path, name: str, *, reason: str | None = None, loss: float = 2.0) -> None:
    trial = Trial(name, Mixture({"web": 0.25, "c++": 0.75}), seed=7)
    losses = [
        Losses(at, {"web": loss + 1 / at, "c++": loss}, {"web": 1.0, "c++": 0.5})
        for at in (500, 1000)
    ]
    result = TrialResult(name, "finished", 1000, 42, 2.0, losses[-1], tuple(losses))
    if reason:
        result = TrialResult(name, "diverged", 500, 42, 1.0, reason=reason)
    TrialFolder(path / "trials").write(0, [trial], [result])


def say(path: Path, op: str, **more: object) -> None:
    if op == "files":
        listed(path, *more["files"])
    journal = LineFile(path / JOURNAL)
    journal.append({"op": op, "step": "sweep", "time": time.time(), **more})
    journal.close()


def start(path: Path, tags: dict[str, str] = TAGS) -> None:
    say(path, "open", uri=None, experiment="toy")
    nothing = {"environment": {}, "datasets": []}
    say(path, "start", name="sweep", folder="trials", params=PARAMS, tags=tags, **nothing)


def send(path: Path, uri: str | None = None) -> list[str]:
    """Send once, as at the end; return the warnings."""
    answers: list[dict] = []
    sender = Sender(path, uri, "toy", answers.append)
    sender.recorder.kill()
    sender.attempt()
    return [answer["warning"] for answer in answers if "warning" in answer]


def record(path: Path, tags: dict[str, str] = TAGS) -> list[str]:
    start(path, tags)
    say(path, "end")
    return send(path)


def runs_at(uri: str):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs([experiment.experiment_id])
    return client, {run.info.run_name: run for run in runs}, len(runs)


def runs_of(path: Path):
    return runs_at(f"sqlite:///{path / 'mlflow.db'}")


def test_a_trial_is_a_child_with_its_weights_losses_and_speed(run_path):
    trial_file(run_path, "t0")
    assert record(run_path) == []
    _, runs, _ = runs_of(run_path)
    child = runs["t0"].data
    assert child.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id
    assert child.params["weight/web"] == "0.25"
    assert child.metrics["loss/web"] == pytest.approx(2.001)
    assert child.metrics["bpb/web"] == 1.0
    assert child.metrics["trial/tokens_per_second"] == 500.0
    assert (child.params["seed"], child.params["role"]) == ("7", "sampled")


def test_a_loss_curve_has_tokens_as_steps(run_path):
    trial_file(run_path, "t0")
    record(run_path)
    client, runs, _ = runs_of(run_path)
    history = client.get_metric_history(runs["t0"].info.run_id, "loss/web")
    assert [(point.step, round(point.value, 4)) for point in history] == [
        (500, 2.002),
        (1000, 2.001),
    ]


def test_a_name_that_mlflow_refuses_is_written_by_code(run_path):
    trial_file(run_path, "t0")
    record(run_path)
    assert runs_of(run_path)[1]["t0"].data.params["weight/c_2b__2b_"] == "0.75"


def test_a_trial_that_diverged_is_failed_with_its_reason(run_path):
    trial_file(run_path, "t0", reason="loss is nan at step 3")
    record(run_path)
    run = runs_of(run_path)[1]["t0"]
    assert run.info.status == "FAILED"
    assert run.data.tags["mixopt.reason"] == "loss is nan at step 3"
    assert "loss/web" not in run.data.metrics


def test_a_second_call_sends_nothing_twice(run_path):
    trial_file(run_path, "t0")
    record(run_path)
    first = runs_of(run_path)
    record(run_path)
    client, runs, count = runs_of(run_path)
    assert count == first[2] == 2
    assert len(client.get_metric_history(runs["t0"].info.run_id, "loss/web")) == 2


def test_without_its_record_the_runs_are_found_by_their_key(run_path):
    trial_file(run_path, "t0")
    record(run_path)
    key = (run_path / RECORD).read_text().splitlines()[0]
    (run_path / RECORD).write_text(f"{key}\n")
    record(run_path)
    assert runs_of(run_path)[2] == 2


def test_an_interrupted_sweep_goes_on_in_the_same_parent(run_path):
    trial_file(run_path, "t0")
    start(run_path)
    send(run_path)
    _, runs, _ = runs_of(run_path)
    assert runs["sweep"].info.status == "KILLED"
    trial_file(run_path, "t1")
    record(run_path)
    _, after, count = runs_of(run_path)
    assert count == 3
    assert after["sweep"].info.status == "FINISHED"
    assert after["t1"].data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id


def test_a_trial_that_was_trained_again_is_another_child(run_path):
    trial_file(run_path, "t0", reason="disk full")
    record(run_path)
    trial_file(run_path, "t0")
    record(run_path)
    assert runs_of(run_path)[2] == 3


def test_another_configuration_is_another_parent(run_path):
    trial_file(run_path, "t0")
    record(run_path)
    record(run_path, tags={"mixopt.fingerprint": "4567"})
    assert runs_of(run_path)[2] == 4


def test_files_are_kept_with_the_parent_and_renewed_when_they_change(run_path):
    (run_path / "trials.parquet").write_bytes(b"one")
    for content in (b"one", b"two"):
        (run_path / "trials.parquet").write_bytes(content)
        start(run_path)
        files = ["trials.parquet", "absent.svg"]
        say(run_path, "files", files=files, folder=None, trial=None)
        say(run_path, "end")
        send(run_path)
    kept = list((run_path / "mlartifacts").rglob("trials.parquet"))
    assert [file.read_bytes() for file in kept] == [b"two"]
    assert kept[0].parent.name == "tables"


def test_a_deleted_database_is_filled_again(run_path, empty_database):
    trial_file(run_path, "t0")
    record(run_path)
    shutil.copy(empty_database, run_path / "mlflow.db")
    assert record(run_path) == []
    assert runs_of(run_path)[2] == 2


def test_a_broken_database_is_one_line(run_path):
    (run_path / "mlflow.db").write_bytes(b"not a database" * 100)
    trial_file(run_path, "t0")
    warnings = record(run_path)
    assert len(warnings) == 1
    assert warnings[0].startswith("mlflow.db: ")


def test_the_process_records_while_the_caller_goes_on(run_path):
    warnings: list[str] = []
    with Tracker(TrackingConfig(), "toy", run_path, warnings.append) as tracker:
        tracker.start("sweep", {"seed": 0}, TAGS, folder="trials")
        trial_file(run_path, "t0")
        (run_path / "design.parquet").write_bytes(b"rows")
        listed(run_path, "design.parquet")
        tracker.files("sweep", [run_path / "design.parquet"])
        tracker.end("sweep")
    assert warnings == []
    _, runs, count = runs_of(run_path)
    assert (count, runs["sweep"].info.status) == (2, "FINISHED")
    assert runs["sweep"].data.params == {"seed": "0"}


def test_training_neither_imports_mlflow_nor_reaches_for_the_network(tmp_path):
    command = [sys.executable, str(SUPPORT / "tracking_job.py"), "watched", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(ended.stdout)
    assert seen["imports"] == []
    assert seen["sockets"] == []
    assert seen["waits"] == []
    assert seen["writes"] == [1] * 20


def test_a_server_that_is_down_is_one_line_and_no_error(tmp_path):
    warnings: list[str] = []
    uri = f"http://127.0.0.1:{free_port()}"
    with Tracker(TrackingConfig(uri=uri), "toy", tmp_path, warnings.append) as tracker:
        tracker.start("sweep", {}, TAGS, folder="trials")
        trial_file(tmp_path, "t0")
        tracker.end("sweep")
    assert len(warnings) == 1
    assert warnings[0].startswith(f"tracking: {uri}: ")
    assert "the run continues" in warnings[0]


def test_without_mlflow_one_line_says_what_to_install(tmp_path, monkeypatch):
    # As if it was not installed: Python's own way to say so.
    monkeypatch.setitem(sys.modules, "mlflow", None)
    warnings: list[str] = []
    with Tracker(TrackingConfig(), "toy", tmp_path, warnings.append) as tracker:
        tracker.start("sweep", {})
        tracker.end("sweep")
    assert len(warnings) == 1
    assert "pip install 'mixopt[mlflow]'" in warnings[0]
    assert not (tmp_path / RECORD).exists()


def test_disabled_tracking_starts_nothing(tmp_path):
    with Tracker(TrackingConfig(enabled=False), "toy", tmp_path) as tracker:
        tracker.start("sweep", {})
        tracker.end("sweep")
    assert list(tmp_path.iterdir()) == []


def test_metrics_of_a_step_and_of_a_trial_are_sent_as_they_are_written(run_path):
    trial_file(run_path, "t0")
    start(run_path)
    for name, trial in (("all.jsonl", None), ("t0.jsonl", "t0")):
        say(run_path, "follow", file=name, trial=trial)
        MetricLines(run_path / name).write({"moe/max_vio": {"mean": 0.25}, "x": 1}, step=5)
    send(run_path)
    MetricLines(run_path / "all.jsonl").write({"x": 2.0}, step=6)
    send(run_path)
    client, runs, _ = runs_of(run_path)
    history = client.get_metric_history(runs["sweep"].info.run_id, "x")
    assert [(point.step, point.value) for point in history] == [(5, 1.0), (6, 2.0)]
    assert runs["t0"].data.metrics["moe/max_vio/mean"] == 0.25


def test_files_of_a_trial_are_kept_with_its_child_in_their_folder(run_path, monkeypatch):
    monkeypatch.chdir(run_path)  # artifacts are beside the database
    trial_file(run_path, "t0")
    (run_path / "experts.parquet").write_bytes(b"rows")
    start(run_path)
    say(run_path, "files", files=["experts.parquet"], folder="moe/counts", trial="t0")
    send(run_path)
    client, runs, _ = runs_of(run_path)
    kept = client.list_artifacts(runs["t0"].info.run_id, "moe/counts")
    assert [file.path for file in kept] == ["moe/counts/experts.parquet"]


def test_numbers_that_are_not_finite_keep_their_place(run_path):
    start(run_path)
    say(run_path, "follow", file="all.jsonl", trial=None)
    lines = MetricLines(run_path / "all.jsonl")
    for step, value in enumerate((1.0, math.nan, math.inf)):
        lines.write({"loss": value}, step)
    lines.close()
    send(run_path)
    client, runs, _ = runs_of(run_path)
    run = runs["sweep"]
    values = [p.value for p in client.get_metric_history(run.info.run_id, "loss")]
    assert values[0] == 1.0
    assert [math.isnan(value) for value in values[1:]] == [True, True]
    assert json.loads(run.data.tags["mixopt.not_finite"]) == {"loss": "inf at step 2"}


def test_names_of_metrics_that_mlflow_refuses_are_in_a_tag(run_path):
    start(run_path)
    say(run_path, "follow", file="all.jsonl", trial=None)
    lines = MetricLines(run_path / "all.jsonl")
    lines.write({"loss": {"c++": 1.0, "web": 2.0}}, step=1)
    send(run_path)
    data = runs_of(run_path)[1]["sweep"].data
    assert data.metrics == {"loss/c_2b__2b_": 1.0, "loss/web": 2.0}
    assert names_of(data.tags) == {"loss/c_2b__2b_": "loss/c++"}


def test_a_child_began_when_its_training_did(run_path):
    trial_file(run_path, "t0")
    record(run_path)
    info = runs_of(run_path)[1]["t0"].info
    written = int((run_path / "trials/t0.json").stat().st_mtime * 1000)
    assert (info.end_time, info.start_time) == (written, written - 2000)


def test_a_run_is_there_until_it_is_deleted(run_path):
    from mixopt.tracking.mlflow_store import MlflowStore

    record(run_path)
    client, runs, _ = runs_of(run_path)
    run = runs["sweep"].info.run_id
    store = MlflowStore(f"sqlite:///{run_path / 'mlflow.db'}", "toy", None)
    assert store.has(run)
    client.delete_run(run)
    assert not store.has(run)
    assert not store.has("0" * 32)


def test_more_metrics_and_settings_than_a_call_takes_are_all_there(run_path):
    start(run_path)
    say(run_path, "follow", file="all.jsonl", trial=None)
    MetricLines(run_path / "all.jsonl").write({"x": {f"{n}": n for n in range(1000)}}, step=1)
    params = {f"p{n}": str(n) for n in range(95)}
    nothing = {"environment": {}, "datasets": []}
    fresh = {"mixopt.fingerprint": "45"}
    say(run_path, "start", name="many", folder=None, params=params, tags=fresh, **nothing)
    say(run_path, "follow", file="all.jsonl", trial=None)
    assert send(run_path) == []
    run = runs_of(run_path)[1]["many"]
    assert run.data.params == params
    assert run.data.metrics == {f"x/{n}": n for n in range(1000)}
