"""What nobody meant to raise is one line, an exit code of its own, and a log."""

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mixopt.cli import main

RAISES = """
import sys
from mixopt.cli import main
def fail(**options): raise {error}
main.app = fail
main.run_command_line()
"""


def ended_with(error, **environment):
    return subprocess.run(
        [sys.executable, "-c", RAISES.format(error=error)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("KeyError('a\\nb')", r"KeyError: 'a\\nb'"),
        ("BaseException('a\\x1b[2Jb\\nc')", r"BaseException: a \[2Jb c"),
    ],
)
def test_a_defect_is_one_line_with_the_path_of_its_traceback(error, said, tmp_path):
    ended = ended_with(error, TMPDIR=str(tmp_path))
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (70, "", 1)
    found = re.fullmatch(
        rf"mixopt: a defect of mixopt: {said}; please report it with (\S+)\n", ended.stderr
    )
    log = Path(found[1])
    assert "Traceback (most recent call last)" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_is_no_second_defect(monkeypatch):
    def fail(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", fail)
    assert "cannot be written: No space left on device" in main.defect_line(KeyError("a"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("MemoryError('Unable to allocate 3 GiB')", "out of memory: Unable to allocate 3 GiB;"),
        (f"OSError({errno.ENOSPC}, 'No space left', '/r/a')", "/r/a: No space left;"),
        (f"OSError({errno.ENAMETOOLONG}, 'File name too long', 'a')", "mixopt: a: File name too"),
    ],
)
def test_a_machine_without_room_is_one_line_and_no_defect(error, said):
    ended = ended_with(error)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert said in ended.stderr


def test_nothing_is_imported_from_the_current_directory(tmp_path):
    for module in ("typing", "numpy", "yaml", "typer", "json", "evil"):
        (tmp_path / f"{module}.py").write_text("open('executed', 'w')")
    (tmp_path / "a.yaml").write_text("proxy: {name: 'evil:Proxy'}\n")
    for command in (["status", "."], ["run", "a.yaml"]):
        ended = subprocess.run(
            [sys.executable, "-m", "mixopt", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2, ended.stderr
    assert not (tmp_path / "executed").exists()


def test_what_pythonpath_names_is_imported_and_the_message_says_so(config_path, tmp_path):
    where = tmp_path / "plugins"
    where.mkdir()
    (where / "mine.py").write_text("Proxy = 3")
    command = [sys.executable, "-m", "mixopt", "run", config_path, "--set", "proxy.name=mine:Proxy"]
    command += ["--out", tmp_path / "run"]

    def said(**environment):
        ended = subprocess.run(
            command,
            cwd=where,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        assert ended.returncode == 2, ended.stderr
        return ended.stderr.splitlines()[-1]

    assert "'mine:Proxy' needs mine: pip install the package that has it, or name its" in said()
    assert "'mine:Proxy' needs" not in said(PYTHONPATH=str(where))
