"""A worker that stops, dies or hangs costs its own training only; status says what a sweep does."""

import json
import re
import time

import pytest
from fault_runs import mixopt
from work_runs import faulty_job, noted, trials_named

from mixopt.config import SweepConfig
from mixopt.sweeps import read_progress, run_trials


def swept(folder, corpus, said, *, patience=600.0, **options):
    """Train six trials, a to f, by a faulty proxy and one worker; return the results in order."""
    job, trials = faulty_job(folder, corpus.path, **options), trials_named(*"abcdef")
    sweep = SweepConfig(workers=1, patience=patience)
    return run_trials(trials, job, folder / "trials", sweep=sweep, say=said.append)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """The results of a sweep in which nothing goes wrong."""
    return swept(tmp_path_factory.mktemp("undisturbed"), corpus, [])


def test_a_stopped_worker_is_replaced_within_patience(corpus, undisturbed, tmp_path):
    said, patience = [], 1.5
    assert swept(tmp_path, corpus, said, fault="stop", at="c", patience=patience) == undisturbed
    log = tmp_path / "trained.log"
    assert sorted(noted(log, "ended")) == ["a,b", "c,d", "e,f"]
    lines = log.read_text().splitlines()
    first, second = (float(line.split()[1]) for line in lines if re.match("began .* c,d", line))
    # A second for the new worker's start, on a busy machine several.
    assert patience <= second - first < patience + 6
    assert "retrying c and 1 more" in said[0]
    assert "made no progress for 1." in said[0]


@pytest.mark.parametrize("fault", ["hang", "sleep"])
def test_a_worker_whose_heart_beats_and_nothing_moves_is_replaced(
    corpus, undisturbed, tmp_path, fault
):
    said = []
    assert swept(tmp_path, corpus, said, fault=fault, at="c", patience=1.5) == undisturbed
    assert "made no progress for 1." in said[0]
    assert "while training" in said[0]


def test_another_process_sees_what_workers_do_and_believes_nothing_of_a_killed_sweep(work_run):
    run = work_run(executor="local", size=2, seconds=6.0)
    owner, trials = run.owner(), run.path / "trials"
    run.wait_until(lambda: len([item for item in read_progress(trials) if item.done]) == 2)

    sweep = json.loads(mixopt("status", run.path, "--json").stdout)["steps"]["sweep"]
    assert (sweep["state"], sweep["trials"], sweep["failed"]) == ("running", 6, 0)
    assert sweep["ended"] + sweep["running"] <= 6
    assert sweep["running"] in (2, 4)
    assert sweep["tokens_per_second"] > 0
    assert 0 < sweep["left"] < 60
    assert {worker["doing"] for worker in sweep["workers"]} <= {"training", "starting"}
    assert sum(len(worker["trials"]) for worker in sweep["workers"]) == sweep["running"]

    owner.kill()
    owner.wait()
    assert read_progress(trials)
    sweep = json.loads(mixopt("status", run.path, "--json").stdout)["steps"]["sweep"]
    assert sweep["state"] == "interrupted"
    assert not {"workers", "running", "tokens_per_second"} & set(sweep)
    ended = run.notes("ended")
    time.sleep(7.0)
    assert run.notes("ended") == ended, "its workers have ended with it"
