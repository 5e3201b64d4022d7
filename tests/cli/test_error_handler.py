"""What nobody meant to raise is one line, an exit code of its own, and a log."""

import errno
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer
from command_line import mixopt

from mixopt.cli import main
from mixopt.errors import OtherRankError

DEFECT = r"mixopt: a defect of mixopt: {}; please report it with (\S+)\n"
FULL = "No space left on device"
ENDS = [
    (KeyError("a\nb"), 70, DEFECT.format(r"KeyError: 'a\\nb'")),
    (
        BaseException("a\x1b[2Jb\nc" + "x" * 400),
        70,
        DEFECT.format(r"BaseException: a \[2Jb cx{292}"),
    ),
    (
        OSError(errno.EACCES, "Permission denied"),
        70,
        DEFECT.format(r"PermissionError: \[Errno 13\] Permission denied"),
    ),
    (MemoryError(), 2, "mixopt: out of memory; the same command resumes\n"),
    (MemoryError("3 GiB"), 2, "mixopt: out of memory: 3 GiB; the same command resumes\n"),
    (OSError(errno.ENOSPC, FULL, "/a"), 2, f"mixopt: /a: {FULL}; the same command resumes\n"),
    (OSError(errno.ENOSPC, FULL), 2, f"mixopt: {FULL}; the same command resumes\n"),
    (OSError(errno.ENAMETOOLONG, "too long", "a"), 2, "mixopt: a: too long\n"),
    (
        UnicodeEncodeError("ascii", "aä", 1, 2, "no such character"),
        2,
        r"mixopt: \\xe4: the encoding ascii of this terminal or system has no such text\n",
    ),
    (KeyboardInterrupt(), 130, "mixopt: interrupted; the same command resumes\n"),
    (SystemExit(130), 130, "mixopt: interrupted; the same command resumes\n"),
    (typer.Abort(), 1, ""),
    (OtherRankError("said by rank 0"), 2, ""),
]


@pytest.mark.parametrize(("error", "code", "said"), ENDS, ids=lambda one: str(one)[:30])
def test_what_ends_a_command_is_at_most_a_line_with_a_code_of_its_own(
    error, code, said, tmp_path, monkeypatch
):
    """A defect's line has the path of its traceback, which nobody else can read."""

    def fail(**_):
        raise error

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(main, "app", fail)
    ended = mixopt("run", "a.yaml")
    found = re.fullmatch(said, ended.error)
    assert (ended.code, ended.out) == (code, "")
    assert found, ended.error
    assert len(list(tmp_path.iterdir())) == (code == 70)
    if code == 70:
        lines = Path(found[1]).read_text().splitlines()
        assert lines[:2] == ["mixopt run", "Traceback (most recent call last):"]
        assert stat.S_IMODE(Path(found[1]).stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_is_no_second_defect(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    said = "report it with its traceback, which cannot be written: No such file or directory"
    assert main.defect_line(KeyError("a")).endswith(said)


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
