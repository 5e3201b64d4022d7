"""Limits of domains and groups, ratios, radii: what they allow, and what is in conflict."""

import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from refusals import refusal, refuses

from mixopt.config import ConstraintsConfig, read_constraints
from mixopt.constraints import Constraints, KLRadius, cap, floor
from mixopt.constraints.limits import down, up
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.mixture import Mixture, Phases, total_variation

LARGE = {"web": 20_000_000_000, "europarl": 980_000_000, "code": 2_000_000_000}
SMALL = {"web": 60, "code": 30, "law": 10}
TREE = dict.fromkeys(("web/a", "web/b", "code", "law"), 100)


def limits(inventory=SMALL, target_tokens=100, **fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), inventory, target_tokens)


def large(**fields) -> Constraints:
    return limits(LARGE, 25_000_000_000, **fields)


def conflict(build=limits, **fields) -> str:
    return refuses(InfeasibleError, None, build, **fields)


def group(domains, least=0.0, most=1.0):
    return {"domains": domains, "bounds": (least, most)}


def of(web, code, law) -> Mixture:
    return Mixture({"web": web, "code": code, "law": law})


def test_the_strictest_of_bounds_and_epochs_counts_in_the_order_of_the_inventory():
    both = large(max_epochs=4, bounds={"europarl": (0, 0.1), "code": (0.2, 0.9)})
    np.testing.assert_allclose(both.upper_D, [1, 0.1, 0.32])
    assert both.lower_D.tolist() == [0, 0, 0.2]
    limited = limits(max_epochs={"*": 2, "law": 5})
    assert limited.upper_D.tolist() == pytest.approx([1.0, 0.6, 0.5])
    more = limited.with_limits([floor("law", 0.2, "x"), cap("web", 0.6, "y")])
    assert more.lower_D.tolist() == [0.0, 0.0, 0.2]
    assert more.in_force == ("y", "constraints.max_epochs: 2", "constraints.max_epochs.law: 5", "x")


NO_TOKENS = "proportions.base: the domains have no tokens; set their weights"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bounds": {"wbe": (0, 0.5)}}, "unknown domain 'wbe'; did you mean 'web'"),
        ({"bounds": {"web": (0.6, 0.3)}}, "bounds.web: the minimum 0.6 is above the maximum"),
        ({"groups": {"rare": group(["lwa"], 0.1)}}, "'lwa'; did you mean 'law'"),
        ({"groups": {"rare": group(["law", "law"])}}, "rare: domain 'law' is given twice"),
        ({"groups": {"rare": group(["law"], 0.5, 0.4)}}, "rare: the minimum 0.5 is above"),
        ({"max_epochs": {"lwa": 5}}, "max_epochs: unknown domain 'lwa'; did you mean"),
        ({"max_epochs": 4, "target_tokens": None}, "max_epochs: needs .*propose.target_tokens"),
        ({"radius": {"kl": 0.2, "reference": "none.yaml"}}, "natural, uniform, or a file of wei"),
        ({"proportions": {"base": {"web": 1, "cod": 1}}}, "'cod'; did you mean 'code'"),
        ({"inventory": {"a": 0, "b": 0, "c": 1}, "proportions": {"base": ["a", "b"]}}, NO_TOKENS),
    ],
)
def test_a_limit_that_cannot_be_right_is_one_line(fields, message):
    refuses(ConfigError, message, limits, **fields)


def test_numbers_in_messages_are_rounded_to_the_safe_side():
    assert (up(0.12301), down(0.123499)) == ("0.124", "0.1234")
    assert (up(8.000000000000002), down(7.9999999999)) == ("8", "8")
    assert (up(1234.5), up(0.5, 4)) == ("1.24e+03", "0.5")


