"""What is sent, in which order, how often, and what is left: against a store in memory."""

import json
import math

import pytest
from memory_store import TAGS, MemoryStore, listed, say, start

from mixopt.mixture import Mixture
from mixopt.tracking import MetricLines, sync_line
from mixopt.tracking.lines import Position
from mixopt.tracking.record import RECORD, RunRecord, SentChange, TrackingRecord
from mixopt.tracking.recorder import LEAST_POINTS, MOST_POINTS, Recorder, Tally, _hash
from mixopt.tracking.sending import SyncResult
from mixopt.trials import Losses, Trial, TrialFolder, TrialResult


@pytest.fixture
def store():
    return MemoryStore()


def recorder(path, store, noted=lambda: None):
    return Recorder(path, "memory", lambda: store, noted)


@pytest.fixture(autouse=True)
def figures(tmp_path):
    """The folder of a run's figures."""
    (tmp_path / "figures").mkdir()


def trial_file(path, name, loss=2.0):
    losses = Losses(1000, {"web": loss}, {"web": 1.0})
    result = TrialResult(name, "finished", 1000, 42, 2.0, losses)
    TrialFolder(path / "trials").write(0, [Trial(name, Mixture({"web": 1.0}), 7)], [result])


def test_a_step_is_opened_filled_and_ended_in_order_and_once(tmp_path, store):
    start(tmp_path, folder="trials")
    trial_file(tmp_path, "t0")
    (tmp_path / "figures/a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["figures/a.svg"], folder="figures", trial=None)
    say(tmp_path, "follow", file="m.jsonl", trial=None)
    MetricLines(tmp_path / "m.jsonl").write({"x": 1.0}, 3)
    say(tmp_path, "end", time=2.5)
    found = recorder(tmp_path, store)
    found.send()
    assert store.take() == [
        ("parent", "sweep", "0123"),
        ("trial", "sweep-0123-1", "t0"),
        ("points", "sweep-0123-1", [("x", 3)]),
        ("artifact", "sweep-0123-1", "a.svg", "figures"),
        ("status", "sweep-0123-1", "FINISHED", 2500),
    ]
    assert found.sent == Tally(points=1, trials=1, files=1, runs=1)
    found.send()
    assert store.take() == []
    again = recorder(tmp_path, store)
    again.send()
    assert store.take() == [("has", "sweep-0123-1")], (
        "another process asks once whether it is there"
    )
    assert again.sent == Tally()
    assert not again.left()


def test_what_is_left_is_counted_by_kind(tmp_path, store):
    start(tmp_path, folder="trials")
    for name in ("t0", "t1"):
        trial_file(tmp_path, name)
    for name in ("figures/a.svg", "figures/b.svg", "figures/c.svg"):
        (tmp_path / name).write_bytes(name.encode())
    files = ["figures/a.svg", "figures/b.svg", "figures/c.svg", "figures/absent.svg"]
    say(tmp_path, "files", files=files, folder=None, trial=None)
    say(tmp_path, "follow", file="m.jsonl", trial=None)
    lines = MetricLines(tmp_path / "m.jsonl")
    for step in range(4):
        lines.write({"x": 1.0, "y": {"a": 2.0}}, step)
    found = recorder(tmp_path, store)
    assert found.left() == Tally(points=8, trials=2, files=3, runs=1)
    found.send()
    assert found.left() == Tally(), "the status of a run that was just made is known"
    (tmp_path / "figures/b.svg").write_bytes(b"other")
    assert found.left() == Tally(), "what its step did not leave is not sent"
    listed(tmp_path, "figures/b.svg")
    lines.write({"x": 1.0}, 9)
    assert found.left() == Tally(points=1, files=1)
    say(tmp_path, "end")
    assert found.left().runs == 1


def test_files_of_a_step_and_of_its_trials_are_left_together(tmp_path, store):
    start(tmp_path, folder="trials")
    trial_file(tmp_path, "t0")
    found = recorder(tmp_path, store)
    found.send()
    for name, trial in (("figures/a.svg", None), ("figures/b.svg", "t0"), ("figures/c.svg", "t0")):
        (tmp_path / name).write_bytes(name.encode())
        say(tmp_path, "files", files=[name], folder=None, trial=trial)
        say(tmp_path, "follow", file=f"{name}.jsonl", trial=trial)
        MetricLines(tmp_path / f"{name}.jsonl").write({"x": 1.0, "y": 2.0}, 1)
    assert found.left() == Tally(points=6, files=3)


def test_what_a_changed_fingerprint_begins_is_all_left(tmp_path, store):
    start(tmp_path)
    (tmp_path / "figures/a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["figures/a.svg"], folder=None, trial=None)
    found = recorder(tmp_path, store)
    found.send()
    start(tmp_path, tags={"mixopt.fingerprint": "4567"})
    say(tmp_path, "files", files=["figures/a.svg"], folder=None, trial=None)
    assert found.left() == Tally(files=1, runs=1)
    store.take()
    found.send()
    assert [call[0] for call in store.take()] == ["parent", "status", "artifact"]


def test_a_run_that_was_deleted_is_made_again_with_all_it_had(tmp_path, store):
    start(tmp_path)
    (tmp_path / "figures/a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["figures/a.svg"], folder=None, trial=None)
    recorder(tmp_path, store).send()
    store.take()
    store.deleted.add("sweep-0123-1")
    recorder(tmp_path, store).send()
    assert [call[0] for call in store.take()] == ["has", "parent", "status", "artifact"]


def test_tags_are_sent_when_they_change(tmp_path, store):
    start(tmp_path)
    found = recorder(tmp_path, store)
    found.send()
    store.take()
    say(tmp_path, "tags", tags={"more": "1"})
    found.send()
    found.send()
    assert store.take() == [("tags", "sweep-0123-1", {**TAGS, "more": "1"})]
    start(tmp_path, tags={**TAGS, "other": "2"})
    found.send()
    assert store.take() == [("tags", "sweep-0123-1", {**TAGS, "more": "1", "other": "2"})]


def test_tags_in_another_order_are_the_same():
    for tags in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}):
        assert _hash(tags) == _hash({"b": "2", "a": "1"})


def test_a_run_that_goes_on_is_running_again(tmp_path, store):
    start(tmp_path)
    found = recorder(tmp_path, store)
    found.kill()
    found.send()
    (killed,) = [call for call in store.take() if call[0] == "status"]
    assert killed[2] == "KILLED"
    start(tmp_path)
    found.send()
    found.send()
    assert store.take() == [("status", "sweep-0123-1", "RUNNING", None)]


def test_a_slow_server_gets_half_as_many_points_and_twice_as_many_when_it_answers(tmp_path, store):
    start(tmp_path)
    say(tmp_path, "follow", file="m.jsonl", trial=None)
    found = recorder(tmp_path, store)
    found.send()
    lines = MetricLines(tmp_path / "m.jsonl")
    for step in range(2 * MOST_POINTS):
        lines.write({"x": 1.0}, step)

    def sizes():
        found.send()
        return [len(call[2]) for call in store.take() if call[0] == "points"]

    store.take()
    store.is_down = True
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            found.send()
    store.is_down = False
    assert sizes() == [MOST_POINTS // 4] * 8
    for step in range(MOST_POINTS):
        lines.write({"x": 1.0}, 2 * MOST_POINTS + step)
    assert sizes() == [MOST_POINTS // 2] * 2
    store.is_down = True
    lines.write({"x": 1.0}, 9999)
    for _ in range(9):
        with pytest.raises(OSError, match="down"):
            found.send()
    assert found._batch == LEAST_POINTS


def test_after_a_failure_a_run_is_asked_for_again_as_another_server_may_have_come_back(
    tmp_path, store
):
    start(tmp_path)
    connected = []
    found = Recorder(tmp_path, "memory", lambda: connected.append(1) or store, lambda: None)
    found.send()
    found.send()
    assert len(connected) == 1
    store.is_down = True
    say(tmp_path, "end")
    with pytest.raises(OSError, match="down"):
        found.send()
    store.is_down = False
    store.take()
    found.send()
    assert [call[0] for call in store.take()] == ["has", "status"]
    assert len(connected) == 2


def test_each_thing_that_was_sent_is_noted_at_once(tmp_path, store):
    start(tmp_path, folder="trials")
    for name in ("t0", "t1"):
        trial_file(tmp_path, name)
    known = []

    def noted():
        known.append(sorted(TrackingRecord(tmp_path, "memory").steps["sweep"].trials))

    recorder(tmp_path, store, noted).send()
    assert known[0] == []
    assert ["t0"] in known
    assert known[-1] == ["t0", "t1"]


def test_a_trials_metrics_and_files_go_to_its_child_and_wait_for_it(tmp_path, store):
    start(tmp_path, folder="trials")
    (tmp_path / "figures/a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["figures/a.svg"], folder=None, trial="t0")
    say(tmp_path, "follow", file="m.jsonl", trial="t0")
    MetricLines(tmp_path / "m.jsonl").write({"x": 1.0}, 3)
    found = recorder(tmp_path, store)
    found.send()
    assert [call[0] for call in store.take()] == ["parent", "status"]
    trial_file(tmp_path, "t0")
    found.send()
    child = "sweep-0123-1/t0"
    assert store.take()[1:] == [("points", child, [("x", 3)]), ("artifact", child, "a.svg", None)]


# --- The record ----------------------------------------------------------------------------------


POSITION = Position(7, "tail", {"x": 3}, {"x": 1})


def noted(path, server="http://one"):
    """Return the record of a step with a trial."""
    record = TrackingRecord(path, server)
    record.note(SentChange("sweep", begins=True, run="1", mark="m"))
    change = SentChange(
        "sweep", status="FINISHED", tags="t", files={"a": "h"}, lines={"m": POSITION}
    )
    record.note(change)
    record.note(SentChange("sweep", "t0", begins=True, run="2", mark="n"))
    record.close()
    return record


def test_what_another_server_has_is_kept(tmp_path):
    first = noted(tmp_path)
    child = RunRecord("2", "n")
    whole = RunRecord("1", "m", "FINISHED", "t", {"a": "h"}, {"m": POSITION}, {"t0": child})
    assert first.steps == {"sweep": whole}
    second = TrackingRecord(tmp_path, "http://two")
    assert second.steps == {}
    assert second.key == first.key
    second.note(SentChange("log", run="3"))
    assert TrackingRecord(tmp_path, "http://one").steps == first.steps
    assert TrackingRecord(tmp_path, "http://two").steps == second.steps


def test_a_note_is_appended_and_what_is_there_is_not_written_again(tmp_path):
    record = noted(tmp_path)
    before = (tmp_path / RECORD).read_bytes()
    record.note(SentChange("sweep", "t1", begins=True, run="3", mark="o"))
    after = (tmp_path / RECORD).read_bytes()
    assert after.startswith(before)
    assert len(after) - len(before) < 200


def test_a_file_of_which_most_is_outdated_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("mixopt.tracking.record.SMALL", 1000)
    record = noted(tmp_path)
    for step in range(200):
        record.note(SentChange("sweep", lines={"m": Position(step, "tail", {"x": step})}))
    assert (tmp_path / RECORD).stat().st_size < 3000
    assert (tmp_path / RECORD).stat().st_mode & 0o777 == 0o600
    again = TrackingRecord(tmp_path, "http://one")
    assert (again.steps, again.key) == (record.steps, record.key)


def test_a_run_that_begins_again_has_nothing_of_the_one_before(tmp_path):
    record = noted(tmp_path)
    record.note(SentChange("sweep", begins=True, run="9", mark="o"))
    assert TrackingRecord(tmp_path, "http://one").steps == {"sweep": RunRecord("9", "o")}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"server": "http://one"}',
        '{"server": "http://one", "step": 3}',
        '{"server": "http://one", "step": "sweep", "lines": {"m": {"offset": -1}}}',
        '{"server": "http://one", "step": "sweep", "lines": {"m": {"offset": 1e400}}}',
        '{"server": "http://one", "step": "sweep", "files": ["a"]}',
        "[" * 100_000,
        '{"key": "x\' or 1"}',
    ],
)
def test_a_damaged_line_of_the_record_counts_as_none(tmp_path, line):
    record = noted(tmp_path)
    whole = (tmp_path / RECORD).read_text().splitlines()
    (tmp_path / RECORD).write_text("\n".join([line, *whole]) + "\n")
    again = TrackingRecord(tmp_path, "http://one")
    assert (again.steps, again.key) == (record.steps, record.key)


def test_a_record_of_an_older_version_gives_its_key_alone(tmp_path):
    key = "0123456789abcdef" * 2
    (tmp_path / "tracking.json").write_text(json.dumps({"key": key, "servers": {"u": {}}}))
    again = TrackingRecord(tmp_path, "u")
    assert (again.steps, again.key) == ({}, key)
    (tmp_path / "tracking.json").write_text("[1")
    assert TrackingRecord(tmp_path, "u").key != key


# --- What `mixopt sync` says ---------------------------------------------------------------------

NOTHING = {"points": 0, "trials": 0, "files": 0, "runs": 0}


@pytest.mark.parametrize(
    ("sent", "left", "trouble", "said"),
    [
        ({"points": 1200, "files": 3}, {}, None, "sent 1,200 points of metrics, 3 files to u"),
        ({}, {"files": 2, "runs": 1}, "no answer", "to u; 2 files, 1 runs is left: no answer"),
        ({}, {}, None, "sent nothing to u; nothing is left"),
    ],
)
def test_a_line_counts_what_was_sent_and_what_is_left(tmp_path, sent, left, trouble, said):
    result = SyncResult("u", NOTHING | sent, NOTHING | left, trouble)
    line = sync_line(tmp_path, result)
    assert line.startswith(f"{tmp_path}: ")
    assert said in line
    assert result.to_json()["left"] == NOTHING | left


def test_points_that_are_not_finite_are_points(tmp_path):
    lines = MetricLines(tmp_path / "m.jsonl")
    lines.write({"x": math.nan, "y": True, "z": -math.inf}, 1)
    points, _ = Position().new_points(tmp_path / "m.jsonl", 100)
    assert [(p.key, str(p.value)) for p in points] == [("x", "nan"), ("y", "1.0"), ("z", "-inf")]
