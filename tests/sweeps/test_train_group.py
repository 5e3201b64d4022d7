"""The program that trains a folder, run in this process, with each way in which it can end."""

import os
import queue
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from refusals import refuses
from work_runs import faulty_job, noted, trials_named

from mixopt.config import SweepConfig
from mixopt.corpus import corpus_hash
from mixopt.errors import MixoptError, RunError
from mixopt.sweeps import Progress, Training, run_trials, sweep, train_group
from mixopt.sweeps.groups import Beat, GroupResult, log_hint, read_beat, read_result, write_group
from mixopt.sweeps.local import Gpu
from mixopt.sweeps.train_group import Heartbeat, failure, train_folder, validated
from mixopt.system import host_name, read_json, write_json
from mixopt.trials import Losses, TrialResult


class Here:
    """Trains a folder at once, in this process."""

    poll, slots, queues, outlives_owner = 0.0, 1, True, False

    def start(self, folders):
        for folder in folders:
            train_folder(folder, os.getppid(), None)
        return list(map(str, folders))

    def states(self, handles):
        raise AssertionError("each has a result")

    def cancel(self, handles):
        pass

    close = list


@pytest.fixture
def anew(monkeypatch):
    """Make training safe in this process; return the restarts of the worker."""
    begun = []
    monkeypatch.setattr(train_group, "_print_to", lambda log: None)
    monkeypatch.setattr(os, "execv", lambda *words: begun.append(words))
    return begun


@pytest.fixture
def run_here(corpus, tmp_path, anew, monkeypatch):
    """Sweep trials a and b together, then c and d; return the results by trial."""
    monkeypatch.setattr(sweep, "make_executor", lambda *_: Here())

    def run(said=None, **options):
        job = faulty_job(tmp_path, corpus.path, **options)
        trials, folder = trials_named(*"abcd"), tmp_path / "trials"
        say = [].append if said is None else said.append
        results = run_trials(trials, job, folder, sweep=SweepConfig(), say=say)
        return {result.trial: result for result in results}

    return run


OF_OTHERS = "the proxy returned results of other trials than it was given"
OTHER_DOMAINS = "the proxy's losses are not those of the corpus's evaluation domains: "
BOTH, FIRST = ["failed", "failed"], ["failed", "finished"]
LIES = {
    "missing": (OF_OTHERS, BOTH),
    "turned": (OF_OTHERS, BOTH),
    "none": ("TypeError: ", BOTH),
    "object": ("a result: tokens: should be a valid integer, got a object", BOTH),
    "nan": ("the proxy reports a loss that is not finite", ["diverged", "finished"]),
    "status": ("a result: status: should be", BOTH),
    "names": (f"{OTHER_DOMAINS}'code', 'manual', 'other_code', 'web'", FIRST),
    "long": ("x" * 1000, ["finished", "finished"]),
}


@pytest.mark.parametrize("lie", LIES)
def test_results_that_cannot_be_fail_with_the_reason_and_the_rest_go_on(run_here, lie):
    results = run_here(at="c", lie=lie)
    reason, status = LIES[lie]
    assert [results["c"].status, results["d"].status] == status
    assert results["c"].reason.startswith(reason)
    assert (results["c"].losses is None) is (status[0] != "finished")
    assert [results[name].losses.nats_per_token["code"] for name in "ab"] == [1.0, 1.25]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("raises", r"ValueError: no such layer \udcff"), ("refuses", "a domain has no tokens")],
)
def test_what_a_proxy_raises_is_the_reason_in_one_line(run_here, tmp_path, anew, fault, reason):
    results = run_here(fault=fault, at="c")
    assert [r.status for r in results.values()] == ["finished"] * 2 + ["failed"] * 2
    assert results["d"].reason == reason
    assert not anew