def test_violations_say_by_how_much_and_what_would_allow_them():
    broken = large(max_epochs=4, bounds={"code": (0.1, 0.3)}).violations(
        Mixture({"web": 0.3, "europarl": 0.65, "code": 0.05})
    )
    assert broken == [
        "domain 'europarl': a weight of 0.65 of 25B tokens needs 16.6 epochs of its 980M tokens;"
        " constraints.max_epochs is 4. Lower it to <= 0.1568, or allow max_epochs: 16.6.",
        "domain 'code': a weight of 0.05 is below 0.1, the minimum set by constraints.bounds. Raise"
        " it to >= 0.1, or allow 0.05 in constraints.bounds.",
    ]
    usage = Constraints(("web", "law"), (cap("web", 0.2, "design.max_usage", setting=2, rate=0.1),))
    assert usage.violations(Mixture({"web": 0.35, "law": 0.65})) == [
        "domain 'web': a weight of 0.35 is above 0.2, the maximum set by design.max_usage: 2."
        " Lower it to <= 0.2, or allow max_usage: 3.5."
    ]

    held = limits(groups={"rare": group(["code", "law"], 0.2, 0.4)}, radius={"tv": 0.2})
    assert held.violations(of(0.5, 0.3, 0.2)) == [
        "group 'rare': a share of 0.5 is above 0.4, the maximum set by constraints.groups.rare. "
        "Lower it to <= 0.4, or allow 0.5 in constraints.groups.rare."
    ]
    low, far = held.violations(of(0.9, 0.1, 0.0))
    assert low.startswith("group 'rare': a share of 0.1 is below 0.2, the minimum set by")
    assert far == (
        "the mixture is 0.3 (total variation) from natural; constraints.radius.tv is 0.2. Move it"
        " closer, or allow tv: 0.3."
    )


def test_a_limit_may_be_missed_by_the_tolerance_and_no_more():
    held = limits(bounds={"code": (0.2, 0.4)})
    for beyond, lines in ((9e-7, 0), (1.1e-6, 1)):
        for code in (0.4 + beyond, 0.2 - beyond):
            assert len(held.violations(of(1 - code, code, 0.0))) == lines


def test_active_constraints_are_named_with_their_fields():
    held = limits(
        max_epochs=1.5,
        bounds={"law": (0.1, 1.0)},
        groups={"rare": group(["code", "law"], 0.2, 0.5)},
        radius={"tv": 0.1},
    )
    assert held.binding(of(0.5, 0.4, 0.1)) == [
        "law >= 0.1 (constraints.bounds)",
        "group rare <= 0.5 (constraints.groups.rare)",
        "total variation from natural <= 0.1 (constraints.radius)",
    ]
    assert held.binding(of(0.6, 0.28, 0.12)) == []


def test_a_design_keeps_to_bounds_and_groups_and_not_to_radius_or_guardrails():
    held = limits(groups={"rare": group(["code", "law"], 0.5)}, radius={"tv": 0.3}, floors={"x": 1})
    cube_NK = np.random.default_rng(0).random((200, 2))
    drawn_ND, natural_D = held.simplex.from_cube(cube_NK), np.array([0.6, 0.3, 0.1])
    assert (drawn_ND[:, 1:].sum(axis=1) >= 0.5 - 1e-9).all()
    assert total_variation(drawn_ND, natural_D).max() > 0.3
    assert total_variation(held.allowed.from_cube(cube_NK), natural_D).max() <= 0.3 + 1e-9


def test_a_radius_is_around_natural_uniform_or_a_file_and_infinite_where_that_has_nothing(tmp_path):
    of(0.25, 0.25, 0.5).to_file(tmp_path / "old.yaml")
    references = {"natural": [0.6, 0.3, 0.1], "uniform": [1 / 3] * 3}
    references[str(tmp_path / "old.yaml")] = [0.25, 0.25, 0.5]
    for name, weights in references.items():
        (radius,) = limits(radius={"tv": 0.2, "reference": name}).convex
        assert radius.center_D.tolist() == pytest.approx(weights)
    around = KLRadius(Mixture({"a": 0.5, "b": 0.5, "c": 0.0}), "natural", 0.2)
    away_N = around.value([[0.5, 0.5, 0], [0.25, 0.75, 0], [0.5, 0.5, 1e-13], [0.4, 0.4, 0.2]])
    bent = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert away_N == pytest.approx([0.0, bent, 0.0, np.inf], abs=1e-9)
    assert around.violation(np.array([0.3, 0.3, 0.4])).endswith("is 0.2. Move it closer.")


