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
    assert "law >= 0.3; constraints.radius: total variation from natural <= 0.05)" in said
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
    drawn_ND = limits.simplex.from_cube(np.random.default_rng(0).random((200, 2)))
    assert (drawn_ND[:, 1:].sum(axis=1) >= 0.5 - 1e-9).all()
    natural_D = np.array([0.6, 0.3, 0.1])
    assert total_variation(drawn_ND, natural_D).max() > 0.3
    inside_ND = limits.allowed.from_cube(np.random.default_rng(0).random((200, 2)))
    assert total_variation(inside_ND, natural_D).max() <= 0.3 + 1e-9


def test_a_domain_may_be_fixed():
    assert constraints(bounds={"law": (0.3, 0.3)}).upper_D.tolist() == [1.0, 1.0, 0.3]


def test_the_gap_is_that_of_the_bound_that_has_the_least_way_to_go():
    # The groups add up to 1.5 = (code + law + mail) + 3 web: 1 + 2 web, so web needs 0.25.
    inventory = {"web": 1, "code": 1, "law": 1, "mail": 1}
    pairs = {f"with_{name}": group(["web", name], 0.5) for name in ("code", "law", "mail")}
    config = ConstraintsConfig(bounds={"web": (0.0, 0.1)}, groups=pairs)
    with pytest.raises(InfeasibleError) as caught:
        Constraints.from_config(config, inventory)
    assert str(caught.value) == (
        "no mixture satisfies all of these limits, short by 0.15 (constraints.bounds: web <= "
        "0.1; constraints.groups.with_code: group with_code >= 0.5; constraints.groups.with_law: "
        "group with_law >= 0.5; constraints.groups.with_mail: group with_mail >= 0.5); raise the "
        "maximum of web to 0.25 in constraints.bounds, or lower the minimum of "
        "constraints.groups.with_code to 0.2, or lower the minimum of "
        "constraints.groups.with_law to 0.2, or lower the minimum of "
        "constraints.groups.with_mail to 0.2"
    )


def test_a_change_is_offered_only_where_it_is_enough_for_all_limits():
    said = refusal(
        bounds={"law": (0.5, 1.0)},
        groups={"most": group(["web", "code"], 0.7), "much": group(["web", "code"], 0.6)},
    )
    assert said == (
        "no mixture satisfies all of these limits, short by 0.1 (constraints.bounds: law >= 0.5; "
        "constraints.groups.much: group much >= 0.6); lower the minimum of law to 0.3 in "
        "constraints.bounds"
    )


def test_a_group_with_too_little_room_is_told_how_much_more_it_needs():
    said = refusal(bounds={"law": (0.5, 1.0)}, groups={"rare": group(["code", "law"], 0.0, 0.4)})
    assert "group rare <= 0.4" in said
    assert said.endswith(
        "lower the minimum of law to 0.4 in constraints.bounds, or raise the maximum of "
        "constraints.groups.rare to 0.5"
    )
