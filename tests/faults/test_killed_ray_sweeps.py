"""A sweep on Ray whose worker, node or owner is killed comes to the same, and is done by one more.

Each is killed at a moment that a seed draws, MIXOPT_FAULTS times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fault_runs import KINDS, moment, variables
from ray_nodes import QUIET, ended, started

from mixopt.corpus import corpus_hash
from mixopt.mixture import Mixture
from mixopt.sweeps import Job, Means, read_attempts, run_trials
from mixopt.trials import Training, Trial

pytestmark = QUIET
COUNTS = range(max(KINDS, 1))
OFTEN = range(KINDS)  # in the quick part, a node and an owner are enough
TRIALS, SECONDS = 12, 2.0  # of one group of two


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    cluster = started(tmp_path_factory.mktemp("nodes"))
    yield cluster
    ended(cluster)


class RaySweep:
    """Twelve trials of a proxy that notes what it does."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.folder, self._corpus, self.log = folder / "trials", corpus, folder / "trained.log"
        self.said: list[str] = []

    def __call__(self, means):
        """Run it, and return the results."""
        options = {"log": str(self.log), "seconds": SECONDS}
        training = Training(1000, device="cpu")
        job = Job("faulty_proxy:Faulty", options, self._corpus, training, corpus_hash(self._corpus))
        trials = [
            Trial(f"t{n:02}", Mixture({"code": n / TRIALS, "prose": 1 - n / TRIALS}), seed=n)
            for n in range(TRIALS)
        ]
        return run_trials(trials, job, self.folder, means=means, say=self.said.append)

    def ended(self) -> list[str]:
        """Return the trials that were trained to the end, as often as they were."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        groups = [line.split()[2] for line in lines if line.startswith("ended")]
        return sorted(name for group in groups for name in group.split(","))

    def wait_for(self, what: str, owner: subprocess.Popen | None = None) -> None:
        """Wait until something was noted, as long as its owner lives."""
        while not (self.log.exists() and what in self.log.read_text()):
            assert owner is None or owner.poll() is None, "the owner ended before it began"
            time.sleep(0.05)


@pytest.fixture
def sweep(faults_corpus, tmp_path):
    return RaySweep(tmp_path, faults_corpus)


@pytest.fixture(scope="module")
def wanted(faults_corpus, tmp_path_factory):
    """The results of the same sweep on this machine, and the trials that it trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
        sweep = RaySweep(tmp_path_factory.mktemp("wanted"), faults_corpus)
        results = sweep(Means(workers=2))
    return results, sweep.ended()


def later(sweep, seconds, act):
    """Do something some time after the first group has begun."""

    def wait_and_act():
        sweep.wait_for("began")
        time.sleep(seconds)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def processes(title):
    """Return the processes whose command line has some text."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if any(title in part for part in process.info["cmdline"] or []):
                found.append(process)
    return found


@pytest.mark.parametrize("count", OFTEN)
def test_a_worker_that_is_killed_changes_no_table(nodes, sweep, wanted, count):
    def kill():
        workers = processes("mixopt.sweeps.train_group")
        workers[count % len(workers)].kill()

    killer = later(sweep, moment(2 * SECONDS, "worker", count), kill)
    assert sweep(Means("ray", {"address": nodes.address})) == wanted[0]
    killer.join()
    assert any("SIGKILL" in line for line in sweep.said)


@pytest.mark.parametrize("count", OFTEN)
def test_a_task_that_is_killed_is_counted_as_lost(nodes, sweep, wanted, count):
    """Ray's own process, in which the place is."""

    def kill():
        _both_train(sweep)
        time.sleep(moment(SECONDS / 2, "place", count))
        places = processes("ray::train_on_node")
        places[count % len(places)].kill()

    killer = later(sweep, 0, kill)
    assert sweep(Means("ray", {"address": nodes.address})) == wanted[0]
    killer.join()
    assert [a.outcome for a in read_attempts(sweep.folder)].count("lost") == 1


@pytest.mark.parametrize("count", COUNTS)
def test_a_node_that_is_killed_changes_no_table_and_is_counted_as_lost(nodes, sweep, wanted, count):
    with ThreadPoolExecutor(1) as pool:  # Ray starts nodes in the main thread alone
        swept = pool.submit(sweep, Means("ray", {"address": nodes.address}))
        _both_train(sweep, swept.done)
        time.sleep(moment(SECONDS / 2, "node", count))
        nodes.kill(nodes.last)
        nodes.last = nodes.add()
        assert swept.result() == wanted[0]
    lost = [attempt for attempt in read_attempts(sweep.folder) if attempt.outcome == "lost"]
    assert len(lost) == 1
    assert lost[0].node != "n1"
    assert "retrying" in " ".join(sweep.said)


def _both_train(sweep, is_over=lambda: False):
    """Wait until two groups train at once, as long as the sweep goes on."""
    while not is_over():
        lines = sweep.log.read_text().splitlines() if sweep.log.exists() else []
        began = sum(line.startswith("began") for line in lines)
        if began - sum(line.startswith("ended") for line in lines) > 1:
            return
        time.sleep(0.05)
    pytest.fail("the sweep ended before two groups had trained at once")


@pytest.mark.parametrize("count", COUNTS)
def test_an_owner_that_is_killed_is_followed_by_one_that_trains_nothing_twice(
    nodes, sweep, wanted, faults_corpus, count
):
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_killed_ray_sweeps import RaySweep
        from mixopt.sweeps import Means
        sweep = RaySweep(Path({str(sweep.folder.parent)!r}), Path({str(faults_corpus)!r}))
        sweep(Means("ray", {{"address": {nodes.address!r}}}))
    """)
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=variables({})
    )
    sweep.wait_for("began", owner)
    time.sleep(moment(TRIALS / 4 * SECONDS, "owner", count))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()

    assert sweep(Means("ray", {"address": nodes.address})) == wanted[0]
    assert sweep.ended() == wanted[1]
