"""The search finds known optima, inside all limits, and never loses what it saw.

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
from mixopt.constraints import MISSED, CappedSimplex, Constraints, DifferentiableFunction, Guards
from mixopt.constraints.guardrails import Guardrails
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Problem, ProposalRequest, propose_mixture, search
from mixopt.proposals.search import FAR, KNOWN, descend, least_broken, projected_descent, simulate

DOMAINS = ("code", "prose", "law", "mail")
INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL = Mixture.natural(INVENTORY)
UNIFORM_D = np.full(3, 1 / 3)


class Bowls:
    """Losses with known minima, by squared distance, sure near the middle and unsure far away."""

    def __init__(self, *bottoms) -> None:
        self.bottoms_MD = np.array(bottoms)

    def predict(self, weights_ND, return_std=False):
        means_NM = ((weights_ND[:, None] - self.bottoms_MD) ** 2).sum(axis=2)
        far_N1 = np.abs(weights_ND - 0.25).sum(axis=1, keepdims=True)
        return (means_NM, far_N1 + 0 * means_NM) if return_std else means_NM

    def gradient(self, weights_D):
        return 2 * (weights_D - self.bottoms_MD)


class Slopes:
    """Losses that are linear in the weights."""

    def __init__(self, *slopes_MD) -> None:
        self.slopes_MD = np.array(slopes_MD, dtype=float)

    def predict(self, weights_ND):
        return weights_ND @ self.slopes_MD.T

    def gradient(self, _):
        return self.slopes_MD


class Drawn:
    """A loss without a gradient."""

    def __init__(self, predict) -> None:
        self.predict = predict


def constraints(**fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY, 1000)


def problem(regressor, allowed=None, names=("a",), worst=(), **fields) -> Problem:
    """Minimise the first loss, or the worst of some."""
    weights = dict.fromkeys(worst or names[:1], 1.0)
    allowed = allowed or CappedSimplex.full(3)
    domains = len(allowed.lower_D)
    natural_D = np.arange(domains, 0.0, -1) / np.arange(1, domains + 1).sum()
    objective = Objective(names, "worst" if worst else "target", weights)
    known_ND = np.empty((0, domains))
    return Problem(regressor, objective, allowed, natural_D, known_ND, **fields)


def guards(reference_D, names=("a", "b"), margin=None, **targets) -> Guards:
    objective = Objective(names, "target", {"a": 1.0})
    return Guards.on(objective, Guardrails("natural", margin, targets), np.array(reference_D))


def found(asked: Problem, samples=400):
    return search(replace(asked, samples=samples, average=16))


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
    bowl, limits = Bowls([0.1, 0.2, 0.6, 0.1]), constraints(**fields)
    own = found(problem(bowl, limits.allowed)).value
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


def test_the_worst_of_two_is_met_halfway():
    best = search(problem(Bowls([1.0, 0, 0], [0, 1.0, 0]), names=("a", "b"), worst=("a", "b")))
    assert best.weights_D == pytest.approx([0.5, 0.5, 0], abs=1e-4)
    assert best.value == pytest.approx(0.5, abs=1e-6)


def test_simulation_comes_near_the_bottom_and_keeps_a_known_mixture_that_beats_all_draws():
    best = search(problem(Drawn(Bowls([0.2, 0.5, 0.3]).predict)))
    assert best.method == "simulation"
    assert best.weights_D == pytest.approx([0.2, 0.5, 0.3], abs=0.03)
    spike_D = np.array([0.123456, 0.654321, 1 - 0.123456 - 0.654321])
    hidden = problem(Drawn(lambda w: (np.abs(w - spike_D).max(axis=1) > 1e-9).astype(float)))
    assert search(replace(hidden, known_ND=spike_D[None])).value == 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), domains=st.integers(2, 8), worst=st.booleans())
def test_what_is_found_is_allowed_and_no_worse_than_anything_that_was_scored(seed, domains, worst):
    rng = np.random.default_rng(seed)
    inside_D = rng.dirichlet(np.ones(domains))
    lower_D = inside_D * rng.random(domains)
    upper_D = inside_D + (1 - inside_D) * rng.random(domains)
    names = ("a", "b") if worst else ("a",)
    bowls = Bowls(*rng.dirichlet(np.ones(domains), len(names)).tolist())
    options = {"worst": names if worst else (), "samples": 300, "average": 32, "seed": seed}
    asked = problem(bowls, CappedSimplex(lower_D, upper_D), names, **options)
    best = search(asked)
    assert asked.allowed.contains(best.weights_D, tolerance=1e-12).all()
    # What SLSQP tries on its way is outside the limits, so only allowed mixtures are compared.
    scored_ND = asked.allowed.project(rng.dirichlet(np.ones(domains), 300))
    assert best.value <= asked.value(scored_ND).min() + 1e-9


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_projected_gradients_of_many_domains_end_where_the_slope_pushes_out(seed):
    rng = np.random.default_rng(seed)
    target_D, scales_D = rng.normal(0.01, 0.05, 100), np.exp(rng.normal(0, 1, 100))
    cost = DifferentiableFunction(
        lambda w: (scales_D * (w - target_D) ** 2).sum(keepdims=True),
        lambda w: 2.0 * scales_D * (w - target_D)[None],
    )
    project = CappedSimplex(np.zeros(100), np.full(100, 0.1)).project
    end_D = projected_descent(cost, project, np.full(100, 0.01), accuracy=1e-13)
    free = (end_D > 1e-6) & (end_D < 0.1 - 1e-6)
    slope_D = cost.slopes(end_D)[0]
    level = slope_D[free].mean()
    assert np.ptp(slope_D[free]) < 1e-3
    assert slope_D[end_D <= 1e-6].min(initial=np.inf) > level - 1e-3
    assert slope_D[end_D >= 0.1 - 1e-6].max(initial=-np.inf) < level + 1e-3


def test_more_domains_than_a_quadratic_program_takes_end_at_the_bottom_too():
    asked = problem(Bowls(np.linspace(0.0, 2 / 64, 65)), CappedSimplex.full(65))
    bottom_D = asked.allowed.project(asked.regressor.bottoms_MD)[0]
    np.testing.assert_allclose(descend(asked, asked.natural_D).weights_D, bottom_D, atol=1e-6)


def test_a_broken_guardrail_is_worse_than_any_value_and_the_more_the_worse():
    asked = problem(Slopes([1, 0, 0], [0, 3, 0]), names=("a", "b"), guards=guards(UNIFORM_D, b=0.5))
    weights_ND = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0.6, 0.4], [0, 1.0, 0]])
    np.testing.assert_allclose(asked.excess(weights_ND)[:, 0], [-1.5, 0.0, 0.3, 1.5], atol=1e-12)
    assert asked.value(weights_ND).tolist() == [1.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(asked.score(weights_ND), [1.0, 0.0, 1.3 * FAR, 2.5 * FAR])
    missed = np.array([[0.0, 0.5 + 5e-10, 0.5 - 5e-10]])  # by what a tolerance misses
    assert asked.score(missed).tolist() == [0.0]


def test_a_descent_finds_a_vertex_and_keeps_a_guardrail_with_a_little_room():
    np.testing.assert_allclose(
        descend(problem(Slopes([-1, 0, 0])), UNIFORM_D).weights_D, [1, 0, 0], atol=1e-9
    )
    held = guards(UNIFORM_D, b=0.1)
    asked = problem(Slopes([-1, 0, 0], [1, 0, 0]), names=("a", "b"), guards=held)
    best = descend(asked, UNIFORM_D)
    assert best.weights_D[0] == pytest.approx(1 / 3 + 0.1, abs=1e-5)
    assert asked.excess(best.weights_D[None])[0, 0] <= 0.0
    assert best.value == pytest.approx(-best.weights_D[0])


def test_a_descent_of_the_worst_loss_keeps_guardrails_too():
    names = ("a", "b", "c")
    slopes, held = Slopes([-1, 0, 0], [0, -1, 0], [1, 1, 0]), guards(UNIFORM_D, names, c=0.1)
    best = descend(problem(slopes, names=names, worst=("a", "b"), guards=held), UNIFORM_D)
    both = (2 / 3 + 0.1) / 2
    np.testing.assert_allclose(best.weights_D, [both, both, 1 - 2 * both], atol=1e-4)


def test_the_least_broken_mixture_breaks_the_worst_guardrail_least():
    bounds = CappedSimplex(np.array([0, 0, 0.2]), np.ones(3))
    held = guards([0.6, 0.4, 0], margin=0.0)
    asked = problem(Slopes([-1, 0, 0], [0, -1, 0]), bounds, ("a", "b"), guards=held)
    # 0.2 is missing; half of it from each.
    nearest_D = least_broken(asked, np.array([0.8, 0.0, 0.2]))
    np.testing.assert_allclose(nearest_D, [0.5, 0.3, 0.2], atol=1e-5)


def guarded(margin, **fields) -> Problem:
    bowls, held = Bowls([1.0, 0, 0, 0], [0, 0, 1.0, 0]), guards(NATURAL.array, b=margin)
    return problem(bowls, constraints(**fields).allowed, ("a", "b"), guards=held)


def test_no_guarded_loss_gets_worse_than_its_margin():
    asked = guarded(0.05)
    free, held = found(replace(asked, guards=None)), found(asked, samples=4000)
    drawn = simulate(replace(asked, samples=4000, average=16))
    assert asked.excess(free.weights_D[None])[0, 0] > 0.5
    assert asked.excess(drawn.weights_D[None])[0, 0] <= MISSED
    assert asked.excess(held.weights_D[None])[0, 0] <= MISSED
    assert asked.excess(held.weights_D[None])[0, 0] == pytest.approx(0, abs=1e-4)


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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_search_with_everything_at_once_keeps_all_of_it(seed):
    rng = np.random.default_rng(seed)
    fields = random_limits(rng).model_dump(exclude_none=True)
    asked = guarded(0.5 * rng.random(), **fields)
    best = search(replace(asked, samples=200, average=8, seed=seed))
    limits = constraints(**fields)
    assert limits.violations(Mixture.from_array(DOMAINS, best.weights_D)) == []
    if limits.allowed.contains(NATURAL.array[None])[0]:  # the reference keeps every guardrail
        assert asked.excess(best.weights_D[None]).max() <= MISSED


def test_more_risk_aversion_stays_nearer_to_what_is_known():
    moved = []
    for deviations in (0.0, 0.3, 3.0):
        asked = problem(Bowls([1.0, 0, 0, 0]), CappedSimplex.full(4), deviations=deviations)
        moved.append(np.abs(found(asked).weights_D - 0.25).sum())
    assert moved[0] > moved[1] + 0.01
    assert moved[1] > moved[2] + 0.01
    assert moved[2] == pytest.approx(0, abs=0.01)


def test_the_quantile_over_refits_is_what_is_minimised():
    refits = (Bowls([1.0, 0, 0, 0]), Bowls([0, 1.0, 0, 0]), Bowls([0, 1.0, 0, 0]))
    asked = problem(refits[0], CappedSimplex.full(4), quantile=0.99, refits=refits)
    best = found(asked, samples=4000)
    values_B = [one.predict(best.weights_D[None])[0, 0] for one in refits]
    assert best.value == pytest.approx(np.quantile(values_B, 0.99))
    # The worst of both is least halfway between them.
    assert best.weights_D == pytest.approx([0.5, 0.5, 0, 0], abs=0.02)


@pytest.fixture(scope="module")
def fit():
    """Losses of three targets that are linear in the weights: code alone lowers math."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(4), 30)
    slopes_DM = np.array([[0, 1.0, -2.0], [0, 0, 0], [0, -1.0, 0], [1.0, 0, 0]])
    losses_NM = 3 + weights_ND @ slopes_DM + 0.01 * rng.standard_normal((30, 3))
    targets = ("mail", "law", "math")
    trials = table(weights_ND, losses_NM, DOMAINS, targets)
    objective = Objective(targets, "target", {"math": 1.0})
    return fit_trials(trials, FitConfig(regressors=["linear"], folds=4), objective, 0)


