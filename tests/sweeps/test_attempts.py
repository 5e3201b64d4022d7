"""Retries of groups, halving after memory errors, and patience with a worker."""

import pytest

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.sweeps import Beat, GroupOutcome, failure_kind, read_groups
from mixopt.sweeps.retries import RetryQueue, Watch
from mixopt.system import write_json
from mixopt.trials import Trial, TrialResult


def named(names):
    return [Trial(name, Mixture({"x": 1.0}), seed=0) for name in names]


class FailingSweep:
    """A sweep of groups abc, de (which is finished) and f."""

    def __init__(self, folder, groups=("abc", "de", "f")):
        write_json(folder / "groups.json", [list(group) for group in groups])
        self.folder, self.lines = folder, []
        self.queue = RetryQueue(folder, [named(g) for g in groups], ["d", "e"])

    def fail(self, names, fault="died"):
        return self.retry_or_fail(GroupOutcome(named(names), reason="the worker died", fault=fault))

    def retry_or_fail(self, outcome):
        failed = self.queue.retry_or_fail(outcome, self.lines.append)
        return {result.trial: result.reason for result in failed}

    @property
    def queued(self):
        return ["".join(trial.name for trial in group) for group in self.queue.groups]

    @property
    def saved(self):
        return ["".join(names) for names in read_groups(self.folder)]


@pytest.fixture
def sweep(tmp_path):
    return FailingSweep(tmp_path)


def test_a_dead_worker_s_group_is_retried_once_and_a_proxy_error_is_final(sweep):
    assert sweep.queued == ["abc", "f"]
    assert sweep.fail("abc") == {}
    assert sweep.lines == ["the worker died; retrying a and 2 more"]
    outcome = GroupOutcome(named("abc"), reason="ValueError: no such layer")
    assert sweep.retry_or_fail(outcome) == dict.fromkeys("abc", "ValueError: no such layer")


def test_a_group_is_halved_after_each_memory_error_down_to_single_trials(sweep):
    assert sweep.fail("abc", "memory") == {}
    assert sweep.lines == ["the worker died; retrying a and 2 more, in halves"]
    assert sweep.queued == ["abc", "f", "ab", "c"]
    assert sweep.saved == ["ab", "c", "de", "f"]
    sweep.fail("ab", "memory")
    assert sweep.queued == ["abc", "f", "ab", "c", "a", "b"]
    assert sweep.saved == ["a", "b", "c", "de", "f"]


def test_a_single_trial_is_retried_instead_of_halved(sweep):
    assert sweep.fail("f", "memory") == {}
    assert sweep.lines == ["the worker died; retrying f"]
    assert (sweep.queued[-1], sweep.saved[-1]) == ("f", "f")
    assert sweep.fail("f", "memory") == {"f": "tried twice: the worker died"}


@pytest.mark.parametrize(
    ("fault", "forgiven", "reason"), [("died", 1, "tried twice"), ("lost", 3, "lost 4 times")]
)
def test_trials_fail_when_their_retries_are_used_up(sweep, fault, forgiven, reason):
    assert [sweep.fail("abc", fault) for _ in range(forgiven)] == [{}] * forgiven
    assert sweep.fail("abc", fault) == dict.fromkeys("abc", f"{reason}: the worker died")
    assert sweep.queued == ["abc", "f", *["abc"] * forgiven]


def test_errors_that_differ_in_names_and_numbers_have_the_same_kind():
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
        ('[["a"], ["b", "a"]]', "trial 'a' is in two groups"),
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
    """A watch that is polled every half second."""

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


def test_a_worker_is_overdue_only_when_it_stands_still_longer_than_the_patience():
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
def test_starting_and_compiling_get_ten_minutes_without_progress(doing):
    watched = Watched()
    assert watched.wait(600.0, doing=doing) is None
    assert "made no progress" in watched.wait(1.0, doing=doing)
    assert Watched(patience=900.0).wait(900.0, doing=doing) is None


def test_time_while_the_sweep_was_suspended_does_not_count():
    watched = Watched()
    watched.wait(0.5, **training(1))
    watched.now += 3600.0
    assert watched.wait(0.5, **training(1)) is None
