"""A run directory that somebody else made: looking at it runs nothing, and writes nothing outside.

The commands are real processes, started in the directory itself, as somebody does who unpacks it
and looks around.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from fault_runs import KINDS, mixopt

from mixopt import load_run
from mixopt.run_directory.opening import HEADER
from mixopt.system import sealed_text

LOOKING = (
    ["status", "."],
    ["verify", "."],
    ["experts", "."],
    ["propose", "."],
    ["fit", ".", "--test", "trials.parquet"],
    ["report", "."],
)


@pytest.fixture
def foreign(whole, tmp_path) -> Path:
    """A copy of a whole run, whose page is to be made again."""
    run = shutil.copytree(whole.states["end"], tmp_path / "foreign")
    (run / "report.html").unlink()
    return run


def git(run: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *arguments], cwd=run, check=True, capture_output=True)


def test_what_a_repository_in_the_directory_names_is_not_run(foreign, tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git")
    marker = tmp_path / "executed"
    git(foreign, "init", "-q")
    git(foreign, "add", "config.yaml")
    git(foreign, "commit", "-qm", "one")
    hook = foreign / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    git(foreign, "config", "core.fsmonitor", str(hook))
    git(foreign, "config", "filter.evil.clean", f"touch {marker}; cat")
    (foreign / ".gitattributes").write_text("* filter=evil\n")
    os.utime(foreign / "config.yaml")
    assert mixopt("report", ".", cwd=foreign).returncode == 0
    assert not marker.exists()
    git(foreign, "status")
    assert marker.exists(), "the repository is hostile"


def test_a_command_that_a_forged_configuration_names_is_not_run(foreign, tmp_path):
    marker = tmp_path / "executed"
    content = yaml.safe_load((foreign / "config.yaml").read_text())
    content["proxy"] |= {"name": "command", "run": ["touch", str(marker)], "result": "m.json"}
    del content["proxy"]["options"]
    (foreign / "config.yaml").write_text(sealed_text(yaml.safe_dump(content), HEADER))
    for looking in LOOKING if KINDS else LOOKING[:2]:
        ended = mixopt(*looking, cwd=foreign)
        assert ended.returncode in (0, 1, 2), ended.stderr
    assert load_run(foreign).config.proxy.run == ["touch", str(marker)]
    rerun = ("run", "config.yaml", "--out", ".", "--from", "sweep")
    refused = mixopt(*rerun, cwd=foreign)
    assert refused.returncode == 2
    assert "if you trust whoever made this directory, add --trust" in refused.stderr
    assert (foreign / "trials.parquet").exists(), "nothing is deleted before that is asked"
    assert not marker.exists()
    mixopt(*rerun, "--trust", cwd=foreign)
    assert marker.exists(), "the command is one that would run"
