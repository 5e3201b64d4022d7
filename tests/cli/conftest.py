"""One finished run under the default regressors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import mixopt


@pytest.fixture(scope="session")
def finished_run(experiment, tmp_path_factory) -> tuple[Path, Path, str]:
    """The configuration and the directory of a run, not to be changed, and what it said."""
    folder = tmp_path_factory.mktemp("every_command")
    config = folder / "tiny.yaml"
    text = experiment.replace("target: help", 'mean: {"*": 1, help: 3}')
    text = text.replace("{enabled: false}", "{enabled: true}")
    config.write_text(text, encoding="utf-8")
    ended = mixopt("run", config, "--out", folder / "run")
    assert ended.code == 0, ended.error
    return config, folder / "run", ended.error


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory) -> Path:
    """A copy of the run that commands may write to."""
    return Path(shutil.copytree(finished_run[1], tmp_path_factory.mktemp("copy") / "run"))
