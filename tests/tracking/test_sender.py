"""The record in MLflow: complete, sent once, and never in the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from unittest.mock import Mock

import numpy as np
import pytest
from command_line import mixopt
from filelock import FileLock
from made_experts import counted
from places import SUPPORT
from ranks import free_port
from s3_server import wait_for_answer
from tracking_job import RunLog, wait_for

from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.routing import ExpertCounts, trial_scalars
from mixopt.sweeps import TrialFolder
from mixopt.tracking import sender, sync
from mixopt.tracking.record import JOURNAL, SENT, Sent, WantedRun, append_line
from mixopt.tracking.sender import Sender
from mixopt.trials import Losses, Trial, TrialResult

pytest.importorskip("mlflow")
# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
PARAMS, TAGS = {"seed": "0", "proxy": "decoder"}, {"mixopt.fingerprint": "0123"}


@pytest.fixture
def run_path(tmp_path, empty_database):
    path = tmp_path / "run"
    path.mkdir()
    shutil.copy(empty_database, path / "mlflow.db")
    return path


def trial_file(path, name, *, reason=None, loss=2.0, experts=None, status="finished"):
    trial = Trial(name, Mixture({"web": 0.25, "c++": 0.75}), seed=7)
    losses = tuple(
        Losses(at, {"web": loss + 1 / at, "c++": loss}, {"web": 1.0, "c++": 0.5})
        for at in (500, 1000)
    )
    result = TrialResult(name, status, 1000, 42, 2.0, losses[-1], losses, experts=experts)
    if reason:
        result = TrialResult(name, "diverged", 500, 42, 1.0, reason=reason)
    TrialFolder(path / "trials").write([trial], [result])


def want(path, *, tags=TAGS, params=PARAMS, **fields):
    """Append what the sweep's run shall be to the record."""
    wanted = WantedRun("sweep", None, "toy", "sweep", int(time.time() * 1000), "trials")
    append_line(path / JOURNAL, asdict(replace(wanted, tags=tags, params=params, **fields)))


def send(path, uri=None):
    """Send once, as at the end; return what is wrong."""
    return Sender(path, uri or local(path)).attempt(last=True)


def local(path):
    """Return the directory's own database; MLflow keeps one connection a name in a process."""
    return f"sqlite:///{path}/mlflow.db"


def record(path, **fields):
    want(path, status="FINISHED", ended=int(time.time() * 1000), **fields)
    return send(path)


def runs_of(path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=local(path))
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs([experiment.experiment_id])
    return client, {run.info.run_name: run for run in runs}, len(runs)


def test_a_trial_is_a_child_with_its_weights_losses_speed_and_curve(run_path):
    trial_file(run_path, "t0")
    trial_file(run_path, "t1", reason="loss is nan at step 3")
    assert record(run_path) is None
    client, runs, _ = runs_of(run_path)
    assert (runs["t1"].info.status, runs["t0"].info.status) == ("FAILED", "FINISHED")
    assert runs["t1"].data.tags["mixopt.reason"] == "loss is nan at step 3"
    assert "loss/web" not in runs["t1"].data.metrics
    child = runs["t0"]
    assert child.data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id
    assert child.data.params["weight/web"] == "0.25"
    assert child.data.params["weight/c_2b__2b_"] == "0.75"
    assert child.data.metrics == pytest.approx({
        "loss/web": 2.001, "loss/c_2b__2b_": 2.0, "bpb/web": 1.0, "bpb/c_2b__2b_": 0.5,
        "trial/tokens": 1000, "trial/parameters": 42, "trial/seconds": 2.0,
        "trial/tokens_per_second": 500.0,
    })  # fmt: skip
    history = client.get_metric_history(child.info.run_id, "loss/web")
    assert [(p.step, round(p.value, 4)) for p in history] == [(500, 2.002), (1000, 2.001)]
    written = int((run_path / "trials/t0.json").stat().st_mtime * 1000)
    assert (child.info.end_time, child.info.start_time) == (written, written - 2000)
    assert runs["sweep"].data.params == PARAMS


