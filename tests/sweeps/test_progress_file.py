"""What a sweep says of itself while it runs: to its bar, to other terminals, and to MLflow."""

import json
import os
import time

import pytest

from mixopt.mixture import Mixture
from mixopt.sweeps import ATTEMPTS, METRICS, GroupOutcome, Job, Place, read_progress
from mixopt.sweeps.group_folder import BEAT, Beat, Group, GroupResult, write_beat, write_result
from mixopt.sweeps.progress import SweepMeter
from mixopt.system import no_progress
from mixopt.trials import Losses, Training, Trial, TrialResult

TRIALS = {name: Trial(name, Mixture({"x": 1.0}), 0) for name in "abcde"}
FIRST = Beat(doing="training", done=500, total=2000, number=1, seconds=2.0, place=Place("n1"))
SECOND = Beat(doing="compiling", total=1000, number=1, place=Place("n2", "H100", 1.0))


def named(names):
    return [TRIALS[name] for name in names]


def result(name, status="finished"):
    return TrialResult(name, status, 1000, 5, 0.1)


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


@pytest.fixture
def shown():
    return []


@pytest.fixture
def meter(tmp_path, shown):
    """Of ten trials of 1,000 tokens, two have ended, and two groups train."""
    known = {"a": result("a"), "b": result("b", "failed")}
    meter = SweepMeter(tmp_path, 10, 1000, known, lambda *now: shown.append(now))
    meter.report(named("cd"), FIRST)
    meter.report(named("e"), SECOND)
    return meter


def test_the_bar_has_tokens_trials_and_speed(meter, shown):
    done, note = shown[-1]
    assert done == 2_500
    assert note.startswith("2/10 trials, 1 failed, ")
    assert note.endswith("k tokens/s")


def test_a_group_that_ends_runs_no_more(meter, shown):
    meter.ended(GroupOutcome(named("cd")), [result("c"), result("d", "diverged")])
    now = meter.metrics()
    assert (now["trials/done"], now["trials/failed"], now["trials/running"]) == (4, 2, 1)
    assert shown[-1][0] == 4_000


def test_the_tokens_of_a_group_that_is_lost_are_lost(meter, shown):
    meter.ended(GroupOutcome(named("cd"), reason="gone", fault="lost"), [])
    now = meter.metrics()
    assert (now["trials/done"], now["trials/running"], now["trials/lost"]) == (2, 1, 2)
    assert (shown[-1][0], now["trials/tokens_per_second"]) == (2_000, 0.0)


def test_the_best_mean_loss_is_that_of_all_trials(tmp_path):
    losses = Losses(1, {}, {"x": 1.0, "y": 2.0})
    known = {"a": TrialResult("a", "finished", 1, 1, 0.0, losses), "b": result("b", "failed")}
    meter = SweepMeter(tmp_path, 2, 1, known, no_progress)
    assert meter.metrics()["trials/best_mean_loss"] == 1.5


def test_what_evaluation_takes_is_part_of_the_time_left(tmp_path, shown):
    """A group that has seen all its tokens is not done: the one before was half way then."""
    meter = SweepMeter(tmp_path, 10, 1000, {}, lambda *now: shown.append(now))
    trained = Beat(doing="training", done=1000, total=1000, number=1, seconds=2.0)
    meter.report(named("a"), trained)
    evaluating = trained.model_copy(update={"doing": "evaluating", "number": 2, "seconds": 3.0})
    meter.report(named("a"), evaluating)
    meter.ended(GroupOutcome(named("a"), results=[result("a")], seconds=4.0), [result("a")])
    meter.report(named("b"), trained)
    assert shown[-1][0] == 1_500


def write_group(folder, names, beat):
    place = folder / "work" / f"{names or 'tune'}-0.1"
    place.mkdir(parents=True)
    job = Job("p", {}, folder, Training(1000))
    Group(job, named(names), {}, 1.0).write(place)
    write_beat(place, beat)
    return place


