"""What a sweep says of itself while it runs, and who believes it."""

import os
import subprocess
import sys
import time

import pytest

from mixopt.mixture import Mixture
from mixopt.sweeps import Place, read_progress
from mixopt.sweeps.attempts import Attempts
from mixopt.sweeps.progress import SweepMeter, shown_progress
from mixopt.system import no_progress
from mixopt.trials import Progress, Trial, TrialResult

FILE = ".progress.json"


def result(name, status="finished"):
    return TrialResult(name, status, 1000, 5, 0.1)


@pytest.fixture
def meter(tmp_path_factory):
    """Of ten trials of 1,000 tokens, two have ended, and two groups train."""
    meter = SweepMeter(10, 1000, [result("a"), result("b", "failed")], no_progress)
    groups = [[Trial(n, Mixture({"x": 1.0}), 0) for n in names] for names in ("cd", "e")]
    meter.tuned(Attempts(tmp_path_factory.mktemp("trials"), groups, finished=[]))
    meter.report(0, Progress(500, 2000), Place("n1"))
    meter.report(1, Progress(0, 1000, "compiling"), Place("n2", "H100", 1.0))
    return meter


def test_the_state_counts_trials(meter):
    state = meter.state()
    assert (state.trials, state.ended, state.failed, state.running) == (10, 2, 1, 3)


def test_the_state_says_what_each_worker_does(meter):
    first, second = meter.state().workers
    assert (first.doing, first.trials, first.done, first.total) == (
        "training",
        ["c", "d"],
        500,
        2000,
    )
    assert (second.doing, second.trials) == ("compiling", ["e"])
    assert [(w.node, w.kind, w.gpus) for w in (first, second)] == [
        ("n1", "cpu", 0),
        ("n2", "H100", 1),
    ]


def test_a_worker_that_tunes_has_no_trials():
    meter = SweepMeter(10, 1000, [], no_progress)
    meter.tuning()
    assert [(worker.doing, worker.trials) for worker in meter.state().workers] == [
        ("compiling", [])
    ]


def test_the_time_left_is_by_the_tokens_of_this_sweep(meter):
    time.sleep(0.05)
    state = meter.state()
    assert state.left == pytest.approx((10_000 - 2_500) / state.tokens_per_second)


def test_a_group_that_ends_runs_no_more(meter):
    meter.ended(0, [result("c"), result("d", "diverged")])
    state = meter.state()
    assert (state.ended, state.failed, state.running) == (4, 2, 1)


def test_the_tokens_of_a_group_that_is_lost_are_lost(meter):
    meter.ended(0, [])
    state = meter.state()
    assert (state.ended, state.running, state.tokens_per_second) == (2, 1, None)


def test_the_file_is_there_while_the_sweep_runs_and_gone_after(meter, tmp_path):
    with shown_progress(tmp_path, meter):
        while not (tmp_path / FILE).exists():
            time.sleep(0.01)
        assert read_progress(tmp_path).running == 3
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_folder_that_cannot_be_written_ends_no_sweep(meter, tmp_path):
    (tmp_path / "file").write_text("")
    with shown_progress(tmp_path / "file", meter):
        time.sleep(0.05)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("training", "dancing"),
        lambda text: text.replace('"c"', '"\\u001b[2J"'),
        lambda text: text.replace('"running":3', '"running":-3'),
        lambda text: text.replace('"trials":10', '"trials":1e400'),
    ],
)
def test_a_damaged_file_is_as_good_as_none(meter, tmp_path, damage):
    whole = meter.state().model_dump_json()
    assert damage(whole) != whole
    (tmp_path / FILE).write_text(whole)
    assert read_progress(tmp_path) is not None
    (tmp_path / FILE).write_text(damage(whole))
    assert read_progress(tmp_path) is None


def test_a_file_of_a_process_that_is_gone_is_as_good_as_none(meter, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    text = meter.state().model_dump_json().replace(f'"pid":{os.getpid()}', f'"pid":{gone.pid}')
    (tmp_path / FILE).write_text(text)
    assert read_progress(tmp_path) is None


def test_a_pipe_in_its_place_is_not_read(tmp_path):
    os.mkfifo(tmp_path / FILE)
    assert read_progress(tmp_path) is None
