"""`mixopt status` says from another process, by files, what a sweep does."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from places import SUPPORT

from mixopt.pipeline import status
from mixopt.run_directory import load_run
from mixopt.sweeps import read_progress

SLOW = """\
proxy:
  name: faulty_proxy:Faulty
  tokens: 20000
  options: {{log: {log}, size: 2, seconds: 6.0}}
"""


def mixopt(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "mixopt", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def running(experiment, tmp_path_factory):
    """A run that trains the trials of its sweep, slowly, and is killed at the end."""
    folder = tmp_path_factory.mktemp("running")
    lines = experiment.partition("proxy:")
    rest = lines[2].partition("sweep:")
    config = folder / "slow.yaml"
    slow = SLOW.format(log=folder / "trained.log")
    config.write_text(f"{lines[0]}{slow}sweep:{rest[2]}", encoding="utf-8")
    process = mixopt("run", config, "--out", folder / "run", start_new_session=True)
    deadline = time.monotonic() + 60
    while not trains(folder / "run"):
        assert process.poll() is None, "the run ended before it could be looked at"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process, folder / "run"
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def trains(path) -> bool:
    return len([worker for worker in read_progress(path / "trials") if worker.done]) == 2


def test_another_process_sees_what_is_done_and_what_each_worker_does(running):
    _, path = running
    asked = mixopt("status", path, "--json")
    sweep = json.loads(asked.communicate()[0])["steps"]["sweep"]
    assert sweep["state"] == "running"
    assert (sweep["trials"], sweep["failed"]) == (12, 0)
    assert sweep["ended"] + sweep["running"] <= 12
    assert sweep["running"] in (2, 4)
    assert sweep["tokens_per_second"] > 0
    assert 0 < sweep["left"] < 60
    assert {worker["doing"] for worker in sweep["workers"]} <= {"training", "starting"}
    assert sum(len(worker["trials"]) for worker in sweep["workers"]) == sweep["running"]


def test_what_a_killed_sweep_left_is_not_believed(running):
    process, path = running
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert read_progress(path / "trials")
    sweep = status(load_run(path))["steps"]["sweep"]
    assert sweep["state"] == "interrupted"
    assert not {"workers", "running", "tokens_per_second"} & set(sweep)
