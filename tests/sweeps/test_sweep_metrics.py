"""How far a sweep is, over time, as lines that MLflow's sender takes."""

import json
import threading
import time

import pytest

from mixopt.sweeps import METRICS
from mixopt.sweeps.progress import SweepMeter, SweepMetrics, shown_progress
from mixopt.trials import TrialResult


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_a_line_is_written_every_second_and_later_every_ten_at_most(tmp_path, clock):
    metrics = SweepMetrics(tmp_path, lambda: {"trials/done": 1}, clock)
    for clock.now in (1000.0, 1000.9, 1001.0, 1010.0, 2000.0, 2009.9, 2010.0, 2012.0, 2031.0):
        metrics.note()
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 10, 1000, 1010, 1031]
    assert lines(tmp_path)[2] == {"step": 10, "time": 1010.0, "trials/done": 1}


def test_the_next_owner_s_steps_go_on_from_the_first_line(tmp_path, clock):
    SweepMetrics(tmp_path, dict, clock).note()
    clock.now = 5000.0
    SweepMetrics(tmp_path, dict, clock).note()
    assert [line["step"] for line in lines(tmp_path)] == [0, 4000]


@pytest.mark.parametrize("content", ["", "[]\n", "{\n", '{"time": "soon"}\n'])
def test_a_file_that_cannot_be_read_is_gone_on_with(tmp_path, clock, content):
    (tmp_path / METRICS).write_text(content)
    SweepMetrics(tmp_path, dict, clock).note()
    assert json.loads((tmp_path / METRICS).read_text().splitlines()[-1])["step"] == 0


def test_a_clock_that_is_set_back_stops_nothing(tmp_path, clock):
    metrics = SweepMetrics(tmp_path, dict, clock)
    metrics.note()
    clock.now = 10.0
    metrics.note()
    assert [line["step"] for line in lines(tmp_path)] == [0, 0]


def test_the_last_line_is_of_the_end(tmp_path):
    meter = SweepMeter(3, 1000, [], lambda done, note: None)
    with shown_progress(tmp_path, meter):
        time.sleep(0.05)
        results = [TrialResult("a", "finished", 1, 1, 0.0), TrialResult("b", "failed", 0, 0, 0.0)]
        meter.ended(0, results)
    last = lines(tmp_path)[-1]
    assert (last["trials/done"], last["trials/failed"], last["trials/running"]) == (2, 1, 0)
    assert last["trials/lost"] == last["trials/retried"] == 0
    assert len(lines(tmp_path)) == 2
    assert not [t for t in threading.enumerate() if t.name.startswith("mixopt-progress")]


def test_a_folder_that_cannot_be_written_ends_no_sweep(tmp_path, clock):
    (tmp_path / "file").write_text("")
    SweepMetrics(tmp_path / "file", dict, clock).note()
