"""The mixture log: what cannot be written or read is named; steps come from whole lines."""

from __future__ import annotations

import json

import pytest

from mixopt.errors import RunError
from mixopt.online import MixtureLog, last_step


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = MixtureLog(tmp_path)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        log.cut(0)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        log.write(6, 4, {"web": 1.0}, "start", shadow=False)


def test_the_last_step_is_that_of_the_last_whole_line(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert last_step(metrics) == 0
    metrics.write_text("".join(json.dumps({"step": k}) + "\n" for k in (10, 20)) + '{"step": 30')
    assert last_step(metrics) == 20
    metrics.write_text('{"step": "ten"}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 1"):
        last_step(metrics)
