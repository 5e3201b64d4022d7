"""`mixopt status` says from another process, by files, what a sweep does."""

import json
import time

from fault_runs import mixopt

from mixopt.sweeps import read_progress


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
