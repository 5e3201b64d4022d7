"""Tasks, their workers and their owner are killed at any moment: the table is the same.

A folder that all hosts see is here one of this machine: what a host is to the others is its
processes' names, which is what a task of another host is watched by.
"""

from __future__ import annotations

import os
import signal
import time

import pytest
from fault_runs import KINDS, moment
from work_runs import kill_with_workers, said

WHO = ("worker", "task", "owner")
CASES = [(who, count) for who in WHO for count in range(max(1, KINDS))]


@pytest.mark.parametrize(("who", "count"), CASES)
def test_a_sweep_whose_part_is_killed_comes_to_the_same(work_run, local_table, who, count):
    run = work_run(size=2, seconds=1.5)
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    tasks = [run.task(share, "--wait") for share in ("0/2", "1/2")]
    run.wait_for("began", 1)
    time.sleep(moment(2.5, who, count))
    written = [path.name.split(".")[0] for path in (run.path / "trials/work/results").glob("t*")]
    if who == "owner":
        owner.kill()
        owner = run.owner()
    elif who == "task":
        kill_with_workers(tasks[count % 2])
    else:
        _kill_a_worker(tasks[count % 2].pid)
    said(owner)
    assert run.table() == local_table
    # What had a result was not trained again. A kill between a proxy's end and the result's file
    # costs that one group.
    ended = run.notes("ended")
    assert [name for name in written if ended.count(name) > 1] == []
    assert len(ended) <= len(local_table["trial"]) + 2


def _kill_a_worker(parent: int) -> None:
    children = f"/proc/{parent}/task/{parent}/children"
    with open(children, encoding="utf-8") as file:
        for pid in file.read().split():
            os.kill(int(pid), signal.SIGKILL)


def test_a_task_of_a_host_that_went_away_is_lost_after_a_while(work_run, local_table):
    """A stopped process of another host is as good as one that is gone."""
    run = work_run(size=2, seconds=1.5)
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    far = run.far_task("0/2", "--wait")
    run.wait_for("began", 2)
    kill_with_workers(far)
    other = run.task("1/2", "--wait")
    text = said(owner)
    assert "the task on far is gone" in text
    assert run.table() == local_table
    said(other)


def test_a_sweep_that_was_begun_in_groups_here_goes_on_in_tasks(work_run, local_table):
    run = work_run(size=3, seconds=2)
    owner = run.owner("--executor", "local", "--set", "sweep.workers=1")
    run.wait_for("began", 3)
    owner.kill()
    owner = run.owner()
    run.wait_until((run.path / "trials/work/order.json").exists)
    task = run.task()
    said(owner)
    assert run.table() == local_table
    said(task)
