"""Tasks on any host do a sweep: killed, told to stop, racing; nothing is trained twice."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from work_runs import kill_with_workers, said

from mixopt.errors import RunError
from mixopt.pipeline import work
from mixopt.sweeps import read_attempts, trial_log, work_tasks
from mixopt.trials import TrialFolder

pytestmark = pytest.mark.nightly

TWO = ("0/2", "1/2")


def test_bare_tasks_do_a_sweep_and_its_owner_gathers_it(work_run, local_table):
    run = work_run()
    tasks = [run.task(share) for share in TWO]
    for task in tasks:
        assert ": done; " in said(task)
    assert sorted(run.notes("ended")) == sorted(local_table["trial"])
    said(run.owner("--executor", "local"))
    assert run.table() == local_table
    assert len(run.notes("ended")) == len(local_table["trial"])
    assert sum(record.finished for record in read_attempts(run.path / "trials")) == 6


def test_an_owner_and_two_tasks_do_what_this_machine_does(work_run, local_table):
    run = work_run(size=3)
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    tasks = [run.task(share, "--wait") for share in TWO]
    assert "6 trials are waiting for tasks" in said(owner)
    assert run.table() == local_table
    assert all(said(task) for task in tasks)
    assert sorted(run.notes("ended")) == sorted(local_table["trial"])
    assert {task.alive for task in work_tasks(run.path / "trials")} == {False}
    assert trial_log(run.path / "trials", "t0000").is_file()


def test_what_a_killed_task_held_is_handed_to_another(work_run, local_table):
    run = work_run(size=2, seconds=1.5)
    owner, killed = run.owner(), run.task("0/2", "--wait")
    run.wait_for("began", 2)
    kill_with_workers(killed)
    other = run.task("1/2", "--wait")
    text = said(owner)
    assert "retrying t0000" in text
    assert run.table() == local_table
    assert len(run.notes("ended")) == 6
    lost = [one for one in read_attempts(run.path / "trials") if one.outcome == "lost"]
    assert sorted(name for one in lost for name in one.trials) == ["t0000", "t0002"]
    said(other)


def test_a_task_that_is_told_to_stop_gives_back_at_once(work_run, local_table):
    run = work_run(size=2, seconds=1.5)
    first = run.task("0/2")
    run.wait_for("began", 2)
    first.terminate()
    assert ": stopped; 0 trials" in said(first, 128 + signal.SIGTERM)
    results = [
        json.loads(path.read_text()) for path in (run.path / "trials/work/results").iterdir()
    ]
    assert {one["fault"] for one in results} == {"lost"}
    assert results[0]["reason"].startswith("the task was told to stop on ")
    # Its claims are another's at once, as a second attempt.
    other = run.task("1/2")
    run.wait_for("began", 8)
    said(other)
    said(run.owner("--executor", "local"))
    assert run.table() == local_table


def test_tasks_outlive_an_owner_and_the_next_one_takes_their_work(work_run, local_table):
    run = work_run(size=2, seconds=1)
    owner, task = run.owner(), run.task("0/1", "--wait")
    run.wait_for("ended", 2)
    owner.kill()
    run.wait_for("ended", 4)
    said(run.owner())
    assert run.table() == local_table
    assert sorted(run.notes("ended")) == sorted(local_table["trial"])
    said(task)


def test_ctrl_c_cancels_the_order_and_the_tasks_stop(work_run):
    run = work_run(size=2, seconds=30)
    owner, task = run.owner(), run.task()
    run.wait_for("began", 2)
    owner.send_signal(signal.SIGINT)
    said(owner, 130)
    assert ": cancelled; 0 trials" in said(task)
    with pytest.raises(RunError, match="no trials to train now \\(trials is cancelled\\)"):
        work(run.path, trust=True)


def test_what_memory_is_too_short_for_trains_in_halves(work_run, local_table):
    run = work_run(size=6, fits=2)
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    task = run.task()
    assert "MemoryError: no room for 6 trials; retrying t0000, in halves" in said(owner)
    assert run.table() == local_table
    said(task)


def test_a_trial_that_kills_its_worker_twice_fails_with_the_reason(work_run):
    run = work_run(size=1, fault="kill", at="t0002", times=9)
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    task = run.task()
    assert "t0002 failed: tried twice: the worker ended with signal SIGKILL" in said(owner)
    assert run.table()["status"].count("finished") == 5
    said(task)


def test_another_executor_does_not_train_beside_tasks(work_run):
    run = work_run(size=1, seconds=20)
    task = run.task()
    run.wait_for("began", 1)
    text = said(run.owner("--executor", "local"), 2)
    assert "1 tasks of mixopt work are training here" in text
    assert "--executor folder or slurm, or stop them with mixopt cancel" in text
    task.terminate()
    said(task, 128 + signal.SIGTERM)


def test_a_task_whose_host_does_not_see_the_corpus_says_so_and_so_does_the_owner(work_run):
    run = work_run()
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    shutil.rmtree(run.path / "corpus")
    text = said(run.task(), 2)
    assert "mixopt: " in text
    assert "is not visible on " in text
    text = said(owner, 2)
    assert " cannot train: " in text
    assert "give --out a folder that all nodes share" in text


def test_a_task_refuses_a_corpus_that_was_prepared_again(work_run):
    run = work_run()
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    index = run.path / "corpus" / "index.json"
    index.write_text(index.read_text() + " ")
    assert "from the corpus that the sweep started with" in said(run.task(), 2)
    assert "from the corpus that the sweep started with" in said(owner, 2)


def test_code_that_the_run_names_is_not_imported_without_trust(work_run):
    run = work_run()
    process = run._start("work", run.path)
    text = said(process, 2)
    assert "names the proxy 'faulty_proxy:Faulty'" in text
    assert "add --trust" in text
    assert run.notes("began") == []


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("2/2", "K counts from 0, so the last of 2 tasks is 1/2"),
        ("0/0", "K counts from 0"),
        ("1", "expected K/N, such as 0/4"),
        ("-1/2", "expected K/N"),
        ("a/b", "expected K/N"),
    ],
)
def test_a_share_that_cannot_be_is_refused(tmp_path, share, message):
    with pytest.raises(RunError, match=message):
        work(tmp_path, share)


def test_a_folder_that_is_not_seen_is_said_with_the_host(tmp_path):
    with pytest.raises(RunError, match="nowhere: not found on .* folder that all nodes share"):
        work(tmp_path / "nowhere")


def test_a_run_without_a_design_names_the_command(work_run):
    run = work_run()
    os.remove(run.path / "design.parquet")
    with pytest.raises(RunError, match="'design' is not done yet|design.parquet: is missing"):
        work(run.path, trust=True)


def test_a_trial_that_is_forgotten_is_trained_again_and_not_gathered(work_run, local_table):
    run = work_run()
    said(run.task("0/1"))
    said(run.owner("--executor", "local"))
    TrialFolder(run.path / "trials").forget("t0000")
    (run.path / "trials.parquet").unlink()
    said(run.owner("--executor", "local"))
    assert run.table() == local_table
    assert run.notes("ended").count("t0000") == 2
