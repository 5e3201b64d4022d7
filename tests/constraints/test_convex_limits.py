"""Convex limits hold together, are found by name, and say what would resolve a conflict."""

import json
import re
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from made_fit import fitted
from places import PROJECT
from refusals import refuses

import mixopt
from mixopt import Mixture, Phases
from mixopt.config import read_constraints
from mixopt.constraints import (
    BROKEN,
    Constraints,
    ConvexLimit,
    DifferentiableFunction,
    KLRadius,
    TotalVariationRadius,
)
from mixopt.errors import ConfigError, InfeasibleError, PluginError
from mixopt.system import plugins
from mixopt.testing import check_convex_limit

INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL = Mixture.natural(INVENTORY)
UNIFORM = Mixture.uniform(tuple(INVENTORY))


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Install the example of a minimum entropy as a package's entry point."""
    monkeypatch.syspath_prepend(PROJECT / "examples")
    group = "mixopt.constraints"
    entry = EntryPoint("minimum_entropy", "minimum_entropy:MinimumEntropy", group)
    real = plugins._entries
    entries = {"constraint": (entry,)}
    monkeypatch.setattr(plugins, "_entries", lambda kind: entries.get(kind) or real(kind))


def limits(effective_domains=None, phases=None, **fields) -> Constraints:
    if effective_domains is not None:
        fields["convex"] = {"minimum_entropy": {"effective_domains": effective_domains}}
    return Constraints.from_config(read_constraints(fields), INVENTORY, phases=phases)


def within(*convex: ConvexLimit) -> Constraints:
    return Constraints(tuple(INVENTORY), convex=convex)


def test_the_example_keeps_the_promises_of_a_convex_limit():
    from minimum_entropy import MinimumEntropy

    check_convex_limit(lambda natural: MinimumEntropy(natural, effective_domains=3))


def test_a_limit_is_found_by_its_entry_point_and_by_its_path():
    by_name = limits(3)
    options = {"effective_domains": 3}
    by_path = limits(convex={"minimum_entropy:MinimumEntropy": options})
    for found, name in ((by_name, "minimum_entropy"), (by_path, "minimum_entropy:MinimumEntropy")):
        assert found.in_force == (f"constraints.convex.{name}",)
        assert "<td>effective domains &gt;= 3</td>" in found._repr_html_()
        assert found.simplex.has_only_bounds


@pytest.mark.parametrize(
    ("convex", "error", "message"),
    [
        ({"minimum_entrpy": {}}, PluginError, "unknown constraint 'minimum_entrpy'; did you mean"),
        ({"minimum_entropy": {"domains": 3}}, ConfigError, "unknown option 'domains'; known: e"),
        ({"minimum_entropy": {"effective_domains": 5}}, ConfigError, "from 1 to 4, got 5"),
        ({"collections:Counter": {}}, PluginError, "has no 'value'; is it a constraint"),
    ],
)
def test_a_limit_that_cannot_be_created_is_refused(convex, error, message):
    refuses(error, message, limits, convex=convex)


def test_a_class_with_the_methods_of_a_limit_that_is_not_derived_from_it_is_refused(monkeypatch):
    methods = dict.fromkeys(("value", "gradient", "describe"), len)
    other = type("Other", (), {**methods, "__init__": lambda self, natural: None})
    monkeypatch.setattr("collections.Other", other, raising=False)
    message = "Other is not derived from mixopt.constraints.ConvexLimit"
    refuses(PluginError, message, limits, convex={"collections:Other": {}})


@pytest.mark.parametrize(
    "constraints",
    [
        lambda: limits(3.2, radius={"kl": 0.05}),
        lambda: limits(3.2, radius={"tv": 0.1}, bounds={"code": [0.35, 1]}),
        lambda: within(
            TotalVariationRadius(NATURAL, "natural", 0.15),
            TotalVariationRadius(UNIFORM, "uniform", 0.1),
        ),
        lambda: within(KLRadius(NATURAL, "natural", 0.05), KLRadius(UNIFORM, "uniform", 0.05)),
    ],
    ids=["entropy and kl", "entropy and tv", "two tv", "two kl"],
)
def test_several_limits_hold_together_in_every_map(constraints):
    allowed = constraints().allowed
    rng = np.random.default_rng(0)
    drawn_ND = allowed.from_cube(rng.random((500, allowed.dimensions)))
    points_ND = rng.normal(0.25, 0.5, (10, 4))
    assert allowed.dimensions == 3
    for mapped_ND in (drawn_ND, allowed.project(points_ND), allowed.inside(drawn_ND[::-1])):
        assert allowed.contains(mapped_ND).all()
    outer_ND = rng.dirichlet(np.ones(4), 20_000)
    inner_ND = outer_ND[allowed.contains(outer_ND)]
    near_ND = allowed.project(points_ND)
    away_N = np.linalg.norm(near_ND - points_ND, axis=1)
    others_NK = np.linalg.norm(inner_ND[None] - points_ND[:, None], axis=2)
    assert (away_N <= others_NK.min(axis=1) + 1e-6).all()


