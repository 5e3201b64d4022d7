"""Steps in odd places: a full or read-only disk, a clock set back, another owner at work."""

import os
import subprocess
import time

import pytest
from fault_runs import mixopt, results

WRITING = ("prepare", "sweep", "fit", "propose", "validate", "report")


def one_line(ended, *said):
    """Check that a command exited with 2, and its last line."""
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("mixopt: ")
    for words in said:
        assert words in ended.stderr.splitlines()[-1]


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("step", WRITING)
def test_a_step_on_a_full_disk_is_one_line_and_is_done_when_there_is_room(whole, disk, step):
    run = whole.before(step, disk / "run")
    before = results(run)
    _fill(disk)
    args = (step, whole.config, "--out", run)
    one_line(mixopt(*args), str(run), "No space left on device")
    assert {name: content for name, content in results(run).items() if name in before} == before
    (disk / "full").unlink()
    assert mixopt(*args).returncode == 0
    assert results(run) == results(whole.after(step))


def _fill(disk):
    with (disk / "full").open("wb", buffering=0) as stream:
        try:
            while stream.write(b"x" * 4096):
                pass
        except OSError:
            return


@pytest.mark.parametrize("step", WRITING)
def test_a_directory_that_is_only_read_is_one_line(whole, disk, step):
    run = whole.before(step, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    one_line(mixopt("run", whole.config, "--out", run, "--until", step), "Read-only file system")


@pytest.mark.parametrize("hours", [-24 * 365, 24 * 365])
def test_a_clock_that_was_set_back_or_forth_changes_nothing(whole, tmp_path, hours):
    run = whole.before("fit", tmp_path / "run")
    there = time.time() + hours * 3600
    for path in [run, *run.rglob("*")]:
        os.utime(path, (there, there))
    assert mixopt("status", run).returncode == 0
    assert mixopt("run", whole.config, "--out", run, "--until", "fit").returncode == 0
    assert results(run) == results(whole.after("fit"))
