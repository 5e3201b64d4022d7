"""A command in a sweep's worker: alive while it runs, and run again when its worker dies."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from own_trainers import TRIAL, WRITE_GOOD, alive_below, attempts, script

from mixopt.sweeps import Job, Means, run_trials
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
    asked = Means(workers=1, patience=1.0)
    code = f"time.sleep(4); {WRITE_GOOD}"
    (result,) = run_trials([TRIAL], job(code), tmp_path / "trials", means=asked)
    assert result.status == "finished"
    assert len(attempts(tmp_path / "trials" / "files")) == 1


def test_a_trial_whose_worker_is_killed_is_run_again_in_another_folder(job, tmp_path):
    code = f"""
        if os.getcwd().endswith("attempt-1"):
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
    asked = Means(workers=1)
    (result,) = run_trials([TRIAL], job(code), tmp_path / "trials", means=asked)
    assert result.status == "finished"
    assert not Path(f"/proc/{begun.read_text()}").exists()
    assert [one["attempt"] for one in attempts(tmp_path / "trials" / "files")] == [2]
