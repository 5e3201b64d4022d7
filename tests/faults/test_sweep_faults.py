"""A worker that stops, dies, hangs or babbles costs its own training, and nothing else."""

import sys

import pytest

from mixopt.errors import RunError
from mixopt.sweeps import read_groups

PAIRS = [["a", "b"], ["c", "d"], ["e", "f"]]


def failed(results) -> list[str]:
    """Return the trials that failed."""
    return [name for name, result in results.items() if result.status == "failed"]


def test_a_stopped_worker_is_replaced_within_patience(faulty_sweep, undisturbed):
    patience = 1.5
    assert faulty_sweep(fault="stop", at="c", patience=patience) == undisturbed
    assert sorted(faulty_sweep.notes("ended")) == ["a,b", "c,d", "e,f"]
    begun = faulty_sweep.times("began", "c,d")
    waited = begun[1] - begun[0]
    said = f"a stopped worker was replaced after {waited:.2f} s; sweep.patience: {patience} s\n"
    sys.stdout.write(said)
    # A second for the new worker's start, on a busy machine several.
    assert patience <= waited < patience + 6
    assert "retrying c and 1 more" in faulty_sweep.said[0]
    assert "made no progress for 1." in faulty_sweep.said[0]


def test_a_worker_that_is_stopped_always_fails_its_trials_with_the_reason(faulty_sweep):
    results = faulty_sweep(fault="stop", at="c", patience=1.0, times=9)
    assert failed(results) == ["c", "d"]
    assert results["c"].reason.startswith("tried twice: the worker made no progress for 1.")
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
        "trials: MemoryError: no room for 6 trials; retrying a and 5 more, in halves"
    ]


def test_a_trial_that_does_not_fit_alone_fails_with_the_reason(faulty_sweep):
    with pytest.raises(RunError, match="tried twice: MemoryError: no room for 1 trials"):
        faulty_sweep(size=2, fits=0)


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


def test_a_worker_that_leaves_has_died(faulty_sweep, undisturbed):
    assert faulty_sweep(fault="leave", at="c", patience=20.0) == undisturbed
    assert "ended with exit code 0" in faulty_sweep.said[0]


def test_garbage_for_a_result_is_the_reason_and_the_rest_go_on(faulty_sweep):
    results = faulty_sweep(fault="garbage", at="c", times=9)
    assert failed(results) == ["c", "d"]
    assert results["c"].reason.startswith("the worker's answer cannot be used: ")
    assert results["c"].reason.isprintable()


OF_OTHERS = "the proxy returned results of other trials than it was given"


@pytest.mark.parametrize(
    ("lie", "said", "status"),
    [
        ("missing", OF_OTHERS, ["failed", "failed"]),
        ("extra", OF_OTHERS, ["failed", "failed"]),
        ("others", OF_OTHERS, ["failed", "failed"]),
        ("turned", OF_OTHERS, ["failed", "failed"]),
        ("twice", OF_OTHERS, ["failed", "failed"]),
        ("none", "TypeError", ["failed", "failed"]),
        ("number", "TypeError", ["failed", "failed"]),
        ("nan", "a loss that is not finite", ["diverged", "finished"]),
        ("large", "a loss that is not finite", ["diverged", "finished"]),
        ("names", "not those of the corpus's evaluation domains: ", ["failed", "finished"]),
        ("status", "status: should be", ["failed", "failed"]),
        ("tokens", "tokens: should be", ["failed", "failed"]),
        ("long", "", ["finished", "finished"]),
    ],
)
def test_results_that_cannot_be_fail_with_the_reason(faulty_sweep, undisturbed, lie, said, status):
    results = faulty_sweep(at="c", lie=lie)
    assert [results["c"].status, results["d"].status] == status
    assert said in (results["c"].reason or "")
    assert [results[name] for name in "abef"] == [undisturbed[name] for name in "abef"]
