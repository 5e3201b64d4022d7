"""What a real cluster of Ray still does for an owner that was killed is seen, and ended."""

import json
import signal
import subprocess
import sys
import time

import pytest

from mixopt.sweeps import RayExecutor, cancel_submitted, going_on
from mixopt.testing import tiny_corpus

OWNER = """
import json, sys
from pathlib import Path
from mixopt.mixture import Mixture
from mixopt.sweeps import Job, Means, run_trials
from mixopt.trials import Training, Trial
told = json.loads(sys.argv[1])
proxy = "mixopt.testing._executor_proxy:CheckedProxy"
training = Training(1000, device="cpu", eval_tokens=1000)
job = Job(proxy, {"log": told["log"], "size": 1}, Path(told["corpus"]), training)
trials = [Trial(f"slow_{n}", Mixture({"code": 1.0, "manual": 0.0}), seed=n) for n in range(3)]
means = Means("ray", {"address": told["address"]}, workers=2)
run_trials(trials, job, Path(told["folder"]), means=means, title="sweep")
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    ray_nodes = pytest.importorskip("ray_nodes")
    cluster = ray_nodes.started(tmp_path_factory.mktemp("nodes"))
    yield cluster
    ray_nodes.ended(cluster)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_desk_of_a_killed_owner_is_seen_and_ended(nodes, tmp_path):
    options, folder = {"address": nodes.address}, tmp_path / "trials"
    assert going_on("ray", options, folder) == []
    assert cancel_submitted("ray", options, folder) == []
    tiny_corpus(tmp_path / "corpus")
    (tmp_path / "log").mkdir()
    told = {"address": nodes.address, "folder": str(folder), "log": str(tmp_path / "log")}
    told["corpus"] = str(tmp_path / "corpus")
    owner = subprocess.Popen([sys.executable, "-c", OWNER, json.dumps(told)])
    until = time.monotonic() + 120
    while not list((tmp_path / "log").glob("*.json")):
        assert owner.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    found = going_on("ray", options, folder)
    assert sorted(name for group in found for name in group.trials) == [
        "slow_0",
        "slow_1",
        "slow_2",
    ]
    assert {"n1", "n2"} & {group.node for group in found}
    assert {group.doing for group in found} <= {"starting", "training"}
    said = cancel_submitted("ray", options, folder)
    assert said == ["Ray: the desk of the sweep and its workers were ended"]
    assert RayExecutor.going_on(folder, options) == []
