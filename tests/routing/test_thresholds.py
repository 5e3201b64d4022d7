"""Thresholds are named and can be; others are one line that says what they can be."""

import pytest
import torch
from torch import nn

from mixopt.errors import RoutingError
from mixopt.routing import RouterStats, RouterTap, Thresholds


def test_some_thresholds_are_others_and_the_rest_are_kept():
    found = Thresholds().with_values({"busiest": 3, "dead": 0.1}, "--threshold")
    assert (found.busiest, found.dead, found.effective) == (3, 0.1, Thresholds().effective)
    assert found.with_values({"busiest": None}, "--threshold").busiest is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("bussiest", 3, "bussiest: unknown threshold; did you mean 'busiest'?"),
        ("dead", 1.5, "dead: 1.5 is not possible; it must be 0 to 1"),
        ("dead", float("nan"), "dead: nan is not possible; it must be 0 to 1"),
        ("busiest", 0.5, "busiest: 0.5 is not possible; it must be 1 or more"),
        ("busiest", float("inf"), "busiest: inf is not possible; it must be 1 or more"),
        ("assignments", float("inf"), "assignments: inf is not possible; it must be 0 or more"),
        ("dead", "a", "dead: 'a' is not a number"),
        ("dead", None, "dead: None is not a number"),
        ("busiest", True, "busiest: True is not a number"),
        ("busiest", [3], "busiest: a list is not a number"),
        ("assignments", -1, "assignments: -1 is not possible; it must be 0 or more"),
    ],
)
def test_a_threshold_that_cannot_be_is_one_line(name, value, said):
    with pytest.raises(RoutingError) as error:
        Thresholds().with_values({name: value}, "--threshold")
    assert str(error.value) == f"--threshold: {said}"


def test_a_load_that_no_expert_can_have_is_no_threshold():
    taps = nn.ModuleList([RouterTap(experts=64, top_k=8), RouterTap(experts=8, top_k=2)])
    highest = RouterStats.attach(taps, ["web"]).total().highest_load
    Thresholds(busiest=7.9).check_reachable(highest, "--threshold")
    Thresholds().check_reachable(highest, "--threshold")
    with pytest.raises(
        RoutingError, match="busiest: 8 cannot be exceeded: .* has 8 times the even"
    ):
        Thresholds(busiest=8).check_reachable(highest, "--threshold")


def test_places_that_were_not_used_tell_that_a_token_may_have_fewer_experts():
    tap = RouterTap(experts=16, top_k=4)
    stats = RouterStats.attach(tap, ["web"])
    assert stats.total().highest_load == 4
    with stats.domains(torch.zeros(1, 2, dtype=torch.long)):
        tap(torch.tensor([[3, -1, -1, -1]] * 2))
    assert stats.total().highest_load == 16
    assert stats.summary().layers["busiest"].to_list() == [16]
