"""What goes wrong with MLflow costs training nothing, and the record no point; a real server.

Starting MLflow takes seconds, so the tests share a server, and most send from this process.
"""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from places import PROJECT, SUPPORT
from tracked_sweep import by_name, record
from typer.testing import CliRunner

from mixopt.cli import run_command_line
from mixopt.cli.main import app
from mixopt.config import load_config
from mixopt.errors import ConfigError, RunError
from mixopt.run_directory import open_run
from mixopt.system import only_one
from mixopt.tracking import RunLog, import_trials, sync
from mixopt.tracking.process import Sender
from mixopt.tracking.read_process import _messages
from mixopt.tracking.reading import LoggedRun
from mixopt.tracking.record import RECORD
from mixopt.tracking.trial_import import trials_of

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

QUICKSTART = PROJECT / "experiments/quickstart.yaml"
JOB = [sys.executable, str(SUPPORT / "tracking_job.py")]


def runs(server) -> dict:
    """Runs at a server by name; from its database, so that it may be down."""
    with closing(sqlite3.connect(server.folder / "mlflow.db")) as database:
        found = database.execute("select name, run_uuid, status from runs").fetchall()
    names = [name for name, _, _ in found]
    assert len(names) == len(set(names)), "a run was made twice"
    return {name: (run, status) for name, run, status in found}


def points(server, name: str) -> list[tuple]:
    """All points of a run, repeated ones too: metric, step, value."""
    with closing(sqlite3.connect(server.folder / "mlflow.db")) as database:
        query = "select key, step, value from metrics where run_uuid = ? order by key, step"
        return database.execute(query, (runs(server)[name][0],)).fetchall()


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def arrived(server, name: str) -> int:
    return len(points(server, name)) if name in runs(server) else 0


@pytest.mark.nightly
def test_a_server_that_is_down_for_most_of_a_run_misses_no_point(tmp_path, mlflow_server):
    warnings: list[str] = []
    path = tmp_path / "on_and_off"
    with RunLog(path, experiment="toy", uri=mlflow_server.uri, warn=warnings.append) as log:
        for step in range(100):
            if step == 20:
                wait_for(lambda: warnings, "a server that is down is said")
                mlflow_server.start()
                wait_for(lambda: arrived(mlflow_server, "on_and_off") == 20, "20 steps arrive")
            if step == 40:
                mlflow_server.stop()
            if step == 80:
                mlflow_server.start()
            log.log({"loss": step / 7}, step)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"tracking: {mlflow_server.uri}: ")
    assert points(mlflow_server, "on_and_off") == [("loss", n, n / 7) for n in range(100)]
    assert runs(mlflow_server)["on_and_off"][1] == "FINISHED"


@pytest.mark.nightly
def test_a_server_that_hangs_is_given_up_before_the_process_that_sends_is_killed(
    tmp_path, mlflow_server
):
    mlflow_server.start()
    path, warnings = tmp_path / "hung", list[str]()
    log = RunLog(path, experiment="toy", uri=mlflow_server.uri, warn=warnings.append)
    log.log({"loss": 0.0}, 0)
    wait_for(lambda: arrived(mlflow_server, "hung") == 1, "the first step arrives")
    mlflow_server.signal(signal.SIGSTOP)
    try:
        for step in range(1, 2000):
            log.log({"loss": float(step)}, step)
        log.close()
    finally:
        mlflow_server.signal(signal.SIGCONT)
    # MLflow's own timeouts are past the patience: that would be "no answer from MLflow".
    assert [said.partition(": ")[2].startswith(mlflow_server.uri) for said in warnings] == [True]
    result = sync(path, mlflow_server.uri)
    assert (result.trouble, sum(result.left.values())) == (None, 0)
    assert points(mlflow_server, "hung") == [("loss", n, float(n)) for n in range(2000)]


