"""The finished run in a database of MLflow, sent once for all tests that read it."""

import shutil
from pathlib import Path

import pytest

from mixopt import load_run
from mixopt.tracking import sync


@pytest.fixture(scope="session")
def sent(finished, empty_database, tmp_path_factory) -> Path:
    """A copy of the run, which was not tracked, with a database of its own."""
    path = shutil.copytree(finished, tmp_path_factory.mktemp("sent") / "runs" / "web")
    shutil.copy(empty_database, path / "mlflow.db")
    found, trials = sync(path), len(load_run(path).trials)
    trials += len(list((path / "validation").glob("*-s*.json")))
    assert (found.trouble, found.sent["trials"], found.sent["runs"]) == (None, trials, 2)
    return path
