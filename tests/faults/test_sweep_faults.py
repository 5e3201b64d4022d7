"""A worker that stops, dies, hangs or babbles costs its own training, and nothing else."""

import re

import pytest


def test_a_stopped_worker_is_replaced_within_patience(faulty_sweep, undisturbed):
    patience = 1.5
    assert faulty_sweep(fault="stop", at="c", patience=patience) == undisturbed
    assert sorted(faulty_sweep.notes("ended")) == ["a,b", "c,d", "e,f"]
    lines = (faulty_sweep.place / "trained.log").read_text().splitlines()
    first, second = (float(one.split()[1]) for one in lines if re.match("began .* c,d", one))
    # A second for the new worker's start, on a busy machine several.
    assert patience <= second - first < patience + 6
    assert "retrying c and 1 more" in faulty_sweep.said[0]
    assert "made no progress for 1." in faulty_sweep.said[0]


def test_a_worker_that_is_killed_once_changes_no_result(faulty_sweep, undisturbed):
    assert faulty_sweep(fault="kill", at="c") == undisturbed
    assert "ended with signal SIGKILL; out of memory?" in faulty_sweep.said[0]


@pytest.mark.parametrize("fault", ["hang", "sleep"])
def test_a_worker_whose_heart_beats_and_nothing_moves_is_replaced(faulty_sweep, undisturbed, fault):
    assert faulty_sweep(fault=fault, at="c", patience=1.5) == undisturbed
    assert "made no progress for 1." in faulty_sweep.said[0]
    assert "while training" in faulty_sweep.said[0]
