"""`mixopt stop`: the owner is interrupted, its executor's work is stopped, results stay."""

import json
import os
import subprocess
import sys
import time
from collections import Counter

import pytest
from command_line import mixopt
from folder_owner import marker

from mixopt import run
from mixopt.sweeps import read_progress, trial_paths
from mixopt.system import lock


@pytest.fixture
def slow(experiment, tmp_path):
    """An experiment whose sweep takes some seconds; the proxy notes what it trains."""
    head, _, rest = experiment.partition("proxy:")
    options = {"log": str(tmp_path / "trained.log"), "size": 2, "seconds": 2.0}
    proxy = {"name": "faulty_proxy:Faulty", "tokens": 20000, "options": options}
    config = tmp_path / "slow.yaml"
    config.write_text(f"{head}proxy: {json.dumps(proxy)}\nsweep:{rest.partition('sweep:')[2]}")
    return config


def started(config, path):
    """Start a sweep in a process of its own, and wait until it trains."""
    command = [sys.executable, "-m", "mixopt", "run", str(config), "--out", str(path)]
    command += ["--until", "sweep"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 60
    while not any(worker.done for worker in read_progress(path / "trials")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


@pytest.fixture
def prepared(slow, tmp_path):
    run(slow, tmp_path / "run", until="design")
    return slow, tmp_path / "run"


def submitted(prepared, queue):
    """Leave a group without a result, as an owner that was killed does; return the directory."""
    config, path = prepared
    sweep = f"sweep: {{executor: 'one_by_one:Outliving', options: {{queue: {queue}}}, workers: 2}}"
    config.write_text(config.read_text().replace("sweep: {workers: 2}", sweep))
    run(config, path, until="prepare")
    folder = path / "trials" / "work" / "t0000-0123.0"
    folder.mkdir(parents=True)
    (folder / "handle").write_text("job 12")
    return path


@pytest.mark.nightly
def test_a_sweep_that_runs_here_is_interrupted_and_resumes(prepared, tmp_path):
    config, path = prepared
    process = started(config, path)
    ended = mixopt("stop", path)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert said.endswith("interrupted; the same command resumes\n")
    assert ended.code == 0
    first, second = ended.out.splitlines()
    assert first == f"interrupted process {process.pid} on {os.uname().nodename}"
    assert second.startswith("finished trials are kept; to resume: mixopt run ")
    done = {trial.stem for trial in trial_paths(path / "trials")}
    sizes = (path / "trials" / "group_size.json").read_text()
    assert mixopt("stop", path).out == f"{path}: nothing is running\n"
    resumed = started(config, path)
    resumed.communicate(timeout=60)
    assert resumed.returncode == 0
    assert len(trial_paths(path / "trials")) == 12
    lines = (tmp_path / "trained.log").read_text().splitlines()
    groups = Counter(line.split()[2] for line in lines if line.startswith("ended"))
    trained = Counter(name for names in groups.elements() for name in names.split(","))
    assert {trained[name] for name in done} <= {1}
    assert len(groups) == 6
    assert (path / "trials" / "group_size.json").read_text() == sizes
    assert json.loads(sizes) == 2


def test_a_sweep_that_an_executor_submitted_is_stopped_there_too(prepared):
    path = submitted(prepared, "long")
    ended = mixopt("stop", path)
    assert ended.code == 1
    assert "add --trust to stop them" in ended.out
    assert not (path / "trials" / "cancelled").exists()
    ended = mixopt("stop", path, "--trust")
    assert ended.out.splitlines()[0] == "one_by_one:Outliving: 1 groups were stopped"
    assert (path / "trials" / "cancelled").read_text() == "job 12"
    assert not list((path / "trials" / "work").iterdir())


def test_jobs_that_cannot_be_stopped_give_exit_code_1(prepared):
    path = submitted(prepared, "broken")
    ended = mixopt("stop", path, "--trust", "--json")
    left = ["one_by_one:Outliving: scancel: job 12 is not yours"]
    answer = {"path": str(path), "stopped": [], "left": left}
    assert (ended.code, json.loads(ended.out)) == (1, answer)
    (path / ".lock").write_text(marker(4, "n7"))
    first, second = mixopt("stop", path, "--trust").out.splitlines()
    assert first.startswith(f"still running: {path}: is in use elsewhere: host n7, process 4")
    assert first.endswith("; interrupt it there")
    assert second == f"still running: {left[0]}"


def test_a_process_that_the_directory_only_names_is_left_alone(prepared):
    _, path = prepared
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        (path / ".lock").write_text(marker(other.pid, lock._this_host(), lock.start_of(other.pid)))
        assert mixopt("stop", path).out == f"{path}: nothing is running\n"
        assert other.poll() is None
        other.kill()
