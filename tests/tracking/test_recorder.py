"""What is sent, in which order, how often, and what is left: against a store in memory."""

import json
import math
import os
import socket
import threading

import pytest

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.system import only_one, read_json
from mixopt.tracking import MetricLines, sync_line
from mixopt.tracking.journal import JOURNAL
from mixopt.tracking.lines import LineFile, Position
from mixopt.tracking.process import LOCK, Sender, _alone, check_reachable
from mixopt.tracking.record import RunRecord, TrackingRecord
from mixopt.tracking.recorder import LEAST_POINTS, MOST_POINTS, Recorder, Tally, _hash
from mixopt.tracking.sending import SyncResult
from mixopt.trials import Losses, Trial, TrialFolder, TrialResult

TAGS = {"mixopt.fingerprint": "0123"}


class MemoryStore:
    """Keeps what it is given, as MLflow's store would; refuses all while it is down."""

    def __init__(self):
        self.calls, self.is_down, self.deleted = [], False, set()

    def _note(self, *call):
        if self.is_down:
            raise OSError("down")
        self.calls.append(call)

    def has(self, run):
        self._note("has", run)
        return run not in self.deleted

    def parent(self, key, step, wanted):
        self._note("parent", step, wanted.mark)
        return f"{step}-{wanted.mark}-{sum(call[0] == 'parent' for call in self.calls)}"

    def trial(self, key, parent, file, content):
        self._note("trial", parent, file.stem)
        return f"{parent}/{file.stem}"

    def points(self, run, points):
        self._note("points", run, [(p.key, p.step) for p in points])

    def artifact(self, run, file, folder):
        self._note("artifact", run, file.name, folder)

    def tags(self, run, tags):
        self._note("tags", run, dict(tags))

    def status(self, run, status, ended):
        self._note("status", run, status, ended)

    def take(self):
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def store():
    return MemoryStore()


def recorder(path, store, noted=lambda: None):
    return Recorder(path, "memory", lambda: store, noted)


def say(path, op, step="sweep", time=1.5, **more):
    journal = LineFile(path / JOURNAL)
    journal.append({"op": op, "step": step, "time": time, **more})
    journal.close()


def start(path, tags=TAGS, folder=None, **more):
    fields = {"name": "sweep", "params": {}, "environment": {}, "datasets": []}
    say(path, "start", folder=folder, tags=tags, **fields, **more)


def trial_file(path, name, loss=2.0):
    losses = Losses(1000, {"web": loss}, {"web": 1.0})
    result = TrialResult(name, "finished", 1000, 42, 2.0, losses)
    TrialFolder(path / "trials").write(0, [Trial(name, Mixture({"web": 1.0}), 7)], [result])


