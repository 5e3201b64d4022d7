"""A worker that stops, dies, hangs or babbles costs its own training, and nothing else."""

import re

import pytest


def failed(results) -> list[str]:
    """Return the trials that failed."""
    return [name for name, result in results.items() if result.status == "failed"]


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


def test_memory_that_is_too_short_halves_a_group_and_so_a_resumed_sweep_has_it(
    faulty_sweep, undisturbed
):
    assert faulty_sweep(size=6, fits=3) == undisturbed
    assert faulty_sweep.notes("ended") == ["a,b,c", "d,e,f"]
    assert faulty_sweep.said == [
        "trials: MemoryError: no room for 6 trials; retrying a and 5 more, in halves"
    ]
    (faulty_sweep.folder / "e.json").unlink()
    assert faulty_sweep(size=6) == undisturbed
    assert faulty_sweep.notes("ended")[2:] == ["d,e,f"]


@pytest.mark.parametrize("fault", ["hang", "sleep"])
def test_a_worker_whose_heart_beats_and_nothing_moves_is_replaced(faulty_sweep, undisturbed, fault):
    assert faulty_sweep(fault=fault, at="c", patience=1.5) == undisturbed
    assert "made no progress for 1." in faulty_sweep.said[0]
    assert "while training" in faulty_sweep.said[0]


def test_garbage_for_a_result_is_the_reason_and_the_rest_go_on(faulty_sweep):
    results = faulty_sweep(fault="garbage", at="c", times=9)
    assert failed(results) == ["c", "d"]
    assert results["c"].reason.startswith("the worker's answer cannot be used: ")
    assert results["c"].reason.isprintable()


OF_OTHERS = "the proxy returned results of other trials than it was given"
BOTH, FIRST = ["failed", "failed"], ["failed", "finished"]
LIES = {
    **dict.fromkeys(("missing", "extra", "others", "turned", "twice"), (OF_OTHERS, BOTH)),
    **dict.fromkeys(("none", "number"), ("TypeError", BOTH)),
    **dict.fromkeys(("nan", "large"), ("a loss that is not finite", ["diverged", "finished"])),
    "names": ("not those of the corpus's evaluation domains: ", FIRST),
    "status": ("status: should be", BOTH),
    "tokens": ("tokens: should be", BOTH),
    "long": ("", ["finished", "finished"]),
}


@pytest.mark.parametrize("lie", LIES)
def test_results_that_cannot_be_fail_with_the_reason(faulty_sweep, undisturbed, lie):
    results = faulty_sweep(at="c", lie=lie)
    said, status = LIES[lie]
    assert [results["c"].status, results["d"].status] == status
    assert said in (results["c"].reason or "")
    assert [results[name] for name in "abef"] == [undisturbed[name] for name in "abef"]
