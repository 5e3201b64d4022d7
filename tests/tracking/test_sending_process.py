"""When the process that sends tries, how long it pauses, and when it ends; without MLflow."""

import os
import threading

import pytest
from memory_store import MemoryStore, say, start

from mixopt.errors import RunError
from mixopt.system import only_one
from mixopt.tracking.process import LOCK, Sender, _alone
from mixopt.tracking.server_knock import check_reachable


@pytest.fixture
def store():
    return MemoryStore()


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
    with _alone(tmp_path):
        with pytest.raises(RunError), _alone(tmp_path):
            pass
        with pytest.raises(RunError), only_one(tmp_path, LOCK):
            pass
    with _alone(tmp_path):
        pass


def test_a_server_behind_a_proxy_and_a_database_are_not_knocked_at(monkeypatch):
    check_reachable("sqlite:///none.db")
    with pytest.raises(OSError, match="refused"):
        check_reachable("http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    check_reachable("http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(OSError, match="refused"):
        check_reachable("http://127.0.0.1:9")
