"""What nobody meant to raise is one line, an exit code of its own, and a log; so is any message."""

import errno
import os
import pickle
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
from mixopt.errors import ConfigError, MixoptError, OtherRankError

DEFECT = r"mixopt: a defect of mixopt: {}; please report it with (\S+)\n"
FULL = "No space left on device"
AGAIN = "the same command resumes\n"
LONG = BaseException("a\x1b[2Jb\nc" + "x" * 400)
DENIED = OSError(errno.EACCES, "Permission denied")
ODD = UnicodeEncodeError("ascii", "aä", 1, 2, "no such character")
NO_TEXT = r"\\xe4: the encoding ascii of this terminal or system has no such text\n"
ENDS = [
    (KeyError("a\nb"), 70, DEFECT.format(r"KeyError: 'a\\nb'")),
    (LONG, 70, DEFECT.format(r"BaseException: a \[2Jb cx{292}")),
    (DENIED, 70, DEFECT.format(r"PermissionError: \[Errno 13\] Permission denied")),
    (MemoryError(), 2, f"mixopt: out of memory; {AGAIN}"),
    (MemoryError("3 GiB"), 2, f"mixopt: out of memory: 3 GiB; {AGAIN}"),
    (OSError(errno.ENOSPC, FULL, "/a"), 2, f"mixopt: /a: {FULL}; {AGAIN}"),
    (OSError(errno.ENOSPC, FULL), 2, f"mixopt: {FULL}; {AGAIN}"),
    (OSError(errno.ENAMETOOLONG, "too long", "a"), 2, "mixopt: a: too long\n"),
    (ODD, 2, f"mixopt: {NO_TEXT}"),
    (KeyboardInterrupt(), 130, f"mixopt: interrupted; {AGAIN}"),
    (SystemExit(130), 130, f"mixopt: interrupted; {AGAIN}"),
    (typer.Abort(), 1, ""),
    (OtherRankError("said by rank 0"), 2, ""),
]


@pytest.mark.parametrize(("error", "code", "said"), ENDS, ids=lambda item: str(item)[:30])
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
        monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
        unwritten = "its traceback, which cannot be written: No such file or directory"
        assert main.defect_line(error).endswith(f"report it with {unwritten}")


def test_nothing_is_imported_from_the_current_directory(tmp_path):
    for module in ("typing", "numpy", "yaml", "typer", "json", "evil"):
        (tmp_path / f"{module}.py").write_text("open('executed', 'w')")
    (tmp_path / "a.yaml").write_text("proxy: {name: 'evil:Proxy'}\n")
    for command in (["status", "."], ["run", "a.yaml"]):
        refused(tmp_path, *command)
    assert not (tmp_path / "executed").exists()


def refused(folder, *words, **environment):
    """Run a command in a folder, check that it exits with 2, and return its last line."""
    command, env = [sys.executable, "-m", "mixopt", *words], os.environ | environment
    ended = subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True)
    assert ended.returncode == 2, ended.stderr
    return ended.stderr.decode().splitlines()[-1]


def test_what_pythonpath_names_is_imported_and_the_message_says_so(config_path, tmp_path):
    where = tmp_path / "plugins"
    where.mkdir()
    (where / "mine.py").write_text("Proxy = 3")
    words = ["run", config_path, "--set", "proxy.name=mine:Proxy", "--out", tmp_path / "run"]
    needed = "'mine:Proxy' needs mine: pip install the package that has it, or name its"
    assert needed in refused(where, *words)
    assert "'mine:Proxy' needs" not in refused(where, *words, PYTHONPATH=str(where))


def test_a_message_is_one_plain_line_of_2000_characters_at_most_also_from_a_child_process():
    error = ConfigError("a\nb\x1b[31m\u202e\udcffé")
    assert str(error) == r"a\nb\x1b[31m\u202e\udcffé"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(MixoptError("9" * 2_000)) == "9" * 2_000
    text = str(MixoptError(f"a.yaml: {'9' * 50_000} is no number"))
    assert text == f"a.yaml: {'9' * 1_492} ... {'9' * 487} is no number"