def test_a_conflict_names_the_fewest_limits_the_gap_and_each_way_out():
    assert conflict(large, max_epochs=4, bounds={"europarl": (0.31, 1), "web": (0, 0.9)}) == (
        "no mixture satisfies all of these limits, short by 0.153 (constraints.max_epochs: 4:"
        " europarl <= 0.157; constraints.bounds: europarl >= 0.31); allow max_epochs: 7.91 (or a"
        " run of 12.6B tokens), or lower the minimum of europarl to 0.1568 in constraints.bounds"
    )
    said = conflict(
        bounds={"law": (0.5, 1.0)},
        groups={"most": group(["web", "code"], 0.7), "much": group(["web", "code"], 0.6)},
    )
    assert said == (
        "no mixture satisfies all of these limits, short by 0.1 (constraints.bounds: law >= 0.5; "
        "constraints.groups.much: group much >= 0.6); lower the minimum of law to 0.3 in "
        "constraints.bounds"
    )
    said = conflict(bounds={"law": (0.5, 1.0)}, groups={"rare": group(["code", "law"], 0.0, 0.4)})
    assert said.endswith("raise the maximum of constraints.groups.rare to 0.5")
    bounds = {"web": (0, 0.3), "law": (0, 0.3)}
    said = conflict(inventory={"web": 10, "law": 10}, max_epochs=1, bounds=bounds)
    assert said.endswith("; change several of them")
    # min(0.3, 0.1 epochs) + 0.1 epochs = 1 at 7 epochs.
    tens = {"a": 10, "b": 10}
    assert "max_epochs: 7 " in conflict(inventory=tens, max_epochs=1, bounds={"a": (0, 0.3)})
    bounded = large(bounds={"web": (0, 0.3), "code": (0, 0.5)})
    with pytest.raises(InfeasibleError, match="or allow max_usage: 4$"):
        bounded.with_limits([cap("europarl", 0.1, "design.max_usage", setting=2, rate=0.05)])


def test_a_domain_without_tokens_cannot_be_demanded():
    empty = {"web": 100, "empty": 0}
    said = conflict(inventory=empty, max_epochs=2, bounds={"empty": (0.1, 1)})
    assert "add training tokens to empty, which has none" in said
    (line,) = limits(empty, max_epochs=2).violations(Mixture({"web": 0.5, "empty": 0.5}))
    assert line.endswith("needs training tokens, but the domain has none. Set it to 0.")


@settings(max_examples=40)
@given(
    tokens=st.lists(st.integers(1, 10**12), min_size=1, max_size=6),
    target=st.integers(1, 10**13),
    short=st.floats(0.001, 0.98),
)
def test_the_epochs_that_an_error_offers_are_enough_and_hardly_more(tokens, target, short):
    sizes = {
        "inventory": {f"d{k}": count for k, count in enumerate(tokens)},
        "target_tokens": target,
    }
    said = conflict(max_epochs=short * target / sum(tokens), **sizes)
    offered = float(said.rpartition("max_epochs: ")[2].split()[0])
    limits(max_epochs=offered, **sizes)
    conflict(max_epochs=0.98 * offered, **sizes)


@settings(max_examples=40)
@given(least=st.floats(0.15, 0.95), kind=st.sampled_from(["kl", "tv"]), size=st.floats(0.001, 0.05))
def test_the_bound_and_the_radius_that_are_offered_are_enough_and_hardly_more(least, kind, size):
    fields = {"radius": {kind: size}}
    said = refusal(limits, bounds={"law": (least, 1.0)}, **fields)
    for enough in map(float, re.findall(rf"radius\.{kind}: ([0-9.]+)", said)):
        limits(bounds={"law": (least, 1.0)}, **{**fields, "radius": {kind: enough}})
        conflict(bounds={"law": (least, 1.0)}, **{**fields, "radius": {kind: 0.98 * enough}})
    for enough in map(float, re.findall(r"minimum of law to ([0-9.]+)", said)):
        limits(bounds={"law": (enough, 1.0)}, **fields)
        conflict(bounds={"law": (enough + 0.005, 1.0)}, **fields)


def in_ratio(weights_ND, ratios):
    total_N1 = weights_ND[:, : len(ratios)].sum(axis=1, keepdims=True)
    return np.abs(weights_ND[:, : len(ratios)] - np.array(ratios) * total_N1).max() < 1e-9


SOURCES = {"web": 600, "books": 300, "forums": 100, "code": 50, "maths": 50}


def in_proportion(given=("web", "books", "forums"), **others) -> Constraints:
    fields = {"proportions": {"base": given if isinstance(given, dict) else list(given)}, **others}
    return Constraints.from_config(ConstraintsConfig.model_validate(fields), SOURCES, 1000)