def test_a_memory_error_halves_a_group_and_a_resumed_sweep_keeps_the_halves(
    run_here, tmp_path, anew
):
    said, log = [], tmp_path / "trained.log"
    assert [r.status for r in run_here(said, size=4, fits=2).values()] == ["finished"] * 4
    assert noted(log, "ended") == ["a,b", "c,d"]
    assert said == ["trials: MemoryError: no room for 4 trials; retrying a and 3 more, in halves"]
    assert len(anew) == 1
    (tmp_path / "trials" / "d.json").unlink()
    run_here(size=1)
    assert noted(log, "ended")[2:] == ["c,d"]


def test_groups_of_another_design_are_refused(run_here, tmp_path):
    (tmp_path / "trials").mkdir()
    write_json(tmp_path / "trials" / "groups.json", [["z"]])
    refuses(RunError, r"groups\.json: holds other trials than the design; delete", run_here)


def test_an_unreadable_result_is_an_error_and_long_errors_are_cut(tmp_path):
    (tmp_path / "result.json").write_text('{"results": 7}')
    result = read_result(tmp_path)
    assert (result.results, result.fault) == ([], None)
    assert result.error.startswith("the worker's answer cannot be used: ")
    assert failure(ValueError("x " * 2000)).error == f"ValueError: {'x ' * 994}"


@pytest.mark.parametrize(
    ("size", "slots", "groups"), [(0, 1, ["a", "b", "c", "d"]), (64, 2, ["ab", "cd"])]
)
def test_a_group_has_a_trial_and_leaves_work_for_every_worker(
    run_here, tmp_path, monkeypatch, size, slots, groups
):
    monkeypatch.setattr(Here, "slots", slots)
    run_here(size=size)
    assert read_json(tmp_path / "trials" / "groups.json") == [list(names) for names in groups]


def test_a_proxy_that_cannot_be_built_stops_the_sweep_before_it_trains(run_here, tmp_path):
    refuses(MixoptError, "unknown option 'sise'; did you mean 'size'", run_here, sise=3)
    assert not list((tmp_path / "trials").glob("[!.]*.json"))


def group_in(tmp_path, path, **changes):
    """Ask for a group of a and b, and return its folder."""
    folder = tmp_path / "work" / "a.1"
    job = replace(faulty_job(tmp_path, path), **changes)
    write_group(folder, job, trials_named("a", "b"))
    return folder


def test_the_last_beat_says_what_was_trained_where_and_a_worker_stays_warm(corpus, tmp_path, anew):
    folder = group_in(tmp_path, corpus.path)
    loaded = train_folder(folder, os.getppid(), None)
    beat = read_beat(folder)
    assert (beat.doing, beat.trials, beat.done, beat.total) == ("training", ["a", "b"], 2000, 2000)
    assert (beat.moves, beat.node, beat.kind, beat.gpus) == (5, host_name(), "cpu", 0.0)
    assert beat.seconds > 0
    (folder / "result.json").unlink()
    assert train_folder(folder, os.getppid(), loaded) is loaded


@pytest.mark.parametrize("changes", [{"corpus": Path("/absent")}, {"corpus_hash": "other"}])
def test_another_corpus_is_refused_with_the_name_of_the_host(corpus, tmp_path, anew, changes):
    given = {"corpus_hash": corpus_hash(corpus.path), **changes}
    folder = group_in(tmp_path, corpus.path, **given)
    train_folder(folder, os.getppid(), None)
    result = read_result(folder)
    assert (result.results, result.fault) == ([], None)
    expected = f"differs from the corpus that the sweep started with, on {host_name()}; give --out"
    assert expected in result.error


def test_a_worker_with_gpus_is_told_to_use_them(corpus, tmp_path, anew, monkeypatch):
    for given, gpus in ('{"kind": "L4", "gpus": 0.5}', 0.5), (None, 2.0):
        monkeypatch.delenv("MIXOPT_PLACE", raising=False)
        if given is not None:
            monkeypatch.setenv("MIXOPT_PLACE", given)
        else:
            monkeypatch.setattr(train_group, "find_gpus", lambda: [Gpu("0", "L4"), Gpu("1", "L4")])
        training = Training(1000, device="auto")
        folder = group_in(tmp_path / str(given is None), corpus.path, training=training)
        (job, _, _) = train_folder(folder, os.getppid(), None)
        assert job.training.device == "cuda"
        beat = read_beat(folder)
        assert (beat.node, beat.kind, beat.gpus) == (host_name(), "L4", gpus)


