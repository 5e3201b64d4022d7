"""One run that nothing disturbed, for all that are."""

from __future__ import annotations

import pytest
from fault_runs import Undisturbed, undisturbed


@pytest.fixture(scope="session")
def whole(tmp_path_factory, text_files) -> Undisturbed:
    """The run, and the state before each of its steps."""
    lines = {n: path.read_text().splitlines(keepends=True)[:50] for n, path in text_files.items()}
    return undisturbed(tmp_path_factory.mktemp("whole"), lines)
