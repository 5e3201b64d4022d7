"""Progress and cost of a sweep, for its progress bar, other terminals and MLflow."""

import os
import re

import pytest

from mixopt.mixture import Mixture
from mixopt.sweeps import (
    ATTEMPTS,
    AttemptRecord,
    Beat,
    GroupOutcome,
    Job,
    Training,
    read_attempts,
    read_progress,
    seconds_left,
    sweep_totals,
)
from mixopt.sweeps.groups import BEAT, GroupResult, write_beat, write_group, write_result
from mixopt.sweeps.progress import record_attempt, sweep_meter
from mixopt.trials import Trial, TrialResult

TRIALS = {name: Trial(name, Mixture({"x": 1.0}), 0) for name in "abcde"}
GPU = {"node": "n2", "kind": "H100", "gpus": 1.0}
FIRST = Beat(doing="training", trials=["c", "d"], done=500, total=2000, seconds=2.0)
SECOND = Beat(doing="compiling", trials=["e"], total=1000, seconds=1.0, **GPU)


def named(names):
    return [TRIALS[name] for name in names]


def result(name, status="finished"):
    return TrialResult(name, status, 1000, 5, 0.1)


@pytest.mark.parametrize(
    ("running", "new", "done", "note"),
    [
        ([FIRST, SECOND], {}, 2_500, "2/10 trials, 1 failed, .*k tokens/s"),
        (
            [SECOND],
            {"c": "finished", "d": "diverged"},
            4_000,
            "4/10 trials, 2 failed, .*k tokens/s",
        ),
        ([SECOND], {}, 2_000, "2/10 trials, 1 failed, compiling"),
    ],
    ids=["two train", "one has ended", "one is lost with its tokens"],
)
def test_the_bar_has_tokens_trials_and_speed(running, new, done, note):
    shown = []
    results = {"a": result("a"), "b": result("b", "failed")}
    report = sweep_meter(10, 1000, results, lambda *now: shown.append(now))
    report([FIRST, SECOND])
    results |= {name: result(name, status) for name, status in new.items()}
    report(running)
    assert shown[-1][0] == done
    assert re.fullmatch(note, shown[-1][1])


def begun(folder, names, beat):
    place = folder / "work" / f"{names or 'tune'}-0.1"
    write_group(place, Job("p", {}, folder, Training(1000)), named(names))
    write_beat(place, beat)
    return place


def test_another_process_sees_each_worker_until_it_has_a_result_or_a_damaged_beat(tmp_path):
    begun(tmp_path, "cd", FIRST)
    second = begun(tmp_path, "e", SECOND)
    assert read_progress(tmp_path) == [FIRST, SECOND]
    assert [beat.tokens_per_second for beat in read_progress(tmp_path)] == [250.0, None]
    write_result(second, GroupResult())
    assert read_progress(tmp_path) == [FIRST]
    (begun(tmp_path / "damaged", "e", FIRST) / BEAT).write_text('{"doing": "dancing"}')
    assert read_progress(tmp_path / "damaged") == []


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_nothing_is_appended_to_a_file_that_a_link_leads_to(tmp_path, link):
    other = tmp_path / "other"
    other.write_text("mine\n")
    folder = tmp_path / "trials"
    folder.mkdir()
    link(other, folder / ATTEMPTS)
    record_attempt(folder, GroupOutcome(named("ab")))
    assert other.read_text() == "mine\n"


def test_an_attempt_says_what_trained_where_and_what_it_cost(tmp_path):
    beat = Beat(trials=["a", "b"], seconds=2.5, **GPU)
    record_attempt(tmp_path, GroupOutcome(named("ab"), [result("a"), result("b")], beat=beat))
    record_attempt(tmp_path, GroupOutcome(named("c"), reason="node \xe9 went away", fault="lost"))
    record_attempt(tmp_path, GroupOutcome(named("c"), reason="no such layer"))
    assert (tmp_path / ATTEMPTS).read_bytes().isascii(), "whatever the locale"
    first, *others = read_attempts(tmp_path)
    assert (first.trials, first.finished, first.outcome) == (["a", "b"], 2, "ended")
    assert (first.node, first.kind, first.gpus, first.seconds) == ("n2", "H100", 1.0, 2.5)
    assert [(item.outcome, item.reason, item.node) for item in others] == [
        ("lost", "node \xe9 went away", "unknown"),
        ("failed", "no such layer", "unknown"),
    ]


def test_unwritable_or_damaged_attempts_do_not_stop_a_sweep(tmp_path):
    record_attempt(tmp_path / "absent", GroupOutcome(named("ab")))
    assert read_attempts(tmp_path) == []
    record_attempt(tmp_path, GroupOutcome(named("a")))
    with (tmp_path / ATTEMPTS).open("a") as stream:
        stream.write('{"at": "soon"}\n[[[\n\n{"at": 1.0, "trials"')
    assert len(read_attempts(tmp_path)) == 1


def attempt(trials, finished=None, outcome="ended", **where):
    count = len(trials) if finished is None else finished
    where = {"node": "n1", "kind": "L4", "gpus": 1.0, "seconds": 3600.0, "cpu": 1800.0, **where}
    return AttemptRecord(at=1.0, trials=list(trials), finished=count, outcome=outcome, **where)


def group(trials, seconds=1800.0, done=90_000):
    where = {"node": "n1", "kind": "L4", "gpus": 1.0}
    return Beat(doing="training", trials=list(trials), done=done, seconds=seconds, **where)


OFTEN = [attempt("ab", 0, "lost"), attempt("ab", 0, "memory"), attempt("a"), attempt("b")]


@pytest.mark.parametrize(
    ("ended", "running", "totals"),
    [
        (
            [attempt("ab", gpus=2.0), attempt("c", 0, "lost", seconds=1800.0)],
            [group("d")],
            {"gpu_hours": 3.0, "cpu_hours": 0},
        ),
        ([attempt("ab", kind="cpu", gpus=0.0)], [], {"gpu_hours": 0, "cpu_hours": 0.5}),
        (OFTEN, [], {"lost": 2, "retried": 4}),
    ],
    ids=["each GPU, whatever came of it", "computing without a GPU", "each further time"],
)
def test_what_counts(ended, running, totals):
    assert totals.items() <= sweep_totals(ended, running).items()


def test_each_kind_of_device_of_a_node_has_a_row():
    ended = [attempt("a"), attempt("b", kind="H100"), attempt("cd", 0, "lost", node="n2")]
    nodes = sweep_totals(ended, [group("cd"), group("e", done=0)])["nodes"]
    kinds = [(node["node"], node["kind"]) for node in nodes]
    assert kinds == [("n1", "H100"), ("n1", "L4"), ("n2", "L4")]
    first = nodes[1]
    assert (first["workers"], first["running"], first["done"], first["lost"]) == (2, 3, 1, 0)
    assert (first["tokens_per_second"], first["gpu_hours"]) == (50.0, 2.0)
    assert (nodes[2]["done"], nodes[2]["lost"], nodes[2]["tokens_per_second"]) == (0, 2, None)


def test_the_time_left_is_that_of_trials_that_have_ended_evaluation_included():
    ended, running = [attempt("ab", seconds=20.0)], [group("c", 5.0), group("d", 1.0)]
    assert seconds_left(ended, running, 4) == (10.0 * 4 - 6.0) / 2
    assert seconds_left([attempt("a", 0, "died")], running, 4) is None
    assert seconds_left(ended, [], 4) is None
