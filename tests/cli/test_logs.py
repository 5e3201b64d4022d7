"""`mixopt status --logs`: the log of a trial wherever it trained, and the trials that failed."""

import json
import os

import pytest
from command_line import mixopt

from mixopt import run as run_experiment
from mixopt.config import load_config
from mixopt.pipeline import log_lines
from mixopt.run_directory import open_run
from mixopt.system import host_name

TALKING = '''
import sys
from faulty_proxy import Faulty


class Talking(Faulty):
    """Prints which trials it trains, and fails for one of them."""

    def train(self, trials, corpus, training, report):
        for trial in trials:
            print(f"step 1 of {trial.name}")
            print("\\x1b[31mred\\x1b[0m\\rdone", file=sys.stderr)
        if any(trial.name == "t0005" for trial in trials):
            raise ValueError("no such layer")
        return super().train(trials, corpus, training, report)
'''


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    """A run with a finished sweep, in which one group of two trials failed."""
    folder = tmp_path_factory.mktemp("logs")
    (folder / "talking_proxy.py").write_text(TALKING)
    head, _, rest = experiment.partition("proxy:")
    more = {"name": "talking_proxy:Talking", "tokens": 20000}
    more["options"] = {"log": str(folder / "trained.log"), "size": 2}
    text = f"{head}proxy: {json.dumps(more)}\nsweep:{rest.partition('sweep:')[2]}"
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(str(folder))
        run_experiment(folder / "tiny.yaml", folder / "run", until="sweep")
    return folder / "run"


def test_a_trial_s_part_of_its_worker_s_log_is_printed_and_its_last_lines_and_json(run):
    ended = mixopt("status", run, "--logs", "t0003")
    whole = ended.out.splitlines()
    assert ended.code == 0
    assert "step 1 of t0003" in whole
    assert "t0007" not in ended.out
    assert "trials/logs/t0002-" in ended.error
    assert "\x1b" not in ended.out  # what a log holds cannot steer the terminal
    assert "done" in whole
    assert mixopt("status", run, "--logs", "t0003", "--lines", 2).out.splitlines() == whole[-2:]
    found = json.loads(mixopt("status", run, "--logs", "t0003", "--json", "--lines", 1).out)
    assert (found["trial"], found["lines"]) == ("t0003", whole[-1:])
    assert found["log"].startswith(str(run))


def test_failed_trials_are_listed_with_their_log_and_of_attempts_the_newest_is_printed(run):
    said = mixopt("status", run).out
    assert "failed: ValueError: no such layer" in said
    assert f"log: mixopt status {run} --logs t00" in said
    for number, text in ((2, "second"), (10, "tenth"), (9, "ninth")):
        folder = run / "trials" / "files" / "t0004" / f"attempt-{number}"
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text(f"{text}\nloss\t2.0\n")
    assert mixopt("status", run, "--logs", "t0004").out == "tenth\nloss    2.0\n"


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("t0000", f"{{}}: no log of t0000 is here; it was trained on {host_name()}\n"),
        ("t9999", "{}: no trial 't9999'; known: natural, t0000, "),
        ("../steps", "trial '../steps': a name has no '/'"),
    ],
)
def test_a_missing_log_is_reported_in_one_line(run, trial, message):
    logs = (run / "trials" / "logs").rename(run / "trials" / "elsewhere")
    ended = mixopt("status", run, "--logs", trial)
    logs.rename(run / "trials" / "logs")
    assert (ended.code, ended.out, ended.error.count("\n")) == (2, "", 1)
    assert ended.error.startswith("mixopt: " + message.format(run))


def test_a_run_that_has_trained_nothing_says_so(config_path, tmp_path):
    open_run(load_config(config_path), tmp_path / "run")
    ended = mixopt("status", tmp_path / "run", "--logs", "t0000")
    assert ended.error.endswith("no trial has been trained yet\n")


def test_a_link_that_leads_out_is_not_followed_unless_trusted(run, tmp_path):
    (tmp_path / "secret").write_text("a secret\n")
    folder = run / "trials" / "files" / "t0001" / "attempt-1"
    folder.mkdir(parents=True)
    (folder / "log.txt").symlink_to(tmp_path / "secret")
    ended = mixopt("status", run, "--logs", "t0001")
    (folder / "log.txt").unlink()
    assert (ended.code, ended.out) == (2, "")


def test_a_long_line_is_given_in_pieces(tmp_path):
    (tmp_path / "log.txt").write_text("x" * 200_000 + "\nend\n")
    lines = list(log_lines(tmp_path / "log.txt"))
    assert [len(line) for line in lines] == [*[1 << 16] * 3, 200_000 - (3 << 16), 3]
    assert lines[-1] == "end"
