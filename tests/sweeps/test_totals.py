"""What a sweep has cost and may cost, in all and by node."""

import pytest

from mixopt.sweeps import AttemptRecord, GroupState, seconds_left, sweep_totals


def attempt(trials, finished=None, outcome="ended", node="n1", kind="L4", gpus=1.0, seconds=3600.0):
    count = len(trials) if finished is None else finished
    return AttemptRecord(
        at=1.0,
        trials=list(trials),
        finished=count,
        outcome=outcome,
        node=node,
        kind=kind,
        gpus=gpus,
        seconds=seconds,
        cpu=seconds / 2,
    )


def group(trials, node="n1", kind="L4", gpus=1.0, seconds=1800.0, rate=50.0):
    return GroupState(
        doing="training",
        trials=list(trials),
        done=1,
        total=2,
        tokens_per_second=rate,
        node=node,
        kind=kind,
        gpus=gpus,
        seconds=seconds,
    )


def test_hours_count_each_gpu_and_attempts_that_came_to_nothing():
    ended = [attempt("ab", gpus=2.0), attempt("c", 0, "lost", seconds=1800.0)]
    totals = sweep_totals(ended, [], 1)
    assert totals["gpu_hours"] == 2.5
    assert totals["cpu_hours"] == 0


def test_hours_to_go_are_by_the_cost_of_a_trial_and_what_runs_has_spent_some():
    totals = sweep_totals([attempt("ab")], [group("cd")], 10)
    assert totals["gpu_hours"] == 1.5
    assert totals["gpu_hours_to_go"] == pytest.approx(0.5 * 10 - 0.5)


def test_before_a_trial_has_ended_nothing_is_said_of_what_is_to_go():
    totals = sweep_totals([attempt("a", 0, "died")], [group("a")], 4)
    assert totals["gpu_hours_to_go"] is None
    assert totals["gpu_hours"] == 1.5


def test_without_a_gpu_the_time_that_was_computed_for_counts():
    totals = sweep_totals([attempt("ab", kind="cpu", gpus=0.0)], [], 2)
    assert (totals["cpu_hours"], totals["cpu_hours_to_go"]) == (0.5, 0.5)


def test_what_was_tried_again_counts_once_for_each_further_time():
    ended = [attempt("ab", 0, "lost"), attempt("ab", 0, "memory"), attempt("a"), attempt("b")]
    totals = sweep_totals(ended, [], 0)
    assert (totals["lost"], totals["retried"]) == (2, 4)


def test_each_kind_of_device_of_a_node_has_a_row():
    ended = [attempt("a"), attempt("b", kind="H100"), attempt("cd", 0, "lost", node="n2")]
    nodes = sweep_totals(ended, [group("cd"), group("e", rate=None)], 3)["nodes"]
    assert [(node["node"], node["kind"]) for node in nodes] == [
        ("n1", "H100"),
        ("n1", "L4"),
        ("n2", "L4"),
    ]
    first = nodes[1]
    assert (first["workers"], first["running"], first["done"], first["lost"]) == (2, 3, 1, 0)
    assert first["tokens_per_second"] == 50.0
    assert first["gpu_hours"] == 2.0
    assert (nodes[2]["done"], nodes[2]["lost"], nodes[2]["tokens_per_second"]) == (0, 2, None)


def test_the_time_left_is_that_of_trials_that_have_ended_evaluation_included():
    ended, running = (
        [attempt("ab", seconds=20.0)],
        [group("c", seconds=5.0), group("d", seconds=1.0)],
    )
    assert seconds_left(ended, running, 4) == (10.0 * 4 - 6.0) / 2
    assert seconds_left([attempt("a", 0, "died")], running, 4) is None
    assert seconds_left(ended, [], 4) is None