def test_sync_exits_with_1_if_something_was_not_sent(run_path):
    want(run_path, files=["/etc/hostname"])
    ended = mixopt("sync", run_path)
    assert ended.code == 1
    assert "'/etc/hostname' is outside this folder; it is not read" in ended.out
    (run_path / JOURNAL).unlink()
    want(run_path)
    assert mixopt("sync", run_path).code == 0


def test_a_stopped_trial_is_sent_when_its_sweep_is_finished(run_path):
    trial_file(run_path, "t0", status="stopped")
    want(run_path)
    sending = Sender(run_path, local(run_path))
    for _ in range(2):
        assert sending.attempt(last=False) is None
    assert sending.sent.sent["trials"] == 0
    want(run_path, status="FINISHED", ended=0)
    for _ in range(2):
        assert sending.attempt(last=False) is None
    assert sending.sent.sent["trials"] == 1


def test_a_trial_has_the_numbers_of_its_experts(run_path):
    layers = [np.full((2, 4), 1000), np.tile([4000, 0, 0, 0], (2, 1))]
    train = counted(layers, names=("web", "code"))
    counts = ExpertCounts(train, train)
    trial_file(run_path, "t0", experts=counts)
    record(run_path)
    metrics = runs_of(run_path)[1]["t0"].data.metrics
    expert_metrics = {name: value for name, value in metrics.items() if name.startswith("moe/")}
    assert expert_metrics == trial_scalars(counts)


def test_trials_sort_by_their_objective_when_it_is_known_and_when_it_changes(run_path):
    for name, loss in (("worse", 3.0), ("better", 2.0)):
        trial_file(run_path, name, loss=loss)
    objective = Objective(("web", "c++"), "mean", {"web": 0.5, "c++": 0.5}, "nats_per_token")
    record(run_path)
    assert "objective" not in runs_of(run_path)[1]["better"].data.metrics
    record(run_path, objective=objective.to_json())
    client, runs, count = runs_of(run_path)
    assert count == 3
    assert runs["better"].data.metrics["objective"] == pytest.approx(2.0005)
    only = f"tags.`mlflow.parentRunId` = '{runs['sweep'].info.run_id}'"
    identity = runs["sweep"].info.experiment_id
    best_first = client.search_runs([identity], only, order_by=["metrics.`objective` ASC"])
    assert [run.info.run_name for run in best_first] == ["better", "worse"]


def test_nothing_is_sent_twice_but_all_of_it_to_a_server_that_was_replaced(
    run_path, empty_database
):
    trial_file(run_path, "t0")
    write(run_path, {"x": 1, "moe/max_vio": {"mean": 0.25}}, 5)
    followed = {"lines": "all.jsonl", "metrics": {"outcome/gain": 0.5}}
    record(run_path, **followed)
    place, key = f"{run_path}/.", Sent.read(run_path).key  # the same database by another name
    for forgotten in ("nothing", "what was noted", "the database"):
        if forgotten == "what was noted":
            (run_path / SENT).write_text(json.dumps({"key": key}))
        elif forgotten == "the database":
            place = f"{run_path}/./."  # by a name under which MLflow has no file open
            (run_path / "mlflow.db").unlink()
            shutil.copy(empty_database, run_path / "mlflow.db")
        want(run_path, **followed)
        assert send(run_path, local(place)) is None
        assert any(Sent.read(run_path).sent.values()) == (forgotten != "nothing")
        client, runs, count = runs_of(place)
        assert count == 2
        assert runs["sweep"].data.metrics["outcome/gain"] == 0.5
        assert len(client.get_metric_history(runs["t0"].info.run_id, "loss/web")) == 2
        assert len(client.get_metric_history(runs["sweep"].info.run_id, "x")) == 1


