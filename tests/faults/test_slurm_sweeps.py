"""A sweep on a real Slurm whose worker, node or owner is killed comes to the same table."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest
from fault_runs import KINDS, moment
from slurm_cluster import SlurmCluster, why_not
from work_runs import said

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
COUNTS = {"worker": KINDS, "node": KINDS, "owner": max(1, KINDS)}  # in the quick part, an owner
CASES = [(who, count) for who, many in COUNTS.items() for count in range(many)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The cluster, whose commands find it."""
    made = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(made.conf))
        yield made
        made.end()


@pytest.mark.parametrize(("who", "count"), CASES)
def test_a_sweep_on_slurm_whose_part_is_killed_comes_to_the_same(
    cluster, work_run, local_table, who, count
):
    run = work_run(executor="slurm", size=2, seconds=1.5)
    owner, node = run.owner(), ("n1", "n2")[count % 2]
    run.wait_for("began", 1)
    time.sleep(moment(2.5, who, count))
    try:
        if who == "owner":
            owner.kill()
            owner = run.owner()
        elif who == "node":
            cluster.kill_node(node)
        else:
            _kill_workers(cluster, node)
        said(owner)
    finally:
        if who == "node":
            cluster.start_node(node)
        cluster.wait_for_nodes()
    assert run.table() == local_table
    # A kill between a proxy's end and the result's file costs that one group.
    assert set(run.notes("ended")) == set(local_table["trial"])
    assert len(run.notes("ended")) <= len(local_table["trial"]) + 2


def _kill_workers(cluster, node: str) -> None:
    """Kill what trains on a node, and not the task that it trains for."""
    for pid in cluster.steps_of(node):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            if "mixopt.sweeps.train_group" in file.read():
                os.kill(pid, signal.SIGKILL)
