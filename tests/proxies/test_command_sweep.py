"""A command in a sweep's worker: alive while it runs, and run again when its worker dies."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from own_trainers import TRIAL, WRITE_GOOD, alive_below, attempts, script

from mixopt.config import SweepConfig
from mixopt.errors import RunError
from mixopt.sweeps import Job, run_trials, trial_paths
from mixopt.testing import tiny_corpus
from mixopt.trials import Training


@pytest.fixture
def job(tmp_path):
    def made(code, **options):
        corpus = tiny_corpus(tmp_path / "corpus")
        given = {"run": script(tmp_path, code), "result": "metrics.json", **options}
        return Job("command", given, corpus.path, Training(1_000, device="cpu"))

    return made


def test_a_command_that_runs_longer_than_the_patience_is_let_run(job, tmp_path):
    asked = SweepConfig(workers=1, patience=1.0)
    code = f"time.sleep(2.5); {WRITE_GOOD}"
    (result,) = run_trials([TRIAL], job(code), tmp_path / "trials", sweep=asked)
    assert result.status == "finished"
    assert attempts(tmp_path / "trials" / "files") == ["attempt-1"]


@pytest.mark.nightly
def test_a_trial_whose_worker_is_killed_is_run_again_in_another_folder(job, tmp_path):
    code = f"""
        if os.getcwd().endswith("t0001/attempt-1"):
            open("begun", "w").write(str(os.getpid()))
            time.sleep(600)
        {WRITE_GOOD}
    """
    begun = tmp_path / "trials" / "files" / "t0001" / "attempt-1" / "begun"

    def kill_worker():
        while not begun.exists() or not begun.read_text():
            time.sleep(0.05)
        words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in alive_below(os.getpid())}
        os.kill(
            next(p for p, w in words.items() if b"mixopt.sweeps.train_group" in w), signal.SIGKILL
        )

    threading.Thread(target=kill_worker, daemon=True).start()
    asked = SweepConfig(workers=1)
    (result,) = run_trials([TRIAL], job(code), tmp_path / "trials", sweep=asked)
    assert result.status == "finished"
    assert not Path(f"/proc/{begun.read_text()}").exists()
    assert attempts(tmp_path / "trials" / "files") == ["attempt-1", "attempt-2"]


def test_a_trainer_that_is_wrong_is_learnt_from_one_trial(job, tmp_path):
    trials = [replace(TRIAL, name=f"t{number}") for number in range(4)]
    with pytest.raises(RunError, match=r"the first trial failed, .*exit code 1 .*no such flag"):
        run_trials(
            trials, job("sys.exit('no such flag')"), tmp_path / "trials", sweep=SweepConfig()
        )
    assert [path.name for path in (tmp_path / "trials" / "files").iterdir()] == ["short-trial"]
    assert trial_paths(tmp_path / "trials") == []


@pytest.mark.parametrize("least", [pytest.param(0, marks=pytest.mark.nightly), 100])
def test_one_short_trial_is_trained_first_or_a_whole_one_where_that_is_too_short(
    job, tmp_path, least
):
    code = f"""
        tokens = int(os.environ["MIXOPT_TOKENS"])
        open({str(tmp_path / "tokens")!r}, "a").write(f"{{tokens}} ")
        assert tokens > {least}
        {WRITE_GOOD}
    """
    run_trials([TRIAL], job(code), tmp_path / "trials", sweep=SweepConfig(workers=1))
    assert (tmp_path / "tokens").read_text() == ("50 1000 1000 " if least else "50 1000 ")


def test_three_failures_alike_stop_a_sweep(job, tmp_path):
    code = f"""
        if os.environ["MIXOPT_TRIAL"] != "short-trial":
            sys.exit(f"no luck with {{os.environ['MIXOPT_TRIAL']}}")
        {WRITE_GOOD}
    """
    trials = [replace(TRIAL, name=f"t{number}") for number in range(6)]
    with pytest.raises(RunError, match=r"stopped: 3 trials in turn failed alike.*with t2\)"):
        run_trials(trials, job(code), tmp_path / "trials", sweep=SweepConfig(workers=1))
    assert len(trial_paths(tmp_path / "trials")) == 3
