"""The mixture log: what a line has, what is cut off, and what cannot be written."""

from __future__ import annotations

import json

import pytest

from mixopt.errors import RunError
from mixopt.online import MixtureLog, loss_sums

WEIGHTS = {"web": 0.75, "livres é": 0.25}


def written(log, why="start", *, shadow=False):
    log.write(6, 4, WEIGHTS, why, shadow=shadow)


def test_a_line_has_batch_step_weights_and_why(tmp_path):
    written(MixtureLog(tmp_path / "log"))
    line = {"batch": 6, "step": 4, "weights": WEIGHTS, "why": "start"}
    assert (tmp_path / "log").read_text(encoding="utf-8") == f"{json.dumps(line)}\n".replace(
        "\\u00e9", "é"
    )


def test_a_line_of_a_shadow_says_so(tmp_path):
    written(MixtureLog(tmp_path / "log"), shadow=True)
    assert json.loads((tmp_path / "log").read_bytes())["shadow"] is True


def test_lines_are_added_and_counted_in_bytes(tmp_path):
    log = MixtureLog(tmp_path / "log")
    assert log.size == 0
    written(log)
    written(log, "turn 1")
    content = (tmp_path / "log").read_bytes()
    assert [json.loads(line)["why"] for line in content.splitlines()] == ["start", "turn 1"]
    assert log.size == len(content)


def test_without_a_path_lines_are_counted_all_the_same(tmp_path):
    log, other = MixtureLog(None), MixtureLog(tmp_path / "log")
    log.cut(0)
    written(log)
    written(other)
    assert log.size == other.size


def test_what_comes_after_so_many_bytes_is_cut_off(tmp_path):
    (tmp_path / "log").write_bytes(b"one\ntwo\n")
    log = MixtureLog(tmp_path / "log")
    log.cut(4)
    assert (log.size, (tmp_path / "log").read_bytes()) == (4, b"one\n")
    log.cut(4)
    assert (tmp_path / "log").read_bytes() == b"one\n"


def test_folders_are_made_for_a_log(tmp_path):
    path = tmp_path / "runs" / "one" / "log"
    log = MixtureLog(path)
    log.cut(0)
    log.cut(0)
    assert path.read_bytes() == b""


def test_a_log_that_is_too_short_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "log").write_bytes(b"one\n")
    with pytest.raises(RunError, match=r"log: has 4 bytes, but had 5 when the state was saved"):
        MixtureLog(tmp_path / "log").cut(5)
    assert (tmp_path / "log").read_bytes() == b"one\n"


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = MixtureLog(tmp_path)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        log.cut(0)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        written(log)


def test_another_rank_counts_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_sums, "is_first", lambda: False)
    log = MixtureLog(tmp_path / "log")
    log.cut(0)
    written(log)
    assert log.size > 0
    assert not (tmp_path / "log").exists()
