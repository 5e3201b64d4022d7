"""Limits that no mixture meets: which are in conflict, and the least that mends it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.mixture import total_variation

INVENTORY = {"web": 60, "code": 30, "law": 10}


def constraints(**fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY, 100)


def refusal(**fields) -> str:
    with pytest.raises(InfeasibleError) as caught:
        constraints(**fields)
    return str(caught.value)


def group(domains, least=0.0, most=1.0):
    return {"domains": domains, "bounds": (least, most)}


def test_a_group_that_its_domains_cannot_fill_is_named_with_what_is_missing():
    said = refusal(
        bounds={"code": (0, 0.2), "law": (0, 0.1)}, groups={"rare": group(["code", "law"], 0.4)}
    )
    assert "group rare >= 0.4" in said
    assert "code <= 0.2" in said
    assert "law <= 0.1" in said
    assert "to 0.3" in said


def test_only_the_limits_in_conflict_are_named():
    said = refusal(
        bounds={"web": (0.0, 0.9)},
        groups={"rare": group(["law"], 0.5), "text": group(["web", "law"], 0.0, 0.3)},
    )
    assert "web" not in re.sub(r"group \w+", "", said.split(";")[0])
    assert "rare" in said
    assert "text" in said


def test_a_radius_that_the_floors_leave_is_named_with_the_radius_that_is_enough():
    said = refusal(bounds={"law": (0.3, 1.0)}, radius={"tv": 0.05})
    enough = float(re.search(r"radius.tv: ([0-9.]+)", said).group(1))
    assert enough == pytest.approx(0.2, abs=1e-3)  # law rises from 0.1 to 0.3
    constraints(bounds={"law": (0.3, 1.0)}, radius={"tv": enough})


@settings(max_examples=60, deadline=None)
@given(st.floats(0.15, 0.95), st.floats(0.001, 0.05), st.booleans())
def test_the_radius_that_is_offered_is_enough_and_hardly_more(least, size, divergence):
    kind = "kl" if divergence else "tv"
    fields = {"bounds": {"law": (least, 1.0)}, "radius": {kind: size}}
    try:
        constraints(**fields)
        return
    except InfeasibleError as error:
        enough = float(re.search(rf"radius.{kind}: ([0-9.]+)", str(error)).group(1))
    constraints(**{**fields, "radius": {kind: enough}})
    with pytest.raises(InfeasibleError):
        constraints(**{**fields, "radius": {kind: 0.98 * enough}})


def test_a_group_of_unknown_domains_is_refused():
    with pytest.raises(ConfigError, match="'lwa'; did you mean 'law'"):
        constraints(groups={"rare": group(["lwa"], 0.1)})


def test_designs_keep_to_groups_and_not_to_the_radius():
    limits = constraints(groups={"rare": group(["code", "law"], 0.5)}, radius={"tv": 0.3})
    drawn_ND = limits.of_designs.allowed.from_cube(np.random.default_rng(0).random((200, 2)))
    assert (drawn_ND[:, 1:].sum(axis=1) >= 0.5 - 1e-9).all()
    natural_D = np.array([0.6, 0.3, 0.1])
    assert total_variation(drawn_ND, natural_D).max() > 0.3
    inside_ND = limits.allowed.from_cube(np.random.default_rng(0).random((200, 2)))
    assert total_variation(inside_ND, natural_D).max() <= 0.3 + 1e-9
