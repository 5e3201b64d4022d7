"""What MLflow shall have of a run directory's steps, and of the code that made them."""

import json
import subprocess

import pytest

from mixopt import run as run_experiment
from mixopt.config import load_config
from mixopt.run_directory import REPORT, SWEEP, VALIDATE, open_run
from mixopt.system import git_commit
from mixopt.tracking import Tracker, code_tags, tracked
from mixopt.tracking.record import JOURNAL, wanted_runs


@pytest.fixture(scope="module")
def prepared(experiment, tmp_path_factory):
    """A run directory of which the corpus is there."""
    folder = tmp_path_factory.mktemp("run")
    config = folder / "tiny.yaml"
    config.write_text(experiment.replace("tracking: {enabled: false}", ""))
    run_experiment(config, folder / "run", until="prepare")
    return config, folder / "run"


def said(prepared, step, *overrides):
    """Track a step in which nothing is done; return what was said, by step."""
    config, path = prepared
    run = open_run(load_config(config, overrides), path)
    (path / JOURNAL).unlink(missing_ok=True)
    tracker = Tracker(run.config.tracking, run.config.name, path, sends=False)
    with tracker, tracked(run, step, tracker):
        (path / "design.parquet").touch()
    (path / "design.parquet").unlink()
    return run, wanted_runs(path)


def test_a_sweep_is_said_with_its_settings_and_ended_with_its_files(prepared):
    run, found = said(prepared, SWEEP)
    wanted = found["sweep"]
    assert (wanted.name, wanted.folder, wanted.status) == ("run/sweep", "trials", "FINISHED")
    assert wanted.params["tokens"] == "20000"
    assert wanted.params["domains"] == "2"
    assert wanted.params["design.trials"] == "8"
    assert wanted.fingerprint == run.log.fingerprint("sweep")
    assert list(wanted.files) == ["config.yaml", "design.parquet"]
    assert wanted.lines == []
    assert wanted.objective == json.loads(json.dumps(run.objective.to_json()))


def test_a_validation_has_the_length_that_is_asked_for_or_twice_a_trials(prepared):
    _, found = said(prepared, VALIDATE)
    assert found["validate"].params["tokens"] == "40000"
    assert (found["validate"].folder, found["validate"].files) == ("validation", {})
    _, found = said(prepared, VALIDATE, "validate.tokens=30000")
    assert found["validate"].params["tokens"] == "30000"


def test_a_report_adds_to_the_steps_that_are_done_and_else_says_nothing(prepared):
    assert said(prepared, REPORT)[1] == {}


def test_code_is_named_by_its_commit_and_whether_files_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "mixopt.git_commit" not in code_tags("f", git_commit())
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], check=True)
    clean = code_tags("f", git_commit())
    assert (clean["mixopt.fingerprint"], clean["mixopt.git_dirty"]) == ("f", "false")
    (tmp_path / "file").write_text("two")
    changed = code_tags("f", git_commit())
    assert changed["mixopt.git_dirty"] == "true"
    assert changed["mixopt.git_commit"] == clean["mixopt.git_commit"] + "+"
    assert changed["mlflow.source.git.commit"] == clean["mixopt.git_commit"]
