"""A sweep on Ray whose worker, node or owner is killed comes to the same, and is done by one more.

Each is killed at a moment that a seed draws, MIXOPT_FAULTS times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fault_runs import KINDS, moment, variables
from ray_nodes import QUIET, ended, started

from mixopt.config import SweepConfig
from mixopt.corpus import corpus_hash
from mixopt.mixture import Mixture
from mixopt.sweeps import Job, run_trials
from mixopt.trials import Training, Trial

pytestmark = QUIET
COUNTS = range(max(KINDS, 1))
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
        return run_trials(trials, job, self.folder, sweep=means, say=self.said.append)

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
        results = sweep(SweepConfig(workers=2))
    return results, sweep.ended()


@pytest.mark.parametrize("count", COUNTS)
def test_an_owner_that_is_killed_is_followed_by_one_that_trains_nothing_twice(
    nodes, sweep, wanted, faults_corpus, count
):
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_killed_ray_sweeps import RaySweep
        from mixopt.config import SweepConfig
        sweep = RaySweep(Path({str(sweep.folder.parent)!r}), Path({str(faults_corpus)!r}))
        sweep(SweepConfig(executor="ray", options={{"address": {nodes.address!r}}}))
    """)
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=variables({})
    )
    sweep.wait_for("began", owner)
    time.sleep(moment(TRIALS / 4 * SECONDS, "owner", count))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()

    assert sweep(SweepConfig(executor="ray", options={"address": nodes.address})) == wanted[0]
    assert sweep.ended() == wanted[1]
