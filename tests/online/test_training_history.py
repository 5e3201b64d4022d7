"""What a job wrote of its mixture and its losses, while it runs and after it."""

import json

import pytest

from mixopt.errors import RunError
from mixopt.online import read_history

WEIGHTS = ({"code": 0.5, "prose": 0.5}, {"code": 0.2, "prose": 0.8})


def write(path, lines, rest=""):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + rest)


def log(folder, rest=""):
    entries = [
        {"batch": step - 1, "step": step, "weights": weights, "why": "odm"}
        for step, weights in zip((1, 11), WEIGHTS, strict=True)
    ]
    write(folder / "mixture_log.jsonl", entries, rest)


def metrics(folder):
    lines = [
        {"step": 10, "weight": WEIGHTS[0], "train_loss": {"code": 3.0, "prose": 2.5}},
        {"step": 10, "held_out_loss": {"code": 3.1}},
        {"step": 20, "weight": WEIGHTS[1], "train_loss": {"code": 2.0}},
    ]
    write(folder / "metrics.jsonl", lines)


def test_weights_are_those_of_the_log_and_losses_those_of_the_metrics(tmp_path):
    log(tmp_path)
    metrics(tmp_path)
    found = read_history(tmp_path)
    assert found.weights == ((1, WEIGHTS[0]), (11, WEIGHTS[1]))
    assert found.held_out == {"code": ([10], [3.1])}
    assert found.trained == {"code": ([10, 20], [3.0, 2.0]), "prose": ([10], [2.5])}
    assert found.last == 20


def test_without_a_log_the_weights_are_those_of_the_metrics(tmp_path):
    metrics(tmp_path)
    assert read_history(tmp_path).weights == ((10, WEIGHTS[0]), (20, WEIGHTS[1]))


def test_the_log_of_a_driver_in_another_loop_is_read_alone(tmp_path):
    log(tmp_path)
    (tmp_path / "mixture_log.jsonl").rename(tmp_path / "own.jsonl")
    found = read_history(tmp_path / "own.jsonl")
    assert (found.weights[-1], found.held_out) == ((11, WEIGHTS[1]), {})


def test_a_line_that_is_half_written_is_left_out(tmp_path):
    log(tmp_path, rest='{"batch": 20, "st')
    assert len(read_history(tmp_path).weights) == 2


def test_a_directory_without_either_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(RunError, match="give the directory of `mixopt pretrain`"):
        read_history(tmp_path)


def test_a_line_that_is_none_of_theirs_is_named(tmp_path):
    write(tmp_path / "metrics.jsonl", [{"step": "ten"}])
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 1"):
        read_history(tmp_path)
