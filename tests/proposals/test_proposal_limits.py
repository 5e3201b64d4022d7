"""Groups, a radius, guardrails and risk hold a proposal, together and exactly.

The laws here are synthetic: linear, and squared distances from a best mixture.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_fit import table
from scipy.optimize import minimize

from mixopt.config import ConstraintsConfig, FitConfig, ProposeConfig
from mixopt.constraints import MISSED, Constraints
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Problem, ProposalRequest, propose_mixture, search

DOMAINS = ("code", "prose", "law", "mail")
INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL = Mixture.natural(INVENTORY)


def constraints(**fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY, 1000)


class Bowl:
    """Losses with known minima, by squared distance, sure near the middle and unsure far away."""

    def __init__(self, *bottoms) -> None:
        self.bottoms_MD = np.array(bottoms)

    def predict(self, weights_ND, return_std=False):
        means_NM = ((weights_ND[:, None] - self.bottoms_MD) ** 2).sum(axis=2)
        far_N = np.abs(weights_ND - 0.25).sum(axis=1)
        return (
            (means_NM, np.repeat(far_N[:, None], means_NM.shape[1], 1)) if return_std else means_NM
        )

    def gradient(self, weights_D):
        return 2 * (weights_D - self.bottoms_MD)


def problem(regressor, limits: Constraints, names=("a",), **fields) -> Problem:
    objective = Objective(names, "target", {"a": 1.0})
    return Problem(regressor, objective, limits.allowed, NATURAL.array, np.empty((0, 4)), **fields)


def found(asked: Problem, method="auto", samples=400):
    return search(replace(asked, method=method, samples=samples, average=16))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bounds": {"law": (0.05, 0.3), "mail": (0.1, 1.0)}},
        {"groups": {"text": {"domains": ["prose", "law"], "bounds": [0.1, 0.35]}}},
        {"radius": {"kl": 0.02}, "bounds": {"code": (0.0, 0.42)}},
    ],
)
def test_the_optimum_of_a_convex_law_is_the_one_that_slsqp_finds(fields):
    bowl, limits = Bowl([0.1, 0.2, 0.6, 0.1]), constraints(**fields)
    own = found(problem(bowl, limits)).value
    conditions = [{"type": "eq", "fun": lambda w: w.sum() - 1}]
    for limit in limits.linear:
        row_D, most = limit.row(DOMAINS), limit.sign * limit.value
        conditions.append({"type": "ineq", "fun": lambda w, r=row_D, m=most: m - r @ w})
    conditions += [
        {"type": "ineq", "fun": lambda w, c=one: c.size - c.value(np.abs(w)[None])[0]}
        for one in limits.convex
    ]
    theirs = minimize(
        lambda w: bowl.predict(w[None])[0, 0],
        NATURAL.array,
        bounds=list(zip(limits.lower_D, limits.upper_D, strict=True)),
        constraints=conditions,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert own == pytest.approx(theirs.fun, abs=1e-4)


def random_limits(rng: np.random.Generator) -> ConstraintsConfig:
    """Return limits that at least one random mixture meets."""
    inside_D = rng.dirichlet(np.ones(4))
    fields = {}
    if rng.random() < 0.7:
        low_D, high_D = inside_D * rng.random(4), inside_D + (1 - inside_D) * rng.random(4)
        pairs = zip(DOMAINS, low_D.tolist(), high_D.tolist(), strict=True)
        fields["bounds"] = {n: (lo, hi) for n, lo, hi in pairs if rng.random() < 0.7}
    if rng.random() < 0.5:
        members = [n for n in DOMAINS[:3] if rng.random() < 0.5] or ["law"]
        total = float(sum(inside_D[DOMAINS.index(n)] for n in members))
        low, high = total * rng.random(), total + (1 - total) * rng.random()
        fields["groups"] = {"some": {"domains": members, "bounds": (low, min(high, 1.0))}}
    if rng.random() < 0.5:
        kind = "tv" if rng.random() < 0.5 else "kl"
        apart_D = np.abs(inside_D - NATURAL.array)
        least = apart_D.sum() / 2 if kind == "tv" else inside_D @ np.log(inside_D / NATURAL.array)
        fields["radius"] = {kind: float(min(least + 0.3 * rng.random() + 1e-6, 1.0))}
    if rng.random() < 0.3:
        most_D = inside_D * 1000 / np.array(list(INVENTORY.values()))
        fields["max_epochs"] = float(most_D.max() * (1 + rng.random()))
    return ConstraintsConfig(**fields)


# Guardrails -----------------------------------------------------------------------------------


def guarded(margin, reference="natural", bottoms=((1.0, 0, 0, 0), (0, 0, 1.0, 0)), **fields):
    from mixopt.constraints import Guards
    from mixopt.constraints.guardrails import Guardrails

    limits, bowl = constraints(**fields), Bowl(*bottoms)
    objective = Objective(("a", "b"), "target", {"a": 1.0})
    rails = Guardrails(reference, None, {"b": margin})
    guards = Guards.on(objective, rails, NATURAL.array)
    return problem(bowl, limits, ("a", "b"), guards=guards)


@pytest.mark.parametrize("method", ["auto", "simulation"])
def test_no_guarded_loss_gets_worse_than_its_margin(method):
    free = found(problem(Bowl([1.0, 0, 0, 0], [0, 0, 1.0, 0]), constraints(), ("a", "b")))
    asked = guarded(0.05)
    assert asked.excess(free.weights_D[None])[0, 0] > 0.5
    held = found(asked, method, samples=4000)
    assert asked.excess(held.weights_D[None])[0, 0] <= MISSED
    if method == "auto":
        assert asked.excess(held.weights_D[None])[0, 0] == pytest.approx(0, abs=1e-4)


FIT_LIMITS = {"guardrails": {"targets": {"law": 0.0}}}


@pytest.fixture(scope="module")
def fit():
    """Losses of three targets that are linear in the weights: code alone lowers math."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(4), 30)
    slopes_DM = np.array([[-2.0, 1.0], [0, 0], [0, -1.0], [0, 0]])
    losses_NM = 3 + weights_ND @ slopes_DM + 0.01 * rng.standard_normal((30, 2))
    trials = table(weights_ND, losses_NM, DOMAINS, ("math", "law"))
    objective = Objective(("math", "law"), "target", {"math": 1.0})
    return fit_trials(trials, FitConfig(regressors=["linear"], folds=4), objective, 0)


