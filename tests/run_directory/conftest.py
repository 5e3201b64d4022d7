"""A finished run, and copies of it that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mixopt


@pytest.fixture(scope="session")
def finished(experiment, tmp_path_factory) -> Path:
    """The directory of a run of the quickest proxy; its configuration is beside it."""
    folder = tmp_path_factory.mktemp("finished")
    config = folder / "tiny.yaml"
    config.write_text(experiment)
    mixopt.run(config, folder / "run")
    return folder / "run"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the run, with its configuration beside it."""
    shutil.copy(finished.parent / "tiny.yaml", tmp_path / "tiny.yaml")
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"
