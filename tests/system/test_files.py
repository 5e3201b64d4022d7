"""A file is the old one or the new one; what a dead process left half-written is removed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixopt.errors import RunError
from mixopt.system import only_one, read_json, replacing, write_json, write_new

WRITES = """
import sys, time
from pathlib import Path
from mixopt.system import replacing, temporary_path
folder = Path(sys.argv[1])
temporary_path(folder / "corpus" / "web" / "train").mkdir(parents=True)
with replacing(folder / "trials.parquet"):
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of a write."""
    command = [sys.executable, "-c", WRITES, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield process
        process.kill()


def left(folder):
    return sorted(path for path in folder.rglob("*.tmp"))


def test_what_a_living_process_writes_stays_until_it_is_killed(tmp_path, writer):
    with only_one(tmp_path):
        assert len(left(tmp_path)) == 2
    writer.kill()
    writer.wait()
    assert len(left(tmp_path)) == 2
    with only_one(tmp_path):
        assert not left(tmp_path)


def test_what_another_host_left_is_removed_after_an_hour(tmp_path):
    young, old = (tmp_path / f".fit.json.00000000-12-0000000{k}.tmp" for k in range(2))
    for path, hours in ((young, 0.5), (old, 2)):
        path.touch()
        os.utime(path, (time.time() - hours * 3600,) * 2)
    with only_one(tmp_path):
        assert left(tmp_path) == [young]


def test_what_lies_behind_a_link_stays(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    (outside / ".a.tmp").mkdir(parents=True)
    folder.mkdir()
    (folder / "linked").symlink_to(outside)
    (folder / ".b.tmp").symlink_to(outside)
    os.utime(outside / ".a.tmp", (0, 0))
    os.utime(folder / ".b.tmp", (0, 0), follow_symlinks=False)
    with only_one(folder):
        assert not (folder / ".b.tmp").is_symlink()
    assert (outside / ".a.tmp").exists()


def test_a_write_that_fails_leaves_the_old_file_and_a_new_file_is_made_once(tmp_path):
    path = tmp_path / "table.json"
    write_json(path, [1])
    with pytest.raises(ValueError), replacing(path) as temporary:
        raise ValueError(temporary.write_text("half"))
    with (
        pytest.raises(RunError, match=r"e\.json: cannot be written: No space left on device$"),
        replacing(path),
        open("/dev/full", "w") as full,
    ):
        full.write("x" * 100_000)
    assert read_json(path) == [1]
    assert os.listdir(tmp_path) == ["table.json"]
    assert [write_new(tmp_path / "a" / "b", value) for value in (b"1", b"2")] == [True, False]
    assert (tmp_path / "a" / "b").read_bytes() == b"1"
    with pytest.raises(RunError, match=r"^'\.': cannot be written: it is not a file name"):
        write_json(Path("."), [])
