"""A directory records data: without --trust nothing connects, cancels, trains or imports."""

import json
import socket
from contextlib import suppress

import pytest
from command_line import mixopt
from fake_commands import fake_commands

from mixopt import Mixture
from mixopt.config import load_config
from mixopt.run_directory import open_run
from mixopt.trials import Trial, write_design

TRIALS = ("t0000", "t0001")


@pytest.fixture
def listener():
    """A port; whether somebody has connected to it."""

    def is_connected():
        with suppress(BlockingIOError):
            server.accept()[0].close()
            return True
        return False

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1], is_connected


@pytest.fixture
def foreign(config_path, tmp_path):
    """Make the directory of a run whose sweep was interrupted on a cluster, as its record says."""

    def make(**sweep):
        settings = [f"sweep.{name}={json.dumps(value)}" for name, value in sweep.items()]
        run = open_run(load_config(config_path, settings), tmp_path / "run")
        folder = run.path / "trials"
        group = folder / "work" / "group"
        group.mkdir(parents=True)
        (folder / "groups.json").write_text(json.dumps([list(TRIALS)]))
        (group / "group.json").write_text("{}")
        (group / "handle").write_text(f"4711_0 {group}")
        mixtures = [Mixture({"code": share, "prose": 1 - share}) for share in (0.25, 0.75)]
        trials = [Trial(name, parts, seed=0) for name, parts in zip(TRIALS, mixtures, strict=True)]
        write_design(trials, run.path / "design.parquet")
        run.log.begin("sweep")
        return run.path

    return make


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Commands of Slurm that note that they were run."""
    log = tmp_path / "slurm.log"
    names = ("sbatch", "squeue", "scancel", "sinfo")
    fake_commands(tmp_path / "bin", monkeypatch, **{n: f'echo {n} "$@" >> {log}' for n in names})
    return log


@pytest.mark.parametrize("command", ["status", "stop"])
@pytest.mark.parametrize("executor", ["ray", "slurm"])
def test_a_cluster_that_only_the_directory_names_is_left_alone(
    foreign, listener, fake_slurm, executor, command
):
    port, is_connected = listener
    options = {"address": f"ray://127.0.0.1:{port}"} if executor == "ray" else {}
    ended = mixopt(command, foreign(executor=executor, options=options))
    assert ended.code in (0, 1)
    assert not is_connected()
    assert not fake_slurm.exists()
    assert "--trust" in ended.out + ended.error


def test_jobs_of_a_trusted_directory_are_asked_for(foreign, fake_slurm):
    mixopt("stop", foreign(executor="slurm"), "--trust")
    assert "squeue" in fake_slurm.read_text()


@pytest.mark.parametrize("command", ["run --until sweep", "check --write a.yaml"])
def test_nothing_is_read_elsewhere_or_trained_because_a_directory_says_so(foreign, command):
    path = foreign()
    before = sorted(path.rglob("*"))
    first, *options = command.split()
    ended = mixopt(first, path, *options)
    assert (ended.code, ended.error.count("\n")) == (2, 1)
    assert "if you trust whoever made this directory, add --trust" in ended.error
    assert [item for item in sorted(path.rglob("*")) if item.name != ".lock"] == before