def test_a_server_that_comes_back_as_another_gets_all(run_path, monkeypatch):
    servers = [Mock(), Mock()]
    for name, server in zip("ab", servers, strict=True):
        server.search_runs.return_value = [Mock(**{"info.run_id": name})]
    comes = iter(servers)
    monkeypatch.setattr(Sender, "_connect", lambda self, _: setattr(self, "_client", next(comes)))
    write(run_path, {"x": 1}, 5)
    want(run_path, lines="all.jsonl")
    sending = Sender(run_path, local(run_path))
    assert sending.attempt(last=False) is None
    servers[0].log_batch.side_effect = ConnectionError("gone")
    write(run_path, {"x": 2}, 6)
    assert sending.attempt(last=False).endswith(": gone")
    assert sending.attempt(last=False) is None
    batches = [call.args for call in servers[1].log_batch.call_args_list]
    assert {run for run, *_ in batches} == {"b"}
    assert [point.step for _, points, *_ in batches for point in points] == [5, 6]


def test_after_a_cut_only_later_steps_of_a_metric_are_sent(run_path, monkeypatch):
    file = run_path / "all.jsonl"
    want(run_path, lines="all.jsonl")
    sending = Sender(run_path, local(run_path))
    assert sending.attempt(last=False) is None
    for step in range(10):
        write(run_path, {"loss": 1.0}, step)
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "_log_batch", lambda *_: 1 / 0)
        assert "zero" in sending.attempt(last=False)
    assert sending.attempt(last=False) is None
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    for step in [*range(5, 15), 12]:
        write(run_path, {"loss": 0.5, "rate": 0.25}, step)
    for attempt in (sending, sending, Sender(run_path, local(run_path))):
        assert attempt.attempt(last=False) is None
    client, runs, _ = runs_of(run_path)
    history = client.get_metric_history(runs["sweep"].info.run_id, "loss")
    assert [(p.step, p.value) for p in history] == [(n, 1.0 if n < 10 else 0.5) for n in range(15)]
    history = client.get_metric_history(runs["sweep"].info.run_id, "rate")
    assert [p.step for p in history] == list(range(5, 15))


def write(path, metrics, step):
    append_line(path / "all.jsonl", {"step": step, "time": 1.0, **metrics})


def test_a_resumed_sweep_keeps_its_parent_run_and_a_retrained_trial_is_a_new_run(run_path):
    trial_file(run_path, "t0", reason="disk full")
    want(run_path)
    send(run_path)
    _, runs, _ = runs_of(run_path)
    assert runs["sweep"].info.status == "KILLED"
    want(run_path)
    resumed = Sender(run_path, local(run_path))
    for _ in range(2):
        assert resumed.attempt(last=False) is None
        assert runs_of(run_path)[1]["sweep"].info.status == "RUNNING"
    for name in ("t0", "t1"):
        trial_file(run_path, name)
    record(run_path)
    _, after, count = runs_of(run_path)
    assert (count, after["sweep"].info.status) == (4, "FINISHED")
    assert after["t1"].data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id
    record(run_path, tags={"mixopt.fingerprint": "4567"})
    assert runs_of(run_path)[2] == 7


def test_files_are_kept_in_folders_and_renewed_when_they_change(run_path):
    for content in (b"one", b"two"):
        (run_path / "trials.parquet").write_bytes(content)
        assert record(run_path, files=["trials.parquet", "absent.svg"]) is None
    kept = list((run_path / "mlartifacts").rglob("trials.parquet"))
    assert [file.read_bytes() for file in kept] == [b"two"]
    assert kept[0].parent.name == "tables"


