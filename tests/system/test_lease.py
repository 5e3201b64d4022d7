"""Where a file system has no locks, one process still works in a folder at a time.

The processes are real; that there are no locks, and that a process is on another host, is what they
are told (tests/support/lockless.py).
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import lockless
import pytest

from mixopt.errors import RunError
from mixopt.system import is_in_use, lease, only_one

NAME = ".lock.lease"


@contextmanager
def another(folder, seconds=60, host="", shift=0):
    """A process that is in a folder without locks."""
    command = [sys.executable, lockless.__file__, str(folder), str(seconds), host, str(shift)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def without_locks(monkeypatch):
    monkeypatch.setattr("fcntl.flock", lockless.no_locks)
    monkeypatch.setattr(lease, "BEAT", 0.2)
    monkeypatch.setattr(lease, "WATCH", 2.0)
    monkeypatch.setattr(lease, "STALE", 3.0)


def rewrite(folder, **fields):
    """Change what a lease says; its file is made anew, as its owner would renew this one."""
    path = folder / NAME
    content = json.loads(path.read_text()) | fields
    path.unlink()
    path.write_text(json.dumps(content))


def enter(folder):
    with only_one(folder):
        pass


@pytest.mark.usefixtures("without_locks")
def test_a_second_process_is_told_who_the_first_is(tmp_path):
    with another(tmp_path) as process:
        who = rf"host \S+, process {process.pid}, last seen 0 s"
        message = f"another mixopt process is running here: {who}"
        with pytest.raises(RunError, match=message):
            enter(tmp_path)
        assert is_in_use(tmp_path)


@pytest.mark.usefixtures("without_locks")
def test_a_second_host_is_told_who_the_first_is(tmp_path):
    with another(tmp_path, host="node7"):
        with pytest.raises(RunError, match=r"is running here: host node7, process \d+, last seen"):
            enter(tmp_path)
        assert is_in_use(tmp_path)


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("shift", [-7200, 7200])
def test_an_owner_whose_clock_is_off_by_hours_is_alive_while_its_count_moves(tmp_path, shift):
    with another(tmp_path, host="node7", shift=shift), pytest.raises(RunError, match="node7"):
        enter(tmp_path)


@pytest.mark.usefixtures("without_locks")
def test_a_process_of_this_host_that_was_killed_is_followed_at_once(tmp_path):
    with another(tmp_path) as process:
        process.kill()
        process.wait()
        assert not is_in_use(tmp_path)
        begun = time.monotonic()
        enter(tmp_path)
        assert time.monotonic() - begun < lease.WATCH


@pytest.mark.usefixtures("without_locks")
def test_a_stopped_process_of_this_host_is_still_the_owner(tmp_path):
    with another(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        rewrite(tmp_path, seen=time.time() - 3600)
        with pytest.raises(RunError, match="is running here"):
            enter(tmp_path)


@pytest.mark.usefixtures("without_locks")
def test_a_number_that_was_given_to_another_process_is_no_owner(tmp_path):
    with another(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        rewrite(tmp_path, started="1")
        enter(tmp_path)


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("shift", [-3600, 0, 3600])
def test_an_owner_on_a_host_that_is_gone_is_followed_whatever_its_clock_said(tmp_path, shift):
    with another(tmp_path, host="node7", shift=shift) as process:
        process.kill()
        process.wait()
        enter(tmp_path)
    assert not (tmp_path / NAME).exists()


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "9" * 5000])
def test_a_lease_that_cannot_be_read_is_taken_over(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    enter(tmp_path)
    assert not (tmp_path / NAME).exists()


@pytest.mark.usefixtures("without_locks")
def test_an_owner_that_was_followed_while_it_stood_still_ends_with_one_line(tmp_path):
    with another(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        rewrite(tmp_path, host="node9", token="another")
        process.send_signal(signal.SIGCONT)
        assert "another mixopt process is running here: host node9" in process.stdout.readline()
    assert json.loads((tmp_path / NAME).read_text())["host"] == "node9"


@pytest.mark.usefixtures("without_locks")
def test_of_many_that_come_at_once_one_is_let_in(tmp_path):
    command = [sys.executable, lockless.__file__, str(tmp_path), "6"]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    answers = [process.communicate()[0] for process in several]
    assert answers.count("in\n") == 1, answers


def test_where_locks_work_the_message_says_who_too(tmp_path):
    code = "import sys; from pathlib import Path; from mixopt.system import only_one\n"
    code += "with only_one(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.readline()
        with pytest.raises(RunError, match=rf"host \S+, process {process.pid}, last seen"):
            enter(tmp_path)
        process.stdin.close()


def test_an_owner_on_a_host_that_does_not_see_the_lock_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 3.0)
    with another(tmp_path, host="node7"), pytest.raises(RunError, match="host node7"):
        enter(tmp_path)


@pytest.mark.parametrize("name", [".lock", NAME])
def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path, name):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    folder.mkdir()
    (folder / name).symlink_to(outside)
    assert not is_in_use(folder)
    with pytest.raises(RunError, match="cannot be written|is running here"):
        enter(folder)
    assert not outside.exists()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert not is_in_use(folder)
    enter(folder)


def test_the_folder_is_left_as_it_was(tmp_path):
    with only_one(tmp_path):
        assert is_in_use(tmp_path)
    assert os.listdir(tmp_path) == [".lock"]
    assert Path(tmp_path, ".lock").stat().st_size == 0
    assert not is_in_use(tmp_path)


def test_a_folder_in_place_of_a_lease_names_no_owner(tmp_path):
    (tmp_path / NAME).mkdir()
    assert not is_in_use(tmp_path)
    with pytest.raises(RunError, match=f"{NAME}: cannot be written"), only_one(tmp_path):
        pass