def propose(fit, limits=None, **fields):
    settings = {"samples": 500, "bootstrap": 4, "keep_unmeasured": 0.0, **fields}
    allowed, config = constraints(**(limits or {})), ProposeConfig(**settings)
    return propose_mixture(ProposalRequest(fit, allowed, NATURAL, search=config))


def test_it_predicts_what_is_measured_then_guarded_and_knows_the_best_trials(fit):
    limits = constraints(guardrails={"targets": {"law": 0.1, "math": 0.1}})
    request = ProposalRequest(fit, limits, NATURAL)
    assert request.needed_columns == [2, 1]
    asked = Problem.of(request)
    predicted_NM = fit.regressor.predict(np.eye(4))
    np.testing.assert_allclose(asked.losses(np.eye(4)), predicted_NM[:, [2, 1]])
    assert asked.objective.evaluation == ("math", "law")
    order = np.argsort(fit.trials.losses("bits_per_byte")[:, 2])[:KNOWN]
    assert asked.known_ND.tolist() == fit.trials.weights()[order].tolist()


def test_a_guardrail_that_holds_is_named_among_what_binds(fit):
    proposal = propose(fit, {"guardrails": {"targets": {"law": 0.0}}})
    said = "loss of law <= that of natural (constraints.guardrails)"
    assert any(said in one for one in proposal.binding)
    law = fit.predict([proposal.mixture, NATURAL]).losses_NM[:, 1]
    assert law[0] <= law[1] + MISSED


def test_a_conflict_is_told_of_the_mixture_whose_worst_guardrail_is_broken_least(fit):
    # Code lowers math and raises law, which has too little of its own to make up for that.
    rails = {"targets": {"law": 0.0, "math": 0.0}}
    with pytest.raises(InfeasibleError) as caught:
        propose(fit, {"bounds": {"law": (0.0, 0.1)}, "guardrails": rails}, samples=50)
    said = re.search(r"worse by (.*), within", str(caught.value))[1]
    law, math = (float(re.search(rf"{name} ([0-9.]+)", said)[1]) for name in ("law", "math"))
    assert math == pytest.approx(law, abs=1e-4)
    assert 0.03 < law < 0.1


def test_a_risk_that_nothing_can_tell_is_refused(fit):
    with pytest.raises(ConfigError, match="risk.quantile: needs propose.bootstrap of at least 1"):
        propose(fit, risk={"quantile": 0.9}, bootstrap=0)
    unsure = replace(fit, held_out=fit.held_out.with_columns(std=0.0 * fit.held_out["std"]))
    with pytest.raises(ConfigError, match="risk.std: linear gives no standard deviations; use"):
        propose(unsure, risk={"std": 1.0})
