"""The record in MLflow: complete, sent once, and never in the way."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from mixopt.config import TrackingConfig
from mixopt.files import read_json
from mixopt.mixture import Mixture
from mixopt.proxy import Losses, Trial, TrialResult
from mixopt.tracking import Tracker
from mixopt.tracking.process import ENVIRONMENT, Recorder
from mixopt.trial_files import TrialFolder

pytest.importorskip("mlflow")

# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

PARAMS = {"seed": "0", "proxy": "decoder"}
TAGS = {"mixopt.fingerprint": "0123"}


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A database that MLflow has made, which takes it seconds."""
    import warnings

    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def run_path(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def quick_http(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


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


def recorder(path: Path, uri: str | None = None) -> tuple[Recorder, list[dict]]:
    answers: list[dict] = []
    return Recorder(path, uri, "toy", answers.append), answers


def start(one: Recorder, tags: dict[str, str] = TAGS) -> None:
    one.handle({"op": "start", "step": "sweep", "folder": "trials", "params": PARAMS, "tags": tags})


def say(one: Recorder, op: str, **more: object) -> None:
    one.handle({"op": op, "step": "sweep", **more})


def record(path: Path, uri: str | None = None, tags: dict[str, str] = TAGS) -> list[dict]:
    one, answers = recorder(path, uri)
    start(one, tags)
    say(one, "end")
    one.close()
    return [answer for answer in answers if "warning" in answer]


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
    assert child.metrics["tokens_per_second"] == 500.0
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
    kept = read_json(run_path / "tracking.json")
    kept["steps"] = {}
    (run_path / "tracking.json").write_text(json.dumps(kept))
    record(run_path)
    assert runs_of(run_path)[2] == 2


def test_an_interrupted_sweep_goes_on_in_the_same_parent(run_path):
    trial_file(run_path, "t0")
    one, _ = recorder(run_path)
    start(one)
    one.close()
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
        one, _ = recorder(run_path)
        start(one)
        say(one, "files", files=["trials.parquet", "absent.svg"])
        say(one, "end")
    kept = list((run_path / "mlartifacts").rglob("trials.parquet"))
    assert [file.read_bytes() for file in kept] == [b"two"]
    assert kept[0].parent.name == "tables"


def test_a_deleted_database_is_filled_again(run_path, empty_database):
    trial_file(run_path, "t0")
    record(run_path)
    shutil.copy(empty_database, run_path / "mlflow.db")
    assert record(run_path) == []
    assert runs_of(run_path)[2] == 2


def test_a_broken_database_is_one_warning(run_path):
    (run_path / "mlflow.db").write_bytes(b"not a database" * 100)
    one, answers = recorder(run_path)
    start(one)
    trial_file(run_path, "t0")
    say(one, "trial", trial="t0")
    warnings = [answer["warning"] for answer in answers if "warning" in answer]
    assert len(warnings) == 1
    assert warnings[0].startswith("mlflow.db: ")


def test_a_database_that_breaks_on_the_way_is_not_tried_for_each_trial(run_path):
    one, answers = recorder(run_path)
    start(one)
    (run_path / "mlflow.db").write_bytes(b"not a database" * 100)
    for name in ("t0", "t1"):
        trial_file(run_path, name)
        say(one, "trial", trial=name)
    assert len([answer for answer in answers if "warning" in answer]) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(port: int, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port"]
    command += [str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "served")]
    with (folder / "server.log").open("w") as log:
        # Background jobs of the server start processes of their own.
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=quiet)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return server
        except OSError:
            time.sleep(0.2)
    server.kill()
    pytest.fail((folder / "server.log").read_text())


def test_what_a_dead_server_missed_is_sent_when_it_is_back(
    tmp_path, tmp_path_factory, empty_database, quick_http
):
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(empty_database, folder / "mlflow.db")
    uri = f"http://127.0.0.1:{port}"
    one, answers = recorder(tmp_path, uri)
    start(one)
    (tmp_path / "trials.parquet").write_bytes(b"table")
    for name in ("t0", "t1"):
        trial_file(tmp_path, name)
        say(one, "trial", trial=name)
    assert [a["warning"].startswith(f"{uri}: ") for a in answers if "warning" in a] == [True]
    server = serve(port, folder)
    try:
        say(one, "files", files=["trials.parquet"])
        say(one, "end")
        client, runs, count = runs_at(uri)
        parent = runs["sweep"].info
        assert (count, parent.status) == (3, "FINISHED")
        assert runs["t1"].data.metrics["loss/c_2b__2b_"] == 2.0
        assert [file.path for file in client.list_artifacts(parent.run_id, "tables")] == [
            "tables/trials.parquet"
        ]
    finally:
        server.terminate()
        server.wait()


def test_the_process_records_while_the_caller_goes_on(run_path):
    warnings: list[str] = []
    began = time.monotonic()
    with Tracker(TrackingConfig(), "toy", run_path, warnings.append) as tracker:
        tracker.start("sweep", {"seed": 0}, TAGS)
        trial_file(run_path, "t0")
        tracker.trial(*read_trial(run_path, "t0"))
        tracker.files("sweep", [run_path / "trials" / "t0.json"])
        tracker.end("sweep")
        said = time.monotonic() - began
    assert warnings == []
    assert said < 0.5  # MLflow alone takes seconds to import
    _, runs, count = runs_of(run_path)
    assert (count, runs["sweep"].info.status) == (2, "FINISHED")
    assert runs["sweep"].data.params == {"seed": "0"}


def read_trial(path: Path, name: str):
    from mixopt.trial_files import result_from_json, trial_from_json

    entry = read_json(path / "trials" / f"{name}.json")
    return trial_from_json(entry["trial"]), result_from_json(entry["result"])


def test_a_server_that_is_down_is_one_line_and_no_error(tmp_path):
    warnings: list[str] = []
    uri = f"http://127.0.0.1:{free_port()}"
    with Tracker(TrackingConfig(uri=uri), "toy", tmp_path, warnings.append) as tracker:
        tracker.start("sweep", {}, TAGS)
        trial_file(tmp_path, "t0")
        tracker.trial(*read_trial(tmp_path, "t0"))
        tracker.end("sweep")
    assert len(warnings) == 1
    assert warnings[0].startswith(f"tracking: {uri}: ")
    assert "the run goes on" in warnings[0]


def test_without_mlflow_one_line_says_what_to_install(tmp_path, monkeypatch):
    # As if it was not installed: Python's own way to say so.
    monkeypatch.setitem(sys.modules, "mlflow", None)
    warnings: list[str] = []
    with Tracker(TrackingConfig(), "toy", tmp_path, warnings.append) as tracker:
        tracker.start("sweep", {})
        tracker.end("sweep")
    assert len(warnings) == 1
    assert "pip install 'mixopt[mlflow]'" in warnings[0]
    assert not (tmp_path / "tracking.json").exists()


def test_disabled_tracking_starts_nothing(tmp_path):
    with Tracker(TrackingConfig(enabled=False), "toy", tmp_path) as tracker:
        tracker.start("sweep", {})
        tracker.end("sweep")
    assert list(tmp_path.iterdir()) == []