def test_what_a_killed_run_logged_is_sent_and_sending_it_again_adds_nothing(
    tmp_path, mlflow_server
):
    mlflow_server.start()
    path = tmp_path / "killed"
    command = [*JOB, "train", str(path), "http://127.0.0.1:9", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as training:
        assert training.stdout.readline() == b"logged\n"
        training.kill()
    (path / RECORD).unlink(missing_ok=True)
    with (path / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"step": 300, "ti')  # what a power cut may leave
    wait_for(lambda: "127.0.0.1:9" in (path / "tracking.log").read_text(), "its sender fails")
    wait_for(lambda: free(path), "its sender ends")
    for _ in range(2):
        send(path, mlflow_server)
        assert len(points(mlflow_server, "killed")) == 300
        assert runs(mlflow_server)["killed"][1] == "KILLED"
        forget_what_was_sent(path)


def free(path: Path) -> bool:
    try:
        with only_one(path, "tracking.lock"):
            return True
    except RunError:
        return False


def send(path: Path, server) -> None:
    sender = Sender(path, server.uri, "toy", print)
    sender.recorder.kill()
    assert sender.attempt()
    assert not sender.recorder.left()


def forget_what_was_sent(path: Path) -> None:
    """As if every acknowledgement had been lost."""
    key = (path / RECORD).read_text().splitlines()[0]
    (path / RECORD).write_text(f"{key}\n")


def test_metrics_that_a_run_wrote_again_after_its_checkpoint_are_sent_once(tmp_path, mlflow_server):
    mlflow_server.start()
    path = tmp_path / "cut"
    log = RunLog(path, experiment="toy")
    for step in range(10):
        log.log({"loss": float(step), "at": float(step)}, step)
    send(path, mlflow_server)
    lines = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (path / "metrics.jsonl").write_bytes(b"".join(lines[:5]))
    for step in range(5, 15):
        log.log({"loss": float(step)}, step)
    send(path, mlflow_server)
    found = [point for point in points(mlflow_server, "cut") if point[0] == "loss"]
    assert found == [("loss", n, float(n)) for n in range(15)]


@pytest.fixture
def without_a_sender(monkeypatch):
    """As if the process that sends could not be started, which saves its seconds."""
    monkeypatch.setattr("mixopt.tracking.tracker.Tracker._launch", lambda tracker: None)


def test_a_server_gives_the_same_trials_as_its_database(tmp_path, mlflow_server):
    mlflow_server.start()
    written = record(tmp_path / "run", mlflow_server.uri, "sweep")
    messages = list(_messages(mlflow_server.uri, "sweep"))
    found = trials_of([LoggedRun(**message["run"]) for message in messages[:-1]])
    assert by_name(found) == by_name(written)
    assert messages[-1] == {"done": True}
    with pytest.raises(ConfigError, match="no experiment 'sweeq'; did you mean 'sweep'?"):
        import_trials(mlflow_server.uri, "sweeq", tmp_path / "none.parquet")


def test_processes_that_begin_together_make_one_database_and_lose_nothing(tmp_path):
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    command = [*JOB, "senders", str(tmp_path), uri, "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == str([0] * 3), ended.stdout + ended.stderr
    with closing(sqlite3.connect(tmp_path / "all.db")) as database:
        count = "select count(*), count(distinct run_uuid) from metrics"
        assert database.execute(count).fetchone() == (3 * 5 * 20, 3)
        assert database.execute("select count(*) from experiments").fetchone() == (2,)
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)


def test_sync_of_what_is_no_run_directory_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mixopt", "sync", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        run_command_line()
    assert capsys.readouterr().err == (
        f"mixopt: {tmp_path}: is no run directory: it has neither tracking.jsonl nor config.yaml\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_sync_of_a_sweep_that_has_not_begun_is_one_line(tmp_path):
    open_run(load_config(QUICKSTART), tmp_path)
    with pytest.raises(RunError, match="nothing to send: neither its sweep nor its validation"):
        sync(tmp_path)
    assert not (tmp_path / "tracking.jsonl").exists()


def test_sync_of_a_pretraining_that_was_not_tracked_says_so(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {name: decoder}\n")
    with pytest.raises(RunError, match="nothing of it was tracked"):
        sync(tmp_path)


def test_sync_to_a_server_that_is_down_keeps_what_is_left_and_exits_with_1(
    tmp_path, without_a_sender
):
    log = RunLog(tmp_path, experiment="toy", uri="http://127.0.0.1:9")
    log.log({"loss": 1.0, "rate": 2.0}, 0)
    log.close()
    result = CliRunner().invoke(app, ["sync", str(tmp_path), "--trust", "--json"])
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["left"] == {"points": 2, "trials": 0, "files": 0, "runs": 1}
    assert answer["sent"] == {"points": 0, "trials": 0, "files": 0, "runs": 0}
    assert answer["trouble"].startswith("http://127.0.0.1:9: ")
