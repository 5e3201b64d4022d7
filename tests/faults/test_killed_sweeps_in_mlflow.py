"""A sweep that is killed: MLflow has what was reached, and all of it once the sweep resumes."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from mixopt.sweeps import trial_paths

pytest.importorskip("mlflow")

pytestmark = pytest.mark.nightly

MANY = ("proxy.tokens=400000", "design.trials=24")


@pytest.fixture(scope="module")
def killed(experiment, empty_database, tmp_path_factory):
    """The command and directory of a run killed in its sweep, when its record is closed."""
    folder = tmp_path_factory.mktemp("killed")
    config, out = folder / "tiny.yaml", folder / "run"
    config.write_text(experiment.replace("tracking: {enabled: false}", ""), encoding="utf-8")
    out.mkdir()
    shutil.copy(empty_database, out / "mlflow.db")
    (out / "config.yaml").touch()
    command = [sys.executable, "-m", "mixopt", "run", str(config), "--out", str(out)]
    command += [word for change in MANY for word in ("--set", change)]
    with (folder / "run.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    wait_for(lambda: len(trial_files(out)) >= 4, process)
    os.killpg(process.pid, signal.SIGKILL)  # of the run and its workers; the sender has its own
    process.wait()
    reached = trial_files(out)
    wait_for(lambda: parent(out)[1] == "KILLED")
    return command, out, reached


def wait_for(reached, process=None):
    until = time.monotonic() + 300
    while not reached():
        assert process is None or process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.05)


def trial_files(out):
    return sorted(path.stem for path in trial_paths(out / "trials"))


def ask(out, query, *values):
    with closing(sqlite3.connect(out / "mlflow.db")) as database:
        return database.execute(query, values).fetchall()


def parent(out):
    query = "select run_uuid, status from runs where name = 'run/sweep'"
    return (ask(out, query) or [(None, None)])[0]


def children(out):
    query = (
        "select r.name, r.run_uuid from runs r join tags t on t.run_uuid = r.run_uuid"
        " where t.key = 'mlflow.parentRunId' and t.value = ?"
    )
    return ask(out, query, parent(out)[0])


def test_each_trial_that_was_reached_is_there_with_its_curve_and_weights(killed):
    _, out, reached = killed
    found = dict(children(out))
    assert sorted(found) == reached
    for run in found.values():
        ((points,),) = ask(
            out, "select count(*) from metrics where run_uuid = ? and key = 'loss/help'", run
        )
        ((weights,),) = ask(
            out, "select count(*) from params where run_uuid = ? and key like 'weight/%'", run
        )
        assert (points, weights) == (10, 2)


def test_the_command_resumes_the_same_run_and_no_trial_is_there_twice(killed):
    command, out, reached = killed
    first = parent(out)[0]
    subprocess.run(command, check=True, capture_output=True)
    assert parent(out) == (first, "FINISHED")
    names = [name for name, _ in children(out)]
    assert sorted(names) == trial_files(out)
    assert set(reached) < set(names)
