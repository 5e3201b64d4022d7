"""The mixture log, and the history of weights and losses that is read from it and the metrics."""

from __future__ import annotations

import json

import pytest

from mixopt.errors import RunError
from mixopt.online import MixtureLog, read_history

WEIGHTS = {"web": 0.75, "livres é": 0.25}


def written(log, why="start", *, shadow=False):
    log.write(6, 4, WEIGHTS, why, shadow=shadow)


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = MixtureLog(tmp_path)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        log.cut(0)
    with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written: Is a directory"):
        written(log)


# The history ----------------------------------------------------------------------------------

MIXTURES = ({"code": 0.5, "prose": 0.5}, {"code": 0.2, "prose": 0.8})


def write(path, lines, rest=""):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + rest)


def write_log(folder, rest=""):
    entries = [
        {"batch": step - 1, "step": step, "weights": weights, "why": "odm"}
        for step, weights in zip((1, 11), MIXTURES, strict=True)
    ]
    write(folder / "mixture_log.jsonl", entries, rest)


def write_metrics(folder):
    lines = [
        {"step": 10, "weight": MIXTURES[0], "train_loss": {"code": 3.0, "prose": 2.5}},
        {"step": 10, "held_out_loss": {"code": 3.1}},
        {"step": 20, "weight": MIXTURES[1], "train_loss": {"code": 2.0}},
    ]
    write(folder / "metrics.jsonl", lines)


def test_weights_are_those_of_the_log_and_losses_those_of_the_metrics(tmp_path):
    write_log(tmp_path)
    write_metrics(tmp_path)
    found = read_history(tmp_path)
    assert found.weights == ((1, MIXTURES[0]), (11, MIXTURES[1]))
    assert found.held_out == {"code": ([10], [3.1])}
    assert found.trained == {"code": ([10, 20], [3.0, 2.0]), "prose": ([10], [2.5])}
    assert found.last == 20


def test_a_line_that_is_half_written_is_left_out(tmp_path):
    write_log(tmp_path, rest='{"batch": 20, "st')
    assert len(read_history(tmp_path).weights) == 2


def test_a_directory_without_either_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(RunError, match="give the directory of `mixopt pretrain`"):
        read_history(tmp_path)


def test_a_line_that_is_none_of_theirs_is_named(tmp_path):
    write(tmp_path / "metrics.jsonl", [{"step": "ten"}])
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 1"):
        read_history(tmp_path)
