"""Limits of domains and of groups: which counts, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints, LinearLimit, cap, floor
from mixopt.constraints.limits import down, epoch_cap, up
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.mixture import Mixture

INVENTORY = {"web": 60, "code": 30, "law": 10}


def constraints(target_tokens=100, **fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY, target_tokens)


def rare(least=0.2, most=0.4, domains=("code", "law")) -> Constraints:
    return constraints(groups={"rare": {"domains": list(domains), "bounds": (least, most)}})


def test_numbers_in_messages_are_rounded_to_the_safe_side():
    assert (up(0.12301), down(0.123499)) == ("0.124", "0.1234")
    assert (up(8.000000000000002), down(7.9999999999)) == ("8", "8")
    assert (up(1234.5), up(0.5, 4)) == ("1.24e+03", "0.5")


def test_the_strictest_limit_of_each_domain_counts_in_the_domains_order():
    caps = (cap("b", 0.5, "x"), cap("a", 0.4, "x"), cap("b", 0.3, "y"))
    floors = (floor("b", 0.1, "x"), floor("b", 0.2, "y"))
    found = Constraints(tuple("abc"), (*floors, *caps)).strictest
    assert [(one.text, one.source) for one in found] == [
        ("a <= 0.4", "x"),
        ("b <= 0.3", "y"),
        ("b >= 0.2", "y"),
    ]


def test_a_scaled_limit_is_never_above_1():
    assert cap("a", 1.8, "s", setting=9, rate=0.2).value == 1.0
    assert epoch_cap("a", 30, 2, 100).value == pytest.approx(0.6)
    assert epoch_cap("a", 30, 20, 100).value == 1.0


def test_a_cap_that_scales_says_the_setting_that_would_allow_a_weight():
    said = cap("web", 0.2, "design.max_usage", setting=2, rate=0.1).refusal(0.35)
    assert said == (
        "a weight of 0.35 is above 0.2, the maximum set by design.max_usage: 2. Lower it to <= "
        "0.2, or allow max_usage: 3.5."
    )


def test_a_groups_domains_differ_and_a_least_below_its_most():
    with pytest.raises(ConfigError, match=r"groups.rare: domain 'law' is given twice"):
        rare(domains=("law", "code", "law"))
    with pytest.raises(
        ConfigError, match=r"groups.rare: the minimum, 0.5, is above the maximum, 0.4"
    ):
        rare(least=0.5)
    assert rare(least=0.4).groups == {"rare": (("code", "law"), 0.4, 0.4)}


def test_a_mixture_outside_a_groups_bounds_is_told_both_ways_out():
    limits = rare()
    assert limits.violations(Mixture({"web": 0.5, "code": 0.3, "law": 0.2})) == [
        "group 'rare': a share of 0.5 is above 0.4, the maximum set by constraints.groups.rare. "
        "Lower it to <= 0.4, or allow 0.5 in constraints.groups.rare."
    ]
    assert limits.violations(Mixture({"web": 0.9, "code": 0.1, "law": 0.0})) == [
        "group 'rare': a share of 0.1 is below 0.2, the minimum set by constraints.groups.rare. "
        "Raise it to >= 0.2, or allow 0.1 in constraints.groups.rare."
    ]
    for share, broken in ((0.191, 0), (0.3, 0), (0.409, 0), (0.189, 1), (0.411, 1)):
        mixture = Mixture({"web": 1 - share, "code": share, "law": 0.0})
        assert len(limits.violations(mixture, tolerance=0.01)) == broken


def test_the_sides_of_a_group_that_hold_a_mixture_are_named():
    def held(limits, code, law=0.0):
        return limits.binding(Mixture({"web": 1 - code - law, "code": code, "law": law}))

    assert held(rare(), 0.4) == ["group rare <= 0.4 (constraints.groups.rare)"]
    assert held(rare(), 0.1, 0.1) == ["group rare >= 0.2 (constraints.groups.rare)"]
    assert held(rare(), 0.3) == []
    assert held(rare(0.0, 1.0), 0.0) == held(rare(0.0, 1.0), 1.0) == []


def test_violations_name_groups_and_the_radius():
    limits = constraints(
        groups={"rare": {"domains": ["code", "law"], "bounds": (0.2, 0.5)}}, radius={"tv": 0.2}
    )
    assert limits.violations(Mixture({"web": 0.6, "code": 0.3, "law": 0.1})) == []
    group_line, radius_line = limits.violations(Mixture({"law": 0.7, "web": 0.2, "code": 0.1}))
    assert group_line.startswith("group 'rare': a share of 0.8 is above 0.5")
    assert radius_line.startswith("the mixture is 0.6 (total variation) from natural")


def test_a_limit_may_be_missed_by_the_tolerance_and_no_more():
    limits = constraints(bounds={"code": (0.2, 0.4)})
    for code, lines in ((0.4009, 0), (0.4011, 1), (0.1991, 0), (0.1989, 1)):
        mixture = Mixture({"web": 1 - code, "code": code, "law": 0.0})
        assert len(limits.violations(mixture, tolerance=1e-3)) == lines


def test_groups_and_the_radius_are_named_among_what_binds():
    limits = constraints(
        groups={"rare": {"domains": ["code", "law"], "bounds": (0.2, 0.5)}}, radius={"tv": 0.1}
    )
    assert limits.binding(Mixture({"web": 0.5, "code": 0.4, "law": 0.1})) == [
        "group rare <= 0.5 (constraints.groups.rare)",
        "total variation from natural <= 0.1 (constraints.radius)",
    ]


def test_a_limit_that_is_as_wide_as_the_simplex_does_not_bind():
    free = Constraints(("web", "code"), (LinearLimit(("web",), 1.0, "x"),))
    assert free.binding(Mixture({"web": 1.0, "code": 0.0})) == []


def test_a_domains_own_number_of_epochs_wins_over_that_of_all():
    limits = constraints(max_epochs={"*": 2, "law": 5})
    assert limits.upper_D.tolist() == pytest.approx([1.0, 0.6, 0.5])
    only = constraints(max_epochs={"law": 5})
    assert only.upper_D.tolist() == pytest.approx([1.0, 1.0, 0.5])
    assert only.linear[0].source == "constraints.max_epochs.law"
    with pytest.raises(ConfigError, match=r"max_epochs: unknown domain 'lwa'; did you mean"):
        constraints(max_epochs={"lwa": 5})
    with pytest.raises(ConfigError, match=r"constraints.max_epochs: needs the length"):
        constraints(None, max_epochs={"law": 5})


def test_further_floors_and_caps_add_to_those_there_are():
    limits = constraints(bounds={"code": (0.1, 0.5)})
    both = limits.with_limits([floor("law", 0.2, "x"), cap("web", 0.6, "y")])
    assert both.lower_D.tolist() == [0.0, 0.1, 0.2]
    assert both.upper_D.tolist() == [0.6, 0.5, 1.0]
    assert limits.lower_D.tolist() == [0.0, 0.1, 0.0]


def test_the_reference_of_a_radius_is_natural_uniform_or_a_file(tmp_path):
    Mixture({"law": 0.5, "web": 0.25, "code": 0.25}).to_file(tmp_path / "old.yaml")
    references = {"natural": [0.6, 0.3, 0.1], "uniform": [1 / 3] * 3}
    references[str(tmp_path / "old.yaml")] = [0.25, 0.25, 0.5]
    for name, weights in references.items():
        (radius,) = constraints(radius={"tv": 0.2, "reference": name}).convex
        assert radius.center_D.tolist() == pytest.approx(weights)
        assert (radius.kind, radius.size, radius.name) == ("tv", 0.2, name)
    with pytest.raises(
        ConfigError, match=r"radius.reference: .*natural, uniform, or a file of wei"
    ):
        constraints(radius={"kl": 0.2, "reference": "missing.yaml"})


def test_a_design_keeps_to_bounds_and_groups_alone():
    limits = constraints(
        bounds={"law": (0.05, 1.0)},
        radius={"tv": 0.1},
        guardrails={"reference": "uniform", "margin": 0.1},
    )
    assert (limits.guardrails.reference, limits.guardrails.margin) == ("uniform", 0.1)
    assert limits.guardrails.experts is False
    assert limits.simplex.contains([[0.1, 0.1, 0.8]]).all()
    assert not limits.allowed.contains([[0.1, 0.1, 0.8]]).any()


def test_the_least_change_of_each_setting_in_a_conflict_is_said():
    with pytest.raises(InfeasibleError) as caught:
        constraints(
            max_epochs=1.1,
            bounds={"web": (0.3, 1.0)},
            groups={"rare": {"domains": ["code", "law"], "bounds": (0.5, 1.0)}},
        )
    assert str(caught.value) == (
        "no mixture satisfies all of these limits, short by 0.06 (constraints.max_epochs: 1.1: "
        "code <= 0.33, law <= 0.11; constraints.groups.rare: group rare >= 0.5); allow "
        "max_epochs: 1.25 (or a run of 88 tokens), or lower the minimum of "
        "constraints.groups.rare to 0.44"
    )


def test_a_minimum_entropy_stands_beside_a_radius():
    limits = constraints(min_entropy=0.9, radius={"tv": 0.35})
    assert [one.text for one in limits.convex] == [
        "entropy >= 0.9",
        "total variation from natural <= 0.35",
    ]
    near = Mixture({"web": 0.65, "code": 0.25, "law": 0.1})
    (said,) = limits.violations(near)
    assert said == (
        "the mixture's entropy is 0.8568 (2.36 effective domains); constraints.min_entropy is 0.9."
        " Spread it more evenly, or allow min_entropy: 0.856."
    )
    for weights_D in limits.allowed.from_cube(np.random.default_rng(0).random((40, 2))):
        mixture = Mixture.from_array(limits.domains, weights_D)
        assert limits.violations(mixture) == []


def test_a_minimum_entropy_that_bounds_leave_no_room_for_says_what_would_be_enough():
    with pytest.raises(InfeasibleError, match=r"allow min_entropy: 0\.63[0-9]*") as refused:
        constraints(min_entropy=0.9, bounds={"web": (0.8, 1.0)})
    assert "constraints.min_entropy: entropy >= 0.9" in str(refused.value)
    with pytest.raises(ConfigError, match=r"1\.2 is not below 1\.099, the entropy of 3 equal"):
        constraints(min_entropy=1.2)


def test_the_limits_in_force_are_named_by_their_fields():
    limits = constraints(max_epochs=1.5, bounds={"web": (0.1, 1.0)}, guardrails="natural")
    assert limits.in_force == (
        "constraints.max_epochs: 1.5",
        "constraints.bounds",
        "constraints.guardrails",
    )


def test_limits_are_a_table_in_a_notebook():
    shown = constraints(bounds={"web": (0.1, 1.0)}, guardrails="natural")._repr_html_()
    assert "<td>web &gt;= 0.1</td><td>constraints.bounds</td>" in shown
    assert "every other loss at most 0.02 worse than natural" in shown