def test_a_step_is_opened_filled_and_ended_in_order_and_once(tmp_path, store):
    start(tmp_path, folder="trials")
    trial_file(tmp_path, "t0")
    (tmp_path / "a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["a.svg"], folder="figures", trial=None)
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
    for name in ("a.svg", "b.svg", "c.svg"):
        (tmp_path / name).write_bytes(name.encode())
    files = ["a.svg", "b.svg", "c.svg", "absent.svg"]
    say(tmp_path, "files", files=files, folder=None, trial=None)
    say(tmp_path, "follow", file="m.jsonl", trial=None)
    lines = MetricLines(tmp_path / "m.jsonl")
    for step in range(4):
        lines.write({"x": 1.0, "y": {"a": 2.0}}, step)
    found = recorder(tmp_path, store)
    assert found.left() == Tally(points=8, trials=2, files=3, runs=1)
    found.send()
    assert found.left() == Tally(), "the status of a run that was just made is known"
    (tmp_path / "b.svg").write_bytes(b"other")
    lines.write({"x": 1.0}, 9)
    assert found.left() == Tally(points=1, files=1)
    say(tmp_path, "end")
    assert found.left().runs == 1


def test_files_of_a_step_and_of_its_trials_are_left_together(tmp_path, store):
    start(tmp_path, folder="trials")
    trial_file(tmp_path, "t0")
    found = recorder(tmp_path, store)
    found.send()
    for name, trial in (("a.svg", None), ("b.svg", "t0"), ("c.svg", "t0")):
        (tmp_path / name).write_bytes(name.encode())
        say(tmp_path, "files", files=[name], folder=None, trial=trial)
        say(tmp_path, "follow", file=f"{name}.jsonl", trial=trial)
        MetricLines(tmp_path / f"{name}.jsonl").write({"x": 1.0, "y": 2.0}, 1)
    assert found.left() == Tally(points=6, files=3)


def test_what_a_changed_fingerprint_begins_is_all_left(tmp_path, store):
    start(tmp_path)
    (tmp_path / "a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["a.svg"], folder=None, trial=None)
    found = recorder(tmp_path, store)
    found.send()
    start(tmp_path, tags={"mixopt.fingerprint": "4567"})
    say(tmp_path, "files", files=["a.svg"], folder=None, trial=None)
    assert found.left() == Tally(files=1, runs=1)
    store.take()
    found.send()
    assert [call[0] for call in store.take()] == ["parent", "status", "artifact"]


def test_a_run_that_was_deleted_is_made_again_with_all_it_had(tmp_path, store):
    start(tmp_path)
    (tmp_path / "a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["a.svg"], folder=None, trial=None)
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
        steps = read_json(tmp_path / "tracking.json")["servers"]["memory"]
        known.append(sorted(steps["sweep"]["trials"]))

    recorder(tmp_path, store, noted).send()
    assert known[0] == []
    assert ["t0"] in known
    assert known[-1] == ["t0", "t1"]


def test_a_trials_metrics_and_files_go_to_its_child_and_wait_for_it(tmp_path, store):
    start(tmp_path, folder="trials")
    (tmp_path / "a.svg").write_bytes(b"one")
    say(tmp_path, "files", files=["a.svg"], folder=None, trial="t0")
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


def test_what_another_server_has_is_kept(tmp_path):
    first = TrackingRecord(tmp_path, "http://one")
    position = Position(7, "tail", {"x": 3}, {"x": 1})
    first.steps["sweep"] = RunRecord("1", "m", "FINISHED", "t", {"a": "h"}, {"m": position})
    first.steps["sweep"].trials["t0"] = RunRecord("2", "n")
    first.write()
    second = TrackingRecord(tmp_path, "http://two")
    assert second.steps == {}
    assert second.key == first.key
    second.steps["log"] = RunRecord("3")
    second.write()
    assert TrackingRecord(tmp_path, "http://one").steps == first.steps
    assert TrackingRecord(tmp_path, "http://two").steps == second.steps


def test_a_record_of_another_format_keeps_its_key_alone(tmp_path):
    first = TrackingRecord(tmp_path, "u")
    first.steps["sweep"] = RunRecord("1")
    first.write()
    content = read_json(tmp_path / "tracking.json")
    (tmp_path / "tracking.json").write_text(json.dumps({**content, "format": "other"}))
    again = TrackingRecord(tmp_path, "u")
    assert (again.steps, again.key) == ({}, first.key)


# --- The process that sends ----------------------------------------------------------------------


class Waits(threading.Event):
    """Notes how long is waited, does not wait, and is set when it has waited so often."""

    def __init__(self, times):
        super().__init__()
        self.asked, self._times = [], times

    def wait(self, timeout=None):
        self.asked.append(timeout)
        if len(self.asked) == self._times:
            self.set()


def sender(path, store=None):
    """Return a sender to a store in memory, or to a port where nothing answers; and its answers."""
    answers = []
    made = Sender(path, "http://127.0.0.1:9", "toy", answers.append)
    if store is not None:
        made.recorder._connect = lambda: store
    return made, answers


def test_a_server_that_is_down_is_tried_after_longer_and_longer_pauses(tmp_path):
    start(tmp_path)
    made, answers = sender(tmp_path)
    waits = Waits(8)
    made.run(waits)
    assert waits.asked == [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(answers) == 9, "once more when training has ended"
    assert answers[0]["warning"].startswith("http://127.0.0.1:9: ConnectionRefusedError: ")


def test_a_server_that_is_up_is_sent_to_every_two_seconds_and_a_pause_begins_anew(tmp_path, store):
    start(tmp_path)
    made, _ = sender(tmp_path, store)

    class Down(Waits):
        def wait(self, timeout=None):
            super().wait(timeout)
            store.is_down = len(self.asked) in {2, 3, 5}
            say(tmp_path, "tags", tags={"at": str(len(self.asked))})

    waits = Down(7)
    made.run(waits)
    assert waits.asked == [2, 2, 1, 2, 2, 1, 2]


def test_when_training_has_ended_all_is_sent_once_and_the_run_is_killed(tmp_path, store):
    start(tmp_path)
    made, _ = sender(tmp_path, store)
    ended = threading.Event()
    ended.set()
    made.run(ended)
    assert [call[0] for call in store.take()] == ["parent", "status"]
    down, answers = sender(tmp_path / "down")
    start(tmp_path / "down")
    down.run(ended)
    assert len(answers) == 1, "a server that is down is tried once at the end"


def test_a_sender_whose_training_is_gone_ends_though_its_input_is_open(tmp_path, store):
    start(tmp_path)
    made, _ = sender(tmp_path, store)
    made._parent = os.getppid() + 1  # as if another process had become its parent
    waits = Waits(3)
    made.run(waits)
    assert waits.asked == []
    assert ("status", "sweep-0123-1", "KILLED") in [call[:3] for call in store.take()]


def test_training_that_ends_while_a_server_is_tried_in_vain_is_not_kept_waiting(tmp_path, store):
    start(tmp_path)
    made, answers = sender(tmp_path, store)
    ended, store.is_down = threading.Event(), True
    made._answer = lambda message: (answers.append(message), ended.set())
    made.run(ended)
    assert len(answers) == 1


def test_a_warning_is_the_first_line_of_the_error(tmp_path, store):
    start(tmp_path)
    made, answers = sender(tmp_path, store)
    store._note = lambda *call: (_ for _ in ()).throw(ValueError("first\nsecond"))
    assert not made.attempt()
    assert answers == [{"warning": "http://127.0.0.1:9: ValueError: first"}]


def test_one_process_at_a_time_sends_of_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("mixopt.tracking.process.LOCK_SECONDS", -1.0)
    signs = []
    with _alone(tmp_path, lambda: signs.append(1)):
        with pytest.raises(RunError), _alone(tmp_path, lambda: signs.append(1)):
            pass
        with pytest.raises(RunError), only_one(tmp_path, LOCK):
            pass
    with _alone(tmp_path, lambda: signs.append(1)):
        pass
    assert signs == []


def test_a_server_behind_a_proxy_and_a_database_are_not_knocked_at(monkeypatch):
    check_reachable("sqlite:///none.db")
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_reachable(f"http://127.0.0.1:{server.getsockname()[1]}/path")
    with pytest.raises(OSError, match="refused"):
        check_reachable("http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    check_reachable("http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(OSError, match="refused"):
        check_reachable("http://127.0.0.1:9")


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
