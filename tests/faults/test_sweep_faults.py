"""A worker that stops, dies, hangs or babbles costs its own training, and nothing else."""

import os
import sys

import pytest

from mixopt.sweeps import read_groups

PAIRS = [["a", "b"], ["c", "d"], ["e", "f"]]


def failed(results) -> list[str]:
    """Return the trials that failed."""
    return [name for name, result in results.items() if result.status == "failed"]


def test_a_stopped_worker_is_replaced_within_patience(faulty_sweep, undisturbed):
    patience = 1.5
    assert faulty_sweep(fault="stop", at="c", patience=patience) == undisturbed
    begun = faulty_sweep.times("began", "c,d")
    waited = begun[1] - begun[0]
    said = f"a stopped worker was replaced after {waited:.2f} s; sweep.patience: {patience} s\n"
    sys.stdout.write(said)
    # A second for the new worker's start, on a busy machine several.
    assert patience <= waited < patience + 6
    assert "c and 1 more once more" in faulty_sweep.said[0]
    assert "gave no sign of life for 1." in faulty_sweep.said[0]


def test_no_trial_is_trained_to_the_end_twice(faulty_sweep):
    faulty_sweep(fault="stop", at="c", patience=1.5)
    assert sorted(faulty_sweep.notes("ended")) == ["a,b", "c,d", "e,f"]


def test_a_worker_that_is_stopped_always_fails_its_trials_with_the_reason(faulty_sweep):
    results = faulty_sweep(fault="stop", at="c", patience=1.0, times=9)
    assert failed(results) == ["c", "d"]
    assert results["c"].reason.startswith("tried twice: the worker gave no sign of life for 1.")
    assert faulty_sweep.notes("began").count("c,d") == 2


def test_a_worker_that_is_killed_once_changes_no_result(faulty_sweep, undisturbed):
    assert faulty_sweep(fault="kill", at="c") == undisturbed
    assert "ended with signal SIGKILL; out of memory?" in faulty_sweep.said[0]


def test_a_worker_that_is_killed_always_fails_the_trial_that_kills_it(faulty_sweep):
    results = faulty_sweep(fault="kill", at="c", times=9)
    assert failed(results) == ["c"]
    assert results["c"].reason.startswith("tried twice: the worker ended with signal SIGKILL")
    assert faulty_sweep.notes("ended") == ["a,b", "e,f", "d"]


def test_a_group_that_memory_is_too_short_for_trains_in_halves(faulty_sweep, undisturbed):
    assert faulty_sweep(size=6, fits=3) == undisturbed
    assert faulty_sweep.notes("ended") == ["a,b,c", "d,e,f"]
    assert faulty_sweep.said == [
        "trials: MemoryError: no room for 6 trials; a and 5 more once more, in halves"
    ]


def test_halves_that_do_not_fit_either_fail_with_the_reason(faulty_sweep):
    results = faulty_sweep(size=4, fits=1)
    assert failed(results) == ["a", "b", "c", "d"]
    assert results["a"].reason == "tried twice: MemoryError: no room for 2 trials"


def test_a_resumed_sweep_forms_the_halves_again(faulty_sweep, undisturbed):
    faulty_sweep(size=6, fits=3)
    assert read_groups(faulty_sweep.folder) == [["a", "b", "c"], ["d", "e", "f"]]
    (faulty_sweep.folder / "e.json").unlink()
    assert faulty_sweep(size=6) == undisturbed
    assert faulty_sweep.notes("ended")[2:] == ["d,e,f"]


@pytest.mark.parametrize("fault", ["hang", "sleep"])
def test_a_worker_whose_heart_beats_and_nothing_moves_is_replaced(faulty_sweep, undisturbed, fault):
    assert faulty_sweep(fault=fault, at="c", patience=1.5) == undisturbed
    assert "made no progress for 1." in faulty_sweep.said[0]
    assert "while training" in faulty_sweep.said[0]


def test_a_worker_that_computes_and_has_not_reported_yet_is_waited_for(faulty_sweep, undisturbed):
    assert faulty_sweep(fault="spin", at="c", patience=1.0) == undisturbed
    assert faulty_sweep.said == []


def test_a_worker_that_steps_slowly_is_waited_for_five_steps(faulty_sweep, undisturbed):
    # After a step of 0.8 s the patience of 1 s has become 4 s.
    assert faulty_sweep(fault="slow", at="c", patience=1.0) == undisturbed
    assert faulty_sweep.said == []


def test_garbage_on_the_pipe_is_the_reason_and_the_rest_go_on(faulty_sweep):
    results = faulty_sweep(fault="garbage", at="c", times=9)
    assert failed(results) == ["c", "d"]
    reason = "the worker's answer cannot be used: a line: results: should be a valid list, got 7"
    assert results["c"].reason == reason


def test_a_worker_that_dies_in_the_middle_of_an_answer_has_died(faulty_sweep, undisturbed):
    assert faulty_sweep(fault="cut", at="c") == undisturbed
    assert "ended with exit code 3" in faulty_sweep.said[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_holds_a_dead_workers_pipe_holds_nothing_up(faulty_sweep, undisturbed):
    assert faulty_sweep(fault="fork", at="c") == undisturbed
    begun = faulty_sweep.times("began", "c,d")
    assert begun[1] - begun[0] < 15  # the child lives for 20 seconds
    assert "ended with exit code 3" in faulty_sweep.said[0]