def test_all_that_is_drawn_or_projected_is_in_the_ratios_and_fills_what_is_left():
    allowed = in_proportion(bounds={"web": [0, 0.3]}).simplex
    drawn_ND = allowed.from_cube(np.random.default_rng(0).random((500, allowed.dimensions)))
    assert in_ratio(drawn_ND, (0.6, 0.3, 0.1))
    assert np.ptp(drawn_ND[:, 3]) > 0.5
    assert 0.25 < drawn_ND[:, 0].max() <= 0.3 + 1e-9
    projected_ND = in_proportion({"web": 3, "books": 1, "forums": 0}).simplex.project(np.eye(5))
    assert in_ratio(projected_ND, (0.75, 0.25, 0.0))


def test_a_mixture_out_of_the_ratios_violates_them_and_ratios_that_cannot_hold_are_refused():
    mixture = Mixture({"web": 0.5, "books": 0.1, "forums": 0.1, "code": 0.3, "maths": 0.0})
    (line,) = in_proportion().violations(mixture)
    assert "'web': a weight of 0.5 violates the ratios of constraints.proportions.base" in line
    assert in_proportion().violations(Mixture.natural(SOURCES)) == []
    with pytest.raises(InfeasibleError, match=r"no mixture keeps the ratios of "):
        in_proportion(("web", "books"), bounds={"books": [0.3, 1], "web": [0, 0.1]})


def test_ratios_that_no_mixture_within_the_radius_keeps_are_refused():
    even = {"web": 1, "books": 1}
    in_proportion(even, radius={"reference": "natural", "tv": 0.2})
    with pytest.raises(InfeasibleError, match=r"no mixture keeps the ratios of "):
        in_proportion(even, radius={"reference": "natural", "tv": 0.05})


def frozen(free, **fields):
    limited = Constraints.from_config(read_constraints(fields), TREE)
    shares = {"web/a": 0.1, "web/b": 0.3, "code": 0.4, "law": 0.2}
    return limited.frozen_but(free, Mixture(shares), "ref.yaml")


def test_a_branch_moves_within_its_limits_and_the_rest_keeps_its_shares():
    held = frozen(["web"], bounds={"web/a": [0, 0.15]})
    drawn_ND = held.simplex.from_cube(np.linspace(0, 1, 5)[:, None])
    np.testing.assert_allclose(drawn_ND[:, 2:], [[0.4, 0.2]] * 5)
    assert np.ptp(drawn_ND[:, 0]) == pytest.approx(0.15)
    shares = dict(zip(TREE, drawn_ND[2].tolist(), strict=True))
    assert held.binding(Mixture(shares)) == [
        "2 domains are fixed (--free, at the shares of ref.yaml)"
    ]


@pytest.mark.parametrize(
    ("free", "bounds", "message"),
    [
        (["wbe"], {}, "--free wbe: unknown domain 'wbe'"),
        (["code"], {}, "--free code: the other domains fix the share of a single one"),
        (["web"], {"code": [0, 0.3]}, "at the shares of ref.yaml"),
    ],
)
def test_what_cannot_move_is_one_line(free, bounds, message):
    refuses((ConfigError, InfeasibleError), message, frozen, free, bounds=bounds)


def test_limits_are_a_table_in_a_notebook():
    held = limits(bounds={"web": (0.1, 1.0)}, guardrails="natural", proportions={"x": SMALL})
    shown = held._repr_html_()
    assert "<td>web 60.0% : code 30.0% : law 10.0%</td><td>constraints.proportions.x</td>" in shown
    assert "<td>web &gt;= 0.1</td><td>constraints.bounds</td>" in shown
    assert "every other loss at most 0.02 worse than natural" in shown
    assert limits(floors={"gsm8k": 0.5}).in_force == ("constraints.floors",)
    shown = limits(floors={"law": 2.5}, guardrails={"experts": True})._repr_html_()
    assert "<td>experts do not collapse</td><td>constraints.guardrails</td>" in shown
    assert "<td>law: floor 2.5</td><td>constraints.floors</td>" in shown


def test_of_two_caps_on_a_domain_of_phases_the_stricter_one_holds():
    config = ConstraintsConfig(bounds={"web": (0.0, 0.3)}, max_epochs=4)
    sizes, phases = {"web": 1000, "code": 1000}, Phases({"1": 0.8, "2": 0.2})
    found = Constraints.from_config(config, sizes, target_tokens=1000, phases=phases)
    assert found.groups["web"] == (("1/web", "2/web"), 0.0, 0.3)
