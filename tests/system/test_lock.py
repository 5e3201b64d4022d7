"""One process works in a folder at a time, is named to whoever comes second, can be interrupted.

The processes are real; that one is on another host is what it is told (support/folder_owner.py).
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import folder_owner
import pytest
from folder_owner import marker
from refusals import refuses

from mixopt.errors import RunError
from mixopt.system import interrupt, is_in_use, lock, only_one
from mixopt.system.lock import owner_of


@contextmanager
def another(folder, seconds=60, host="", shift=0, ignored=()):
    """A process that is in a folder."""
    words = [folder_owner.__file__, str(folder), str(seconds), host, str(shift), *ignored]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, *words], **pipes) as process:
        try:
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.2)
    monkeypatch.setattr(lock, "STALE", 3.0)


def enter(folder):
    with only_one(folder):
        pass


def test_a_second_process_is_told_who_the_first_is(tmp_path):
    with another(tmp_path) as process:
        who = rf"host \S+, process {process.pid}, last seen \d s"
        refuses(RunError, f"another mixopt process is running here: {who}", enter, tmp_path)
        assert is_in_use(tmp_path)


def test_a_second_host_is_told_who_the_first_is_though_its_clock_is_off_by_hours(tmp_path):
    with another(tmp_path, host="node7", shift=7200):
        refuses(RunError, r"is running here: host node7, process \d+, its clock", enter, tmp_path)
        assert is_in_use(tmp_path)
        refuses(RunError, "is in use elsewhere: host node7", interrupt, tmp_path)


@pytest.mark.parametrize("host", ["", "node7"])
def test_an_owner_that_was_killed_is_followed_on_this_host_at_once(tmp_path, host):
    with another(tmp_path, host=host) as process:
        process.kill()
        process.wait()
        assert host or not is_in_use(tmp_path)
        begun = time.monotonic()
        enter(tmp_path)
        assert host or time.monotonic() - begun < lock.STALE / 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", marker(2**31, "a")])
def test_a_lock_that_cannot_be_read_is_taken_over(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    enter(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_stopped_process_is_the_owner_and_ends_with_one_line_once_it_was_followed(tmp_path):
    with another(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        os.utime(tmp_path / ".lock", (0, 0))
        refuses(RunError, "is running here", enter, tmp_path)
        (tmp_path / ".lock").unlink()
        (tmp_path / ".lock").write_text(marker(4, "node9"))
        process.send_signal(signal.SIGCONT)
        assert "another mixopt process is running here: host node9" in process.stdout.readline()
    assert "node9" in (tmp_path / ".lock").read_text()


def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    folder.mkdir()
    (folder / ".lock").symlink_to(outside)
    assert not is_in_use(folder)
    enter(folder)
    assert not outside.exists()
    os.mkfifo(folder / ".lock")
    assert not is_in_use(folder)
    enter(folder)


def test_it_is_interrupted_as_by_ctrl_c_and_one_that_ignores_all_signals_is_an_error(
    tmp_path, monkeypatch
):
    with another(tmp_path) as process:
        assert owner_of(tmp_path).pid == process.pid
        assert interrupt(tmp_path).pid == process.pid
        assert process.wait(5) != 0
    assert owner_of(tmp_path) is None
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    with another(tmp_path, ignored=("SIGINT", "SIGTERM")) as process:
        message = f"process {process.pid} is still running after it was interrupted"
        refuses(RunError, message, interrupt, tmp_path)


def test_one_of_many_simultaneous_processes_gets_the_lock(tmp_path):
    command = [sys.executable, folder_owner.__file__, str(tmp_path), "4"]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate()[0] for process in several]
    assert answers.count("in\n") == 1, answers


def test_without_proc_the_process_named_in_a_lock_owns_it(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text(marker(os.getppid(), lock._this_host()))
    assert not is_in_use(tmp_path), "the process does not have it open"
    assert interrupt(tmp_path) is None
    monkeypatch.setattr(Path, "iterdir", lambda path: os.scandir("/none"))
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    assert is_in_use(tmp_path)
