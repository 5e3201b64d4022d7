"""A copy of the finished run that commands may write to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> Path:
    """A copy of the run, with its configuration beside it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(finished.parent / "tiny.yaml", folder / "tiny.yaml")
    return Path(shutil.copytree(finished, folder / "run"))
