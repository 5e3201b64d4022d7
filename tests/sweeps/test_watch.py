"""When a worker is taken to hang: silence, standing still, and what is no reason."""

from dataclasses import dataclass

import pytest

from mixopt.sweeps.group_folder import Beat
from mixopt.sweeps.group_runner import Watch


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch that is looked at every half second."""

    def __init__(self, patience=10.0):
        self.clock = Clock()
        self.watch = Watch(patience, self.clock)

    def wait(self, seconds):
        """Let time pass, and return the first reason to kill."""
        for _ in range(round(seconds * 2)):
            self.clock.now += 0.5
            reason = self.watch.overdue()
            if reason is not None:
                return reason
        return None

    def beat(self, seconds, **beat):
        """Let time pass, a heartbeat every half second."""
        for _ in range(round(seconds * 2)):
            self.clock.now += 0.5
            self.watch.hear(Beat(**beat))
            reason = self.watch.overdue()
            if reason is not None:
                return reason
        return None


@pytest.fixture
def watched():
    return Watched()


def training(moves, **more):
    return {"doing": "training", "done": moves, "total": 100, "moves": moves, **more}


def test_silence_up_to_the_patience_is_borne(watched):
    watched.beat(0.5, **training(1))
    assert watched.wait(10.0) is None


def test_longer_silence_is_the_end(watched):
    watched.beat(0.5, **training(1))
    assert watched.wait(20.0) == (
        "the worker sent no heartbeat for 10.5 s while training, longer than its patience of "
        "10.0 s, and was killed"
    )


def test_a_worker_that_starts_has_fifteen_seconds_at_least(watched):
    assert watched.wait(15.0) is None
    assert "while starting, longer than its patience of 15.0 s" in watched.wait(1.0)


def test_a_heartbeat_ends_silence(watched):
    watched.beat(0.5, **training(1))
    watched.wait(9.0)
    watched.beat(0.5, **training(2))
    assert watched.wait(9.0) is None


def test_a_heart_that_beats_is_not_enough_where_training_stands_still(watched):
    watched.beat(1.0, **training(1))
    reason = watched.beat(20.0, **training(1))
    assert reason == (
        "the worker made no progress for 10.5 s while training, longer than its patience of 10.0"
        " s, and was killed; raise sweep.patience if a step takes so long"
    )


def test_training_that_moves_may_last(watched):
    for moves in range(10):
        assert watched.beat(9.0, **training(moves)) is None


@pytest.mark.parametrize("doing", ["starting", "compiling"])
def test_nothing_needs_to_move_for_ten_minutes_of_starting_and_compiling(watched, doing):
    assert watched.beat(600.0, doing=doing) is None
    assert "made no progress" in watched.beat(2.0, doing=doing)


def test_a_longer_patience_is_that_of_compiling_too():
    watched = Watched(patience=900.0)
    assert watched.beat(900.0, doing="compiling") is None


def test_five_times_the_slowest_step_is_borne(watched):
    watched.beat(0.5, **training(1))
    watched.beat(0.5, **training(2))
    watched.beat(7.5, **training(2))
    watched.beat(0.5, **training(3))
    assert watched.watch.patience == 40.0
    assert watched.beat(40.0, **training(3)) is None
    assert "longer than its patience of 40.0 s" in watched.beat(1.0, **training(3))


def test_a_compilation_is_no_step(watched):
    watched.beat(100.0, doing="compiling", total=100)
    watched.beat(0.5, **training(1))
    assert watched.watch.patience == 10.0


def test_a_proxy_that_has_not_reported_is_given_the_time_in_which_it_computes(watched):
    for seconds in range(100):
        assert watched.beat(0.5, doing="training", cpu=float(seconds)) is None
    assert "made no progress" in watched.beat(20.0, doing="training", cpu=99.0)


def test_one_that_has_reported_is_not(watched):
    watched.beat(0.5, **training(1))
    reasons = [watched.beat(0.5, **training(1, cpu=float(seconds))) for seconds in range(30)]
    assert any(reasons)


def test_time_in_which_the_sweep_itself_was_suspended_does_not_count(watched):
    watched.clock.now += 3600.0
    assert watched.watch.overdue() is None
