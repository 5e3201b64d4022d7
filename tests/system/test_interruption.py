"""The process that works in a folder is interrupted; one that does not listen is terminated."""

import signal
import subprocess
import sys

import pytest

from mixopt.errors import RunError
from mixopt.system import interrupt
from mixopt.system.interruption import worker_of

WORKER = """
import signal, sys, time
from pathlib import Path
from mixopt.system import only_one
for name in sys.argv[2:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
with only_one(Path(sys.argv[1])):
    print("works", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path):
    processes = []

    def start(*ignored):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), *ignored],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout.readline() == b"works\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_is_interrupted_as_by_ctrl_c(worker, tmp_path):
    process = worker()
    assert worker_of(tmp_path).pid == process.pid
    assert interrupt(tmp_path).pid == process.pid
    assert process.wait(5) != 0
    assert worker_of(tmp_path) is None


def test_one_that_ignores_that_is_terminated(worker, tmp_path):
    process = worker("SIGINT")
    assert interrupt(tmp_path, patience=0.5).pid == process.pid
    assert process.wait(5) == -signal.SIGTERM


def test_one_that_ignores_both_is_an_error(worker, tmp_path):
    process = worker("SIGINT", "SIGTERM")
    with pytest.raises(
        RunError, match=f"process {process.pid} is still running after it was interrupted"
    ):
        interrupt(tmp_path, patience=0.3)


def test_nobody_is_nobody(tmp_path):
    assert interrupt(tmp_path) is None


def test_who_holds_a_folder_without_a_name_is_left(worker, tmp_path):
    process = worker()
    (tmp_path / ".lock.lease").write_text("{}")
    with pytest.raises(RunError, match="another process works here, but its owner is not recorded"):
        interrupt(tmp_path)
    assert process.poll() is None
