"""What is tried once more, and when a worker is taken to hang."""

import pytest

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.sweeps import Beat, GroupOutcome, failure_kind, read_groups
from mixopt.sweeps.retries import RetryQueue, Watch
from mixopt.system import write_json
from mixopt.trials import Trial, TrialResult


def named(names):
    return [Trial(name, Mixture({"x": 1.0}), seed=0) for name in names]


class Tried:
    """A sweep of groups abc, de (which is finished) and f."""

    def __init__(self, folder, groups=("abc", "de", "f")):
        write_json(folder / "groups.json", [list(group) for group in groups])
        self.folder, self.lines = folder, []
        self.queue = RetryQueue(folder, [named(g) for g in groups], ["d", "e"])

    def lost(self, names, fault="died"):
        return self.retry_or_fail(GroupOutcome(named(names), reason="the worker died", fault=fault))

    def retry_or_fail(self, outcome):
        failed = self.queue.retry_or_fail(outcome, self.lines.append)
        return {result.trial: result.reason for result in failed}

    @property
    def handed_out(self):
        return ["".join(trial.name for trial in group) for group in self.queue.groups]

    @property
    def kept(self):
        return ["".join(names) for names in read_groups(self.folder)]


@pytest.fixture
def tried(tmp_path):
    return Tried(tmp_path)


def test_a_group_whose_worker_died_is_handed_out_again_and_a_reason_of_the_proxy_is_final(tried):
    assert tried.handed_out == ["abc", "f"]
    assert tried.lost("abc") == {}
    assert tried.lines == ["the worker died; retrying a and 2 more"]
    outcome = GroupOutcome(named("abc"), reason="ValueError: no such layer")
    assert tried.retry_or_fail(outcome) == dict.fromkeys("abc", "ValueError: no such layer")


def test_after_short_memory_its_halves_are_and_theirs_down_to_single_trials(tried):
    assert tried.lost("abc", "memory") == {}
    assert tried.lines == ["the worker died; retrying a and 2 more, in halves"]
    assert tried.handed_out == ["abc", "f", "ab", "c"]
    assert tried.kept == ["ab", "c", "de", "f"]
    tried.lost("ab", "memory")
    assert tried.handed_out == ["abc", "f", "ab", "c", "a", "b"]
    assert tried.kept == ["a", "b", "c", "de", "f"]


def test_one_trial_alone_is_not_halved(tried):
    assert tried.lost("f", "memory") == {}
    assert tried.lines == ["the worker died; retrying f"]
    assert (tried.handed_out[-1], tried.kept[-1]) == ("f", "f")
    assert tried.lost("f", "memory") == {"f": "tried twice: the worker died"}


@pytest.mark.parametrize(
    ("fault", "forgiven", "reason"), [("died", 1, "tried twice"), ("lost", 3, "lost 4 times")]
)
def test_what_happens_again_and_again_is_a_failure(tried, fault, forgiven, reason):
    assert [tried.lost("abc", fault) for _ in range(forgiven)] == [{}] * forgiven
    assert tried.lost("abc", fault) == dict.fromkeys("abc", f"{reason}: the worker died")
    assert tried.handed_out == ["abc", "f", *["abc"] * forgiven]


def test_failures_of_one_cause_are_of_one_kind():
    reasons = {
        "t1": "the command ended with exit code 1 (last line: <T at 0x7f3a>); see t1/attempt-1",
        "t2": "tried 2 times: the command ended with exit code 1 (last line: <T at 0x8b0>); see"
        " t2/attempt-2",
    }
    kinds = {
        failure_kind(TrialResult(name, "failed", 0, 0, 0.0, reason=reason))
        for name, reason in reasons.items()
    }
    assert len(kinds) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[["a"], ["b", 7]]', "1.1: should be a valid string, got 7"),
        ('[["a"], ["b", "a"]]', "trial 'a' is in two places"),
        ('[["../a"]]', "trial '../a': a name has no '/'"),
    ],
)
def test_a_damaged_file_of_groups_is_one_line_that_says_what_to_do(tmp_path, content, reason):
    (tmp_path / "groups.json").write_text(content)
    with pytest.raises(RunError) as caught:
        read_groups(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'groups.json'}: ")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("and the groups are formed again")
    assert "\n" not in str(caught.value)


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