def test_a_descent_ends_where_the_bounds_of_two_limits_meet():
    allowed = limits(3.6, radius={"tv": 0.1}).allowed
    cost_D = np.array([0.0, 1.0, 2.0, 3.0])
    cost = DifferentiableFunction(lambda w: cost_D @ w[:, None], lambda _: cost_D[None])
    end_D = allowed.minimize(cost, allowed.interior_point_D, accuracy=1e-12)
    drawn_ND = allowed.from_cube(np.random.default_rng(0).random((20_000, 3)))
    assert all(limit.is_met(end_D) for limit in allowed.convex)
    assert cost_D @ end_D <= (drawn_ND @ cost_D).min()


def test_a_conflict_names_each_limit_and_the_least_change_of_those_that_know_it():
    message = refuses(InfeasibleError, None, limits, 3.9, radius={"tv": 0.01})
    assert message == (
        "no mixture satisfies all of these limits (constraints.radius: total variation from"
        " natural <= 0.01; constraints.convex.minimum_entropy: effective domains >= 3.9); allow"
        " radius.tv: 0.0886, or allow effective_domains: 3.644"
    )
    enough = {"tv": 0.0886}
    limits(3.9, radius=enough)
    limits(3.644, radius={"tv": 0.01})
    refuses(InfeasibleError, None, limits, 3.9, radius={"tv": 0.98 * 0.0886})
    refuses(InfeasibleError, None, limits, 3.66, radius={"tv": 0.01})
    message = refuses(InfeasibleError, None, limits, 3, bounds={"code": [0.8, 1]})
    enough = float(re.search(r"minimum of code to ([0-9.]+)", message)[1])
    limits(3, bounds={"code": [enough, 1]})
    refuses(InfeasibleError, None, limits, 3, bounds={"code": [enough + 1e-3, 1]})


class Square(ConvexLimit):
    """A limit that knows no least change: the sum of squares."""

    upper = 0.26

    def value(self, weights_ND):
        return (weights_ND**2).sum(axis=1)

    def gradient(self, weights_D):
        return 2 * weights_D

    def describe(self):
        return "sum of squares <= 0.26"


def test_a_limit_without_hints_is_named_without_a_least_change():
    radius = TotalVariationRadius(NATURAL, "natural", 0.01)
    message = refuses(InfeasibleError, None, within, radius, Square())
    assert "constraints.convex: sum of squares <= 0.26); allow radius.tv: 0." in message
    (line,) = within(Square()).violations(NATURAL)
    assert line == "the mixture breaks sum of squares <= 0.26 (constraints.convex) by 0.04."


def test_what_a_mixture_breaks_or_touches_is_described():
    held = limits(3.9)
    (line,) = held.violations(NATURAL)
    assert line == (
        "the mixture breaks effective domains >= 3.9 (constraints.convex.minimum_entropy) by"
        " 0.08112; allow effective_domains: 3.596."
    )
    edge_D = held.allowed.project(np.eye(4)[0])
    active = "effective domains >= 3.9 (constraints.convex.minimum_entropy)"
    assert held.binding(Mixture.from_array(tuple(INVENTORY), edge_D)) == [active]
    assert held.violations(UNIFORM) == held.binding(UNIFORM) == []


def test_a_limit_applies_to_the_shares_of_domains_over_all_phases():
    phases = Phases({"1": 0.75, "2": 0.25})
    held = limits(3.9, phases=phases)
    assert len(held.violations(phases.tied(NATURAL))) == 1
    assert held.violations(phases.tied(UNIFORM)) == []
    parts = {"1": {"code": 1 / 3, "prose": 1 / 3, "law": 1 / 3, "mail": 0.0}}
    parts["2"] = {"code": 0.0, "prose": 0.0, "law": 0.0, "mail": 1.0}
    assert held.violations(phases.joined(parts)) == []
    allowed = held.allowed
    drawn_NC = allowed.from_cube(np.random.default_rng(0).random((50, allowed.dimensions)))
    for weights_C in drawn_NC:
        whole = phases.whole(Mixture.from_array(held.domains, weights_C))
        assert whole.effective_domains >= 3.9 - BROKEN


def test_changes_of_a_users_file_are_added_by_name():
    stated = read_constraints({"convex": {"minimum_entropy": {"effective_domains": 3}}})
    other = read_constraints({"convex": {"other": {"size": 1}}})
    merged = stated.with_changes(other, tuple(INVENTORY)).convex
    assert merged == {"minimum_entropy": {"effective_domains": 3}, "other": {"size": 1}}


def test_a_proposal_keeps_a_limit_and_names_it_and_the_what_if_lists_it():
    fit = fitted("gaussian_process")
    convex = {"convex": {"minimum_entropy": {"effective_domains": 2.5}}}
    free = fit.propose().mixture
    held = fit.propose(constraints=convex)
    assert free.effective_domains < 2
    assert held.mixture.effective_domains == pytest.approx(2.5, abs=1e-4)
    text = "effective domains >= 2.5 (constraints.convex.minimum_entropy)"
    assert text in held.binding
    packed = json.loads(mixopt.explore(fit, constraints=convex)._data)
    assert packed["data"]["constraints"]["unchecked"] == [text]
