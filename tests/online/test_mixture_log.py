"""The mixture log: what cannot be written is named; the driver's tests hold the rest."""

from __future__ import annotations

import pytest

from mixopt.errors import RunError
from mixopt.online import MixtureLog


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = MixtureLog(tmp_path)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        log.cut(0)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        log.write(6, 4, {"web": 1.0}, "start", shadow=False)
