"""A run directory with its own database is moved: its files are still shown, and more are kept."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import closing

import pytest
from ranks import free_port
from tracked_sweep import record

pytest.importorskip("mlflow")

from mixopt.tracking import RunLog, sync
from mixopt.tracking.journal import Wanted
from mixopt.tracking.process import Sender

# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(autouse=True)
def sent_from_here(monkeypatch):
    """Send from this process, which has imported MLflow already; others take seconds to."""
    monkeypatch.setattr("mixopt.tracking.tracker.Tracker._launch", lambda tracker: None)


def send(path, uri=None):
    assert Sender(path, uri, "moves", lambda answer: None).attempt()


@pytest.fixture
def logged(tmp_path, empty_database):
    """A run directory with a database, a point and a file."""
    path = tmp_path / "first" / "run"
    path.mkdir(parents=True)
    shutil.copy(empty_database, path / "mlflow.db")
    log_file(path, "one.txt", "first words", step=1)
    return path


def log_file(path, name, text, step):
    (path.parent / name).write_text(text)
    with RunLog(path, experiment="moves") as log:
        log.log({"loss": 1.0 / step}, step)
        log.artifact(path.parent / name)
    send(path)


def moved(path):
    """Move a folder elsewhere, so that nothing is left where it was."""
    target = path.parents[1] / "second" / "place"
    target.parent.mkdir()
    shutil.move(path, target)
    return target


def stored(path, query):
    with closing(sqlite3.connect(path / "mlflow.db")) as database:
        return [value for (value,) in database.execute(query)]


def kept_files(path, monkeypatch):
    """The names of a run's files as MLflow lists them in the folder of the database."""
    from mlflow import MlflowClient

    monkeypatch.chdir(path)
    # In full, for MLflow keeps the stores of a process by their names.
    client = MlflowClient(tracking_uri=f"sqlite:///{path}/mlflow.db")
    (run,) = stored(path, "select run_uuid from runs")
    return {one.path for one in client.list_artifacts(run)}


def test_paths_of_files_are_relative_to_the_database(logged):
    assert stored(logged, "select artifact_location from experiments where name = 'moves'") == [
        "mlartifacts"
    ]
    (run,) = stored(logged, "select run_uuid from runs")
    assert stored(logged, "select artifact_uri from runs") == [f"mlartifacts/{run}/artifacts"]
    assert (logged / "mlartifacts" / run / "artifacts" / "one.txt").read_text() == "first words"


def test_a_directory_that_was_moved_shows_its_files(logged, monkeypatch):
    assert kept_files(moved(logged), monkeypatch) == {"one.txt", "environment.json"}


def test_what_is_logged_after_a_move_joins_what_was_before(logged, monkeypatch):
    path = moved(logged)
    log_file(path, "two.txt", "more", step=2)
    assert kept_files(path, monkeypatch) == {"one.txt", "two.txt", "environment.json"}
    assert stored(path, "select count(*) from metrics") == [2]
    assert sync(path).sent == {"points": 0, "trials": 0, "files": 0, "runs": 0}


def test_a_sync_after_a_move_sends_nothing_twice(tmp_path, empty_database):
    path = tmp_path / "first" / "run"
    path.mkdir(parents=True)
    shutil.copy(empty_database, path / "mlflow.db")
    record(path)
    before = stored(path, "select run_uuid from runs order by run_uuid")
    path = moved(path)
    record(path)
    assert stored(path, "select run_uuid from runs order by run_uuid") == before
    assert len(before) == 4


def test_a_directory_of_an_older_version_is_mended_after_a_move(logged, monkeypatch):
    (run,) = stored(logged, "select run_uuid from runs")
    absolute = (logged / "mlartifacts").as_uri()
    with closing(sqlite3.connect(logged / "mlflow.db")) as database, database:
        database.execute("update experiments set artifact_location = ?", (absolute,))
        database.execute("update runs set artifact_uri = ?", (f"{absolute}/{run}/artifacts",))
    path = moved(logged)
    log_file(path, "two.txt", "more", step=2)
    assert kept_files(path, monkeypatch) == {"one.txt", "two.txt", "environment.json"}


@pytest.fixture
def named(tmp_path, empty_database):
    """A database that the user names, with a run of a directory elsewhere."""
    database = tmp_path / "all" / "mlflow.db"
    database.parent.mkdir()
    shutil.copy(empty_database, database)
    log_to(database, tmp_path / "run", "one.txt", "first words")
    return database


def log_to(database, path, name, text):
    file = path.with_name(name)
    file.write_text(text)
    uri = f"sqlite:///{database}"
    with RunLog(path, experiment="moves", uri=uri) as log:
        log.artifact(file)
    send(path, uri)


def test_a_database_that_the_user_names_shows_its_files_from_anywhere(named, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    (run,) = stored(named.parent, "select run_uuid from runs")
    kept = MlflowClient(tracking_uri=f"sqlite:///{named}").list_artifacts(run)
    assert {one.path for one in kept} == {"one.txt", "environment.json"}


def test_a_named_database_that_was_moved_has_its_paths_corrected_by_the_next_run(named, tmp_path):
    place = moved(named.parent)
    log_to(place / "mlflow.db", tmp_path / "other", "two.txt", "more")
    folder = (place / "mlartifacts").as_uri()
    assert stored(place, "select artifact_location from experiments where name = 'moves'") == [
        folder
    ]
    runs = stored(place, "select run_uuid from runs")
    places = {f"{folder}/{run}/artifacts" for run in runs}
    assert set(stored(place, "select artifact_uri from runs")) == places


@pytest.mark.parametrize("own", [True, False])
def test_the_description_says_where_to_start_the_page_where_paths_are_relative(
    own, tmp_path, empty_database
):
    from mixopt.tracking.mlflow_store import MlflowStore

    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store = MlflowStore(uri, "moves", tmp_path / "mlartifacts", tmp_path if own else None)
    tags = {"mlflow.note.content": "Use it."}
    run = store.parent("key", "sweep", Wanted("n", None, {}, tags, {}, [], started=1))
    for _ in range(2):
        query = "select value from tags where key = 'mlflow.note.content'"
        ((text,), hint) = stored(tmp_path, query), "mlflow ui --backend-store-uri"
        assert text.startswith("Use it.")
        assert text.count(hint) == own
        store.tags(run, tags)


@pytest.mark.nightly
def test_mlflow_s_page_in_the_new_place_gives_the_file(logged):
    path = moved(logged)
    assert _file_by_page("sqlite:///mlflow.db", path) == b"first words"


@pytest.mark.nightly
def test_mlflow_s_page_started_anywhere_gives_the_file_of_a_named_database(named, tmp_path):
    assert _file_by_page(f"sqlite:///{named}", tmp_path) == b"first words"


def _file_by_page(uri, folder):
    """Ask MLflow's page for `one.txt` of the only run, the page started in a folder."""
    (run,) = stored((folder / uri.removeprefix("sqlite:///")).parent, "select run_uuid from runs")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "ui.log").open("w") as log:
        page = subprocess.Popen(
            [*command, "--backend-store-uri", uri],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=quiet,
            start_new_session=True,
        )
    asked = urllib.parse.urlencode({"run_uuid": run, "path": "one.txt"})
    try:
        return _answer(f"http://127.0.0.1:{port}/get-artifact?{asked}")
    finally:
        os.killpg(page.pid, signal.SIGKILL)
        page.wait()


def _answer(address):
    until = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