@pytest.mark.parametrize("kind", ["files", "lines"])
@pytest.mark.parametrize("name", ["../secret.txt", "link.txt", "pipe"])
def test_no_file_outside_the_directory_is_sent_and_no_pipe_waited_for(run_path, name, kind):
    (run_path.parent / "secret.txt").write_text('{"step": 1, "time": 1, "secret": 1}\n')
    (run_path / "link.txt").symlink_to(run_path.parent / "secret.txt")
    (run_path / "trials").mkdir()
    for pipe in ("pipe", "trials/t0.json"):
        os.mkfifo(run_path / pipe)
    want(run_path, **{kind: [name] if kind == "files" else name})
    trouble = send(run_path)
    assert (trouble is None) == (name == "pipe")
    assert name == "pipe" or "is outside this folder; it is not read" in trouble
    assert not list((run_path / "mlartifacts").rglob("*.txt"))
    assert json.loads((run_path / SENT).read_text())["sent"] == {
        "runs": 1, "trials": 0, "points": 0, "files": 0
    }  # fmt: skip


def test_a_database_that_keeps_files_elsewhere_gets_none(run_path, tmp_path):
    from mlflow import MlflowClient

    elsewhere = tmp_path / "elsewhere"
    client = MlflowClient(tracking_uri=f"sqlite:///{run_path / 'mlflow.db'}")
    client.create_experiment("toy", elsewhere.as_uri())
    (run_path / "trials.parquet").write_bytes(b"rows")
    want(run_path, files=["trials.parquet"])
    trouble = send(run_path)
    assert "outside this folder; if it was moved, delete mlflow.db" in trouble
    assert not elsewhere.exists()


def test_what_goes_wrong_is_one_line_of_bounded_length(run_path, monkeypatch):
    (run_path / "mlflow.db").write_bytes(b"not a database" * 100)
    want(run_path)
    trouble = send(run_path)
    assert trouble.startswith(f"{local(run_path)}: ")
    assert "\n" not in trouble

    def connect(sender, experiment):
        raise RuntimeError(f"{'x' * 400}\nmore")

    monkeypatch.setattr(Sender, "_connect", connect)
    expected = f"mlflow.db: {'x' * 300}"
    assert Sender(run_path, None).attempt(last=True) == expected
    assert json.loads((run_path / SENT).read_text())["trouble"] == expected


def test_a_password_that_is_cut_off_is_hidden(run_path, monkeypatch):
    def connect(sender, experiment):
        raise RuntimeError(f"{'x' * 280} s3cret-and-longer-than-the-line")

    monkeypatch.setattr(Sender, "_connect", connect)
    want(run_path)
    server = "http://me:s3cret-and-longer-than-the-line@127.0.0.1:1"
    assert "s3cret" not in str(Sender(run_path, server).attempt(last=True))


def test_more_metrics_and_settings_than_a_call_takes_are_all_there(run_path):
    params = {"long": "x" * 9000} | {f"p{n}": str(n) for n in range(299)}
    tags = {**TAGS, "long": "x" * 9000}
    want(run_path, params=params, tags=tags, lines="all.jsonl", folder=None)
    for step in range(3):
        write(run_path, {f"m{n}": n for n in range(700)}, step)
    assert send(run_path) is None
    data = runs_of(run_path)[1]["sweep"].data
    assert (len(data.params), len(data.params["long"]), len(data.tags["long"])) == (300, 500, 5000)
    assert len(data.metrics) == 700


def test_a_sender_whose_training_is_gone_sends_once_more_and_ends(run_path, monkeypatch):
    want(run_path)
    parents = iter([1, 2])
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    Sender(run_path, local(run_path)).run(sys.stdin)
    assert runs_of(run_path)[1]["sweep"].info.status == "KILLED"


def test_a_server_that_fails_is_asked_again_after_longer_pauses(run_path, monkeypatch):
    answers, pauses = iter([*["down"] * 7, None, None]), []

    def wait(reads, writes, errors, pause):
        pauses.append(pause)
        return reads if len(pauses) == 8 else [], writes, errors

    monkeypatch.setattr(Sender, "attempt", lambda self, *, last: next(answers))
    monkeypatch.setattr("select.select", wait)
    assert Sender(run_path, local(run_path)).run(sys.stdin) is None
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 2]