def heart(folder, parent=None):
    folder.mkdir(exist_ok=True)
    return Heartbeat(folder, Beat(trials=["a"]), os.getppid() if parent is None else parent)


def test_reports_are_counted_and_an_unknown_activity_is_training(tmp_path):
    beating = heart(tmp_path)
    beating.report(Progress(5, 20, "compiling"))
    assert (read_beat(tmp_path).doing, read_beat(tmp_path).moves) == ("compiling", 1)
    beating.report(Progress(10, 20, "dancing"))
    beating.end(GroupResult(error="no such layer"))
    beat = read_beat(tmp_path)
    assert (beat.doing, beat.moves, beat.done, beat.total) == ("training", 2, 10, 20)
    assert read_result(tmp_path) == GroupResult(error="no such layer")


def test_no_result_is_written_after_its_folder_was_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(train_group, "BEAT_EVERY", 60.0)
    late = heart(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    late.end(GroupResult())
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("why", ["orphaned", "stopped"])
def test_a_worker_exits_when_its_owner_or_its_folder_is_gone(tmp_path, monkeypatch, why):
    codes = queue.Queue()
    monkeypatch.setattr(os, "_exit", codes.put)
    beating = heart(tmp_path / "a", -1 if why == "orphaned" else None)
    if why == "stopped":
        shutil.rmtree(tmp_path / "a")
    assert codes.get(timeout=10) == 1
    beating.end(GroupResult())


def losses(value=1.0, names=("code", "manual", "other_code"), **tasks):
    return Losses(1, dict.fromkeys(names, value), dict.fromkeys(names, value), tasks)


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        (losses(1e100), "finished", None),
        (losses(-1.1e100), "diverged", "the proxy reports a loss that is not finite"),
        (
            losses(**{"task/x/accuracy": 0.5}),
            "failed",
            "the proxy's metrics are not those of the corpus's tasks:"
            " 'task/next_line/bits_per_byte', 'task/x/accuracy'",
        ),
    ],
)
def test_a_result_is_validated(corpus, found, status, reason):
    curve = (losses(2.0), losses(float("nan")))
    result = TrialResult("a", "finished", 9, 5, 0.1, found, curve)
    kept = validated(result, corpus)
    assert (kept.status, kept.reason) == (status, reason)
    assert kept.losses == (found if status == "finished" else None)
    assert kept.curve == (() if status == "failed" else curve[:1])
    stopped = replace(result, status="failed", losses=None, curve=(), reason="too slow")
    assert validated(stopped, corpus) == stopped
    odd = replace(stopped, reason="too\nslow\udcff")
    assert validated(odd, corpus).reason == r"too\nslow\udcff"


def of_cause(cause):
    error = ValueError("no layer")
    error.__cause__ = cause
    return error


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OutOfMemoryError("no room"), "memory"),
        (of_cause(MemoryError()), "memory"),
        (RuntimeError("CUDA error: Out of Memory"), "memory"),
        (RuntimeError("no such layer"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_short_memory_is_told_from_other_errors(error, fault):
    assert failure(error).fault == fault


def test_a_log_is_beside_the_work_and_its_last_line_is_told(tmp_path):
    folder, log = tmp_path / "work" / "a.1", tmp_path / "logs" / "a.1.log"
    assert log_hint(folder) == "it left no log: do all nodes see the run directory?"
    log.parent.mkdir()
    log.write_text("\n \n")
    assert log_hint(folder) == f"see {log}"
    log.write_text(f"{'x' * 20_000}\nfirst\r last {'y' * 400}\n\n")
    assert log_hint(folder) == f"a.1.log ends with {'last ' + 'y' * 295!r}"
