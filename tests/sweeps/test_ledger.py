"""What is kept of each attempt of a sweep."""

from mixopt.mixture import Mixture
from mixopt.sweeps import GroupOutcome, Place, read_attempts
from mixopt.sweeps.progress import note_attempt
from mixopt.trials import Trial, TrialResult

TRIALS = [Trial(name, Mixture({"x": 1.0}), seed=0) for name in "abc"]


def test_an_attempt_says_what_trained_where_and_what_it_cost(tmp_path):
    place = Place("n2", "NVIDIA H100", 0.5)
    results = [TrialResult(name, "finished", 1, 1, 0.0) for name in "ab"]
    note_attempt(tmp_path, GroupOutcome(TRIALS[:2], TRIALS[2:], results, place=place, seconds=2.5))
    (found,) = read_attempts(tmp_path)
    assert (found.trials, found.finished, found.outcome) == (["a", "b"], 2, "ended")
    assert (found.node, found.kind, found.gpus, found.seconds) == ("n2", "NVIDIA H100", 0.5, 2.5)


def test_a_fault_keeps_its_reason(tmp_path):
    note_attempt(tmp_path, GroupOutcome(TRIALS, reason="node n2 went away", fault="lost"))
    note_attempt(tmp_path, GroupOutcome(TRIALS, reason="no such layer"))
    found = read_attempts(tmp_path)
    assert [(one.outcome, one.reason) for one in found] == [
        ("lost", "node n2 went away"),
        ("failed", "no such layer"),
    ]


def test_lines_that_cannot_be_read_are_passed_over(tmp_path):
    note_attempt(tmp_path, GroupOutcome(TRIALS))
    with (tmp_path / "attempts.jsonl").open("a") as stream:
        stream.write('{"at": "soon"}\n[[[\n\n{"at": 1.0, "trials"')
    assert len(read_attempts(tmp_path)) == 1


def test_there_are_none_before_any_has_ended(tmp_path):
    assert read_attempts(tmp_path) == []
