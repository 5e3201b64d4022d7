"""Thresholds are named and can be; others are one line that says what they can be."""

import pytest

from mixopt.errors import RoutingError
from mixopt.routing import Thresholds


def test_some_thresholds_are_others_and_the_rest_are_kept():
    found = Thresholds().with_values({"busiest": 3, "dead": 0.1}, "--threshold")
    assert (found.busiest, found.dead, found.effective) == (3, 0.1, Thresholds().effective)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("bussiest", 3, "bussiest: unknown threshold; did you mean 'busiest'?"),
        ("dead", 1.5, "dead: 1.5 is not possible; it must be 0 to 1"),
        ("dead", float("nan"), "dead: nan is not possible; it must be 0 to 1"),
        ("busiest", 0.5, "busiest: 0.5 is not possible; it must be 1 or more"),
        ("busiest", float("inf"), "busiest: inf is not possible; it must be 1 or more"),
        ("assignments", float("inf"), "assignments: inf is not possible; it must be 0 or more"),
        ("assignments", -1, "assignments: -1 is not possible; it must be 0 or more"),
    ],
)
def test_a_threshold_that_cannot_be_is_one_line(name, value, said):
    with pytest.raises(RoutingError) as error:
        Thresholds().with_values({name: value}, "--threshold")
    assert str(error.value) == f"--threshold: {said}"


def test_a_load_that_no_expert_can_have_is_no_threshold():
    sizes = {"0": (64, 8), "1": (8, 2)}
    Thresholds(busiest=7.9).check_reachable(sizes, "--threshold")
    Thresholds().check_reachable(sizes, "--threshold")
    with pytest.raises(
        RoutingError, match="busiest: 8 cannot be exceeded: .* has 8 times the even"
    ):
        Thresholds(busiest=8).check_reachable(sizes, "--threshold")