@pytest.mark.parametrize(
    ("is_locked", "said"), [(False, ""), (True, "another process is sending from it\n")]
)
def test_the_process_sends_until_its_input_ends_and_logs_why_it_cannot(
    run_path, monkeypatch, capsys, is_locked, said
):
    want(run_path)
    (run_path / "input").write_text(f"{local(run_path)}\n")
    nicer = []
    monkeypatch.setattr(sender, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr(sys, "argv", ["sender", str(run_path)])
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr("os.nice", nicer.append)
    monkeypatch.setattr("os.environ", dict(os.environ))
    lock = FileLock(run_path / "tracking.lock") if is_locked else nullcontext()
    with (run_path / "input").open() as stream, lock:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(SystemExit) as ended:
            sender.main()
    assert (ended.value.code, nicer) == (is_locked, [5])
    assert capsys.readouterr().err.endswith(said)
    if not is_locked:
        assert runs_of(run_path)[1]["sweep"].info.status == "KILLED"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


@pytest.mark.nightly
def test_a_directory_may_have_any_name(tmp_path):
    name = "q?mode=ro 100% b#c"
    log = RunLog(tmp_path / name, experiment="toy")
    log.log({"loss": 1.0}, 0)
    (tmp_path / name / "note.txt").write_text("here")
    log.tracker.add("log", files=[tmp_path / name / "note.txt"])
    log.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert list((tmp_path / name / "mlartifacts").rglob("note.txt"))


def test_training_neither_imports_mlflow_nor_reaches_for_the_network(tmp_path):
    command = [sys.executable, str(SUPPORT / "tracking_job.py"), "watched", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(ended.stdout)
    assert (seen["imports"], seen["sockets"]) == ([], [])


class MlflowServer:
    """A real `mlflow server` on a database of its own."""

    def __init__(self, folder, database):
        self.port = free_port()
        self.uri, self.folder = f"http://127.0.0.1:{self.port}", folder
        shutil.copy(database, folder / "mlflow.db")

    def start(self):
        """Start it, and wait until it answers."""
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        kept = ["--artifacts-destination", str(self.folder / "served")]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", *address, *store, *kept]
        # Background jobs of the server start processes of their own.
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = self.folder / "server.log"
        with log.open("w") as out:
            given = {"stdout": out, "stderr": out, "env": quiet, "start_new_session": True}
            self.process = subprocess.Popen(command, **given)
        wait_for_answer(self.process, f"{self.uri}/health", log)

    def kill(self):
        """Kill it and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def mlflow_server(tmp_path_factory, empty_database):
    server = MlflowServer(tmp_path_factory.mktemp("server"), empty_database)
    server.start()
    yield server
    server.kill()


@pytest.mark.nightly
def test_a_server_that_is_down_in_the_middle_of_a_run_misses_no_point(tmp_path, mlflow_server):
    path = tmp_path / "on_and_off"
    log = RunLog(path, experiment="toy", uri=mlflow_server.uri)
    for step in range(100):
        if step == 20:
            wait_for(lambda: arrived(mlflow_server, "on_and_off") == 20)
            mlflow_server.kill()
        log.log({"loss": step / 7}, step)
    mlflow_server.start()
    log.close()
    if arrived(mlflow_server, "on_and_off") < 100:
        assert sync(path, mlflow_server.uri).trouble is None
    assert arrived(mlflow_server, "on_and_off") == 100


@pytest.mark.nightly
def test_processes_that_begin_together_make_one_database_and_lose_nothing(tmp_path):
    uri = f"sqlite:///{tmp_path / 'all.db'}"
    command = [sys.executable, str(SUPPORT / "tracking_job.py"), "senders", str(tmp_path), uri, "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == str([0] * 3), ended.stdout + ended.stderr


def arrived(server, name):
    """Points of a run in a server's database, which is there though the server is not."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(server.folder / "mlflow.db")) as database:
        query = "select count(*) from metrics join runs using (run_uuid) where runs.name = ?"
        return database.execute(query, (name,)).fetchone()[0]