def test_another_process_sees_what_each_worker_does(tmp_path):
    write_group(tmp_path, "cd", FIRST)
    write_group(tmp_path, "e", SECOND)
    first, second = read_progress(tmp_path)
    assert (first.doing, first.trials, first.done, first.total) == (
        "training",
        ["c", "d"],
        500,
        2000,
    )
    assert (first.tokens_per_second, second.tokens_per_second) == (250.0, None)
    assert (second.node, second.kind, second.gpus) == ("n2", "H100", 1.0)


def test_a_worker_that_tunes_has_no_trials_and_one_with_a_result_works_no_more(tmp_path):
    write_group(tmp_path, "", SECOND)
    write_result(write_group(tmp_path, "e", FIRST), GroupResult())
    assert [(group.doing, group.trials) for group in read_progress(tmp_path)] == [("compiling", [])]


@pytest.mark.parametrize("text", ["", "[]", '{"doing": "dancing"}', '{"done": -3}', '{"x": 1e400}'])
def test_a_damaged_beat_is_as_good_as_none(tmp_path, text):
    (write_group(tmp_path, "e", FIRST) / BEAT).write_text(text)
    assert read_progress(tmp_path) == []


def test_a_pipe_in_its_place_is_not_read(tmp_path):
    place = write_group(tmp_path, "e", FIRST)
    (place / BEAT).unlink()
    os.mkfifo(place / BEAT)
    assert read_progress(tmp_path) == []


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(time, "time", lambda: Clock.now)
    return Clock


def idle(folder):
    return SweepMeter(folder, 3, 1000, {}, no_progress)


def test_a_line_is_written_every_second_and_later_every_ten_at_most(tmp_path, clock):
    meter = idle(tmp_path)
    for clock.now in (1000.0, 1000.9, 1001.0, 1010.0, 2000.0, 2009.9, 2010.0, 2012.0, 2031.0):
        meter.note_metrics()
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 10, 1000, 1010, 1031]
    assert (lines(tmp_path)[2]["time"], lines(tmp_path)[2]["trials/done"]) == (1010.0, 0)


def test_the_next_owner_s_steps_go_on_from_the_first_line(tmp_path, clock):
    idle(tmp_path).note_metrics()
    clock.now = 5000.0
    idle(tmp_path).note_metrics()
    assert [line["step"] for line in lines(tmp_path)] == [0, 4000]


@pytest.mark.parametrize("content", ["", "[]\n", "{\n", '{"time": "soon"}\n'])
def test_a_file_that_cannot_be_read_is_gone_on_with(tmp_path, clock, content):
    (tmp_path / METRICS).write_text(content)
    idle(tmp_path).note_metrics()
    assert json.loads((tmp_path / METRICS).read_text().splitlines()[-1])["step"] == 0


def test_a_clock_that_is_set_back_stops_nothing(tmp_path, clock):
    meter = idle(tmp_path)
    meter.note_metrics()
    clock.now = 10.0
    meter.note_metrics()
    assert [line["step"] for line in lines(tmp_path)] == [0, 0]


def test_the_last_line_is_of_the_end(tmp_path):
    with idle(tmp_path) as meter:
        meter.ended(GroupOutcome(named("ab")), [result("a"), result("b", "failed")])
    last = lines(tmp_path)[-1]
    assert (last["trials/done"], last["trials/failed"], last["trials/running"]) == (2, 1, 0)
    assert len(lines(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_ends_no_sweep(tmp_path):
    (tmp_path / "file").write_text("")
    with idle(tmp_path / "file") as meter:
        meter.report(named("ab"), FIRST)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_nothing_is_appended_to_a_file_that_a_link_leads_to(tmp_path, link):
    other = tmp_path / "other"
    other.write_text("mine\n")
    folder = tmp_path / "trials"
    folder.mkdir()
    for name in (METRICS, ATTEMPTS):
        link(other, folder / name)
    with idle(folder) as meter:
        meter.ended(GroupOutcome(named("ab")), [])
    assert other.read_text() == "mine\n"
