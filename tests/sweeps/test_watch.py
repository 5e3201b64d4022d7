"""When a worker is taken to hang: it stands still, and what is no reason."""

import pytest

from mixopt.sweeps import Beat
from mixopt.sweeps.groups import Watch


class Watched:
    """A watch that is looked at every half second."""

    def __init__(self, patience=10.0):
        self.now = 100.0
        self.watch = Watch(patience, lambda: self.now)

    def wait(self, seconds, **beat):
        """Let time pass, and return the first reason to kill."""
        for _ in range(round(seconds * 2)):
            self.now += 0.5
            reason = self.watch.overdue(Beat(**beat))
            if reason is not None:
                return reason
        return None


def training(moves):
    return {"doing": "training", "done": moves, "total": 100, "moves": moves}


def test_standing_still_is_borne_up_to_the_patience_and_training_that_moves_may_last():
    watched = Watched()
    watched.wait(0.5, **training(1))
    assert watched.wait(10.0, **training(1)) is None
    assert watched.wait(0.5, **training(1)) == (
        "the worker made no progress for 10.5 s while training, longer than its patience of 10.0"
        " s, and was killed; raise sweep.patience if a step takes so long"
    )
    watched = Watched()
    for moves in range(10):
        assert watched.wait(9.0, **training(moves)) is None


@pytest.mark.parametrize("doing", ["starting", "compiling"])
def test_nothing_needs_to_move_for_ten_minutes_of_starting_and_compiling(doing):
    watched = Watched()
    assert watched.wait(600.0, doing=doing) is None
    assert "made no progress" in watched.wait(1.0, doing=doing)
    assert Watched(patience=900.0).wait(900.0, doing=doing) is None


def test_time_in_which_the_sweep_itself_was_suspended_does_not_count():
    watched = Watched()
    watched.wait(0.5, **training(1))
    watched.now += 3600.0
    assert watched.wait(0.5, **training(1)) is None