def propose(fit, limits=None, **fields):
    settings = {"samples": 500, "bootstrap": 4, "keep_unmeasured": 0.0, **fields}
    allowed, search = constraints(**(limits or {})), ProposeConfig(**settings)
    return propose_mixture(ProposalRequest(fit, allowed, NATURAL, search=search))


def test_a_guardrail_that_holds_is_named_among_what_binds(fit):
    proposal = propose(fit, FIT_LIMITS)
    assert any(
        "loss of law <= that of natural (constraints.guardrails)" in one for one in proposal.binding
    )
    law = fit.predict([proposal.mixture, NATURAL]).losses_NM[:, 1]
    assert law[0] <= law[1] + MISSED


def test_a_conflict_is_told_of_the_mixture_whose_worst_guardrail_is_broken_least(fit):
    # Code lowers math and raises law, which has too little of its own to make up for that.
    limits = {
        "bounds": {"law": (0.0, 0.1)},
        "guardrails": {"targets": {"law": 0.0, "math": 0.0}},
    }
    with pytest.raises(InfeasibleError) as caught:
        propose(fit, limits, samples=50)
    said = re.search(r"worse by math ([0-9.]+), law ([0-9.]+), within", str(caught.value))
    math, law = map(float, said.groups())
    assert math == pytest.approx(law, abs=1e-4)
    assert 0.03 < law < 0.1


# Risk -----------------------------------------------------------------------------------------


def test_more_risk_aversion_stays_nearer_to_what_is_known():
    bowl = Bowl([1.0, 0, 0, 0])
    moved = []
    for deviations in (0.0, 0.3, 3.0):
        best = found(problem(bowl, constraints(), deviations=deviations))
        moved.append(np.abs(best.weights_D - 0.25).sum())
    assert moved[0] > moved[1] + 0.01
    assert moved[1] > moved[2] + 0.01
    assert moved[2] == pytest.approx(0, abs=0.01)


def test_the_quantile_over_refits_is_what_is_minimised():
    refits = (Bowl([1.0, 0, 0, 0]), Bowl([0, 1.0, 0, 0]), Bowl([0, 1.0, 0, 0]))
    asked = problem(Bowl([1.0, 0, 0, 0]), constraints(), quantile=0.99, refits=refits)
    best = found(asked, samples=4000)
    values_B = [one.predict(best.weights_D[None])[0, 0] for one in refits]
    assert best.value == pytest.approx(np.quantile(values_B, 0.99))
    # The worst of both is least halfway between them.
    assert best.weights_D == pytest.approx([0.5, 0.5, 0, 0], abs=0.02)


def test_a_risk_that_nothing_can_tell_is_refused(fit):
    with pytest.raises(ConfigError, match="risk.quantile: needs propose.bootstrap of at least 1"):
        propose(fit, risk={"quantile": 0.9}, bootstrap=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_search_with_everything_at_once_keeps_all_of_it(seed):
    rng = np.random.default_rng(seed)
    fields = random_limits(rng).model_dump(exclude_none=True)
    asked = guarded(0.5 * rng.random(), **fields)
    best = search(replace(asked, samples=200, average=8, seed=seed))
    limits = constraints(**fields)
    assert limits.violations(Mixture.from_array(DOMAINS, best.weights_D), tolerance=1e-8) == []
    inside = limits.allowed.contains(NATURAL.array[None])[0]
    if inside:  # then the reference itself keeps every guardrail
        assert asked.excess(best.weights_D[None]).max() <= MISSED


def test_one_margin_is_advised_where_it_is_enough_alone(fit):
    margins = {"law": 0.0, "math": 0.0}
    limits = {"bounds": {"law": (0.0, 0.1)}, "guardrails": {"targets": margins}}
    with pytest.raises(InfeasibleError) as caught:
        propose(fit, limits, samples=50)
    name, enough = re.findall(r"allow targets: \{(law|math): ([0-9.]+)\}", str(caught.value))[0]
    margins[name] = float(enough) + 1e-3
    propose(fit, limits, samples=50)
