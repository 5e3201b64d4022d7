"""What is tried once more, and what is kept of it."""

import pytest

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.sweeps import GroupOutcome, read_groups
from mixopt.sweeps.attempts import Attempts, write_groups
from mixopt.trials import Trial, TrialResult


def named(names):
    return [Trial(name, Mixture({"x": 1.0}), seed=0) for name in names]


@pytest.fixture
def attempts(tmp_path):
    write_groups(tmp_path, [list("abc"), list("de"), list("f")])
    return Attempts(tmp_path, [named("abc"), named("de"), named("f")], finished=["d", "e"])


def waiting(attempts):
    return {n: "".join(t.name for t in group) for n, group in attempts.waiting.items()}


def lost(group, fault="died"):
    return GroupOutcome(group, reason="the worker died", fault=fault)


def result(name):
    return TrialResult(name, "finished", 1, 1, 0.0)


def test_groups_that_are_finished_do_not_wait(attempts):
    assert waiting(attempts) == {0: "abc", 2: "f"}


def test_a_group_whose_worker_died_waits_again_under_a_number_of_its_own(attempts):
    assert attempts.settle(lost(0)) == ("the worker died; retrying a and 2 more", [])
    assert waiting(attempts) == {0: "abc", 2: "f", 3: "abc"}
    assert (attempts.retried, attempts.lost) == (3, 0)


def test_after_short_memory_its_halves_do(attempts, tmp_path):
    said, failed = attempts.settle(lost(0, "memory"))
    assert (said, failed) == ("the worker died; retrying a and 2 more, in halves", [])
    assert waiting(attempts) == {0: "abc", 2: "f", 3: "ab", 4: "c"}
    assert read_groups(tmp_path) == [["a", "b"], ["c"], ["d", "e"], ["f"]]


def test_halves_are_halved_down_to_single_trials(attempts, tmp_path):
    attempts.settle(lost(0, "memory"))
    attempts.settle(lost(3, "memory"))
    assert waiting(attempts) == {0: "abc", 2: "f", 3: "ab", 4: "c", 5: "a", 6: "b"}
    assert read_groups(tmp_path) == [["a"], ["b"], ["c"], ["d", "e"], ["f"]]


def test_one_trial_alone_is_not_halved(attempts, tmp_path):
    assert attempts.settle(lost(2, "memory")) == ("the worker died; retrying f", [])
    assert waiting(attempts)[3] == "f"
    assert read_groups(tmp_path)[-1] == ["f"]


def test_what_a_worker_dies_of_twice_has_failed(attempts):
    attempts.settle(lost(0))
    assert attempts.settle(lost(3)) == ("", named("abc"))
    assert attempts.reason(lost(3)) == "tried twice: the worker died"


def test_a_place_that_goes_away_is_forgiven_as_often_as_asked(tmp_path):
    write_groups(tmp_path, [["a"]])
    attempts = Attempts(tmp_path, [named("a")], finished=[], retries=2)
    assert attempts.settle(lost(0, "lost"))[1] == []
    assert attempts.settle(lost(1, "lost"))[1] == []
    assert attempts.settle(lost(2, "lost")) == ("", named("a"))
    assert attempts.reason(lost(2, "lost")) == "lost 3 times: the worker died"
    assert (attempts.lost, attempts.retried) == (3, 2)


def test_a_reason_that_the_proxy_gave_is_final(attempts):
    outcome = GroupOutcome(0, reason="ValueError: no such layer")
    assert attempts.settle(outcome) == ("", named("abc"))
    assert attempts.reason(outcome) == "ValueError: no such layer"


def test_what_a_place_takes_no_more_of_is_a_group_of_its_own(attempts, tmp_path):
    assert attempts.settle(GroupOutcome(0, [result("a"), result("b")], trained=2)) == ("", [])
    assert waiting(attempts) == {0: "abc", 2: "f", 3: "c"}
    assert read_groups(tmp_path) == [["a", "b"], ["c"], ["d", "e"], ["f"]]


def test_where_a_part_has_failed_the_other_part_is_handed_out(attempts):
    assert attempts.settle(GroupOutcome(0, reason="no such layer", trained=1)) == ("", named("a"))
    assert waiting(attempts)[3] == "bc"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[[", "cannot be read"),
        ("{}", "should be a valid list"),
        ("[7]", "0: should be a valid list, got 7"),
        ('[["a"], ["b", 7]]', "1.1: should be a valid string, got 7"),
        ("[[]]", "0: List should have at least 1 item"),
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
