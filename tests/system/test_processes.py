"""This machine: cores, processes, and work in other processes."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refusals import refuses

from mixopt.errors import RunError
from mixopt.system import in_processes, is_running, start_of, usable_cores, within, without_folders
from mixopt.system.processes import process_space


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("350000 100000", 3), ("99999 100000", 1), ("max 100000", 8), ("900000 100000", 8)],
)
def test_a_containers_limit_counts(monkeypatch, limit, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: limit)
    assert usable_cores() == cores


def test_a_process_with_another_start_or_an_end_is_not_running():
    assert is_running(os.getpid())
    assert is_running(os.getpid(), start_of(os.getpid()))
    assert not is_running(os.getpid(), "1")
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        process.stdout.read()
        while is_running(process.pid):
            time.sleep(0.01)
        assert start_of(process.pid) is None, "nobody has waited for it yet"


def test_a_system_without_proc_has_cores_and_tells_whether_a_process_is_there(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(Path, "read_text", absent := lambda *_, **__: os.stat("/none"))
    monkeypatch.setattr(os, "readlink", absent)
    assert usable_cores() == 6
    assert process_space() == ""
    assert start_of(os.getpid()) is None
    assert is_running(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not is_running(process.pid)


def test_a_missed_deadline_names_the_call_and_an_error_is_raised_again():
    assert within("Ray", lambda: 7) == 7
    refuses(RunError, r"^Ray: no answer in 0\.05 s$", within, "Ray", lambda: time.sleep(1), 0.05)
    with pytest.raises(KeyError):
        within("Ray", lambda: {}["a"])


def test_folders_of_paths_are_left_out_and_addresses_stay():
    assert without_folders("cannot read /home/me/a b.txt") == "cannot read …/a b.txt"
    assert without_folders("file:///x/y.bin, ~/z/w") == "…/y.bin, …/w"
    assert without_folders(r"C:\Users\me\a.txt") == "…/a.txt"
    address = "https://host/a/b and web/science"
    assert without_folders(address) == address


def died(job):
    return RunError(f"{job}: a process died")


def test_jobs_are_done_in_other_processes_in_their_order_and_one_that_dies_is_named():
    assert not list(in_processes(math.sqrt, [], 2, died=died))
    assert list(in_processes(math.sqrt, [4.0, 9.0, 16.0], 2, died=died)) == [2.0, 3.0, 4.0]
    refuses(ValueError, "domain", list, in_processes(math.sqrt, [-1.0], 1, died=died))
    refuses(RunError, "^3: a process died$", list, in_processes(os._exit, [3, 3], 2, died=died))
