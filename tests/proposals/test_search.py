"""The search finds known optima of synthetic laws, for one mixture and for one of each phase."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_fit import fitted, table

import mixopt
from mixopt import Phases, Proposal
from mixopt.config import ConstraintsConfig, ProposeConfig
from mixopt.constraints import BROKEN, Constraints, DifferentiableFunction, FeasibleSet, Guardrails
from mixopt.errors import InfeasibleError, RunError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Problem, ProposalRequest, search
from mixopt.proposals.search import (
    BEST_TRIALS,
    FAR,
    descend,
    least_broken,
    projected_descent,
    simulate,
)
from mixopt.reporting import proposal_text

DOMAINS = ("code", "prose", "law", "mail")
INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL = Mixture.natural(INVENTORY)
UNIFORM_D = np.full(3, 1 / 3)


class Bowls:
    """Losses with known minima, by squared distance."""

    def __init__(self, *bottoms) -> None:
        self.bottoms_MD = np.array(bottoms)

    def predict(self, weights_ND):
        return ((weights_ND[:, None] - self.bottoms_MD) ** 2).sum(axis=2)

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


def constraints(**fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY, 1000)


def problem(regressor, allowed=None, names=("a",), worst=(), **fields) -> Problem:
    """Minimise the first loss, or the worst of some."""
    weights = dict.fromkeys(worst or names[:1], 1.0)
    allowed = allowed or FeasibleSet.full(3)
    domains = len(allowed.lower_D)
    natural_D = np.arange(domains, 0.0, -1) / np.arange(1, domains + 1).sum()
    objective = Objective(names, "worst" if worst else "target", weights)
    fields = {"known_ND": np.empty((0, domains)), **fields}
    return Problem(regressor, objective, allowed, natural_D, **fields)


def guards(reference_D, names=("a", "b"), margin=None, **targets) -> Guardrails:
    objective = Objective(names, "target", {"a": 1.0})
    return Guardrails("natural", margin, targets).on(objective, np.array(reference_D))


def found(posed: Problem, samples=400):
    return search(replace(posed, samples=samples, average=16))


TEXT = {"text": {"domains": ["prose", "law"], "bounds": [0.1, 0.35]}}


@pytest.mark.parametrize(
    ("fields", "nearest"),
    [
        ({}, [0.1, 0.2, 0.6, 0.1]),
        ({"bounds": {"law": (0.05, 0.3), "mail": (0.1, 1.0)}}, [0.2, 0.3, 0.3, 0.2]),
        ({"groups": TEXT}, [0.325, 0, 0.35, 0.325]),
        # As SLSQP finds it, with the conditions written out.
        (
            {"radius": {"kl": 0.02}, "bounds": {"code": (0.37, 0.42)}},
            [0.37, 0.25507, 0.28236, 0.09257],
        ),
    ],
)
def test_the_optimum_of_a_convex_law_within_limits_is_found(fields, nearest):
    best = found(problem(Bowls([0.1, 0.2, 0.6, 0.1]), constraints(**fields).allowed))
    assert best.weights_D == pytest.approx(nearest, abs=1e-4)


def test_the_worst_of_two_is_met_halfway():
    best = search(problem(Bowls([1.0, 0, 0], [0, 1.0, 0]), names=("a", "b"), worst=("a", "b")))
    assert best.weights_D == pytest.approx([0.5, 0.5, 0], abs=1e-4)
    assert best.value == pytest.approx(0.5, abs=1e-6)


def test_simulation_comes_near_the_bottom_and_keeps_a_known_mixture_that_beats_all_draws():
    best = search(problem(SimpleNamespace(predict=Bowls([0.2, 0.5, 0.3]).predict)))
    assert best.method == "simulation"  # without a gradient
    assert best.weights_D == pytest.approx([0.2, 0.5, 0.3], abs=0.03)
    spike_D = np.array([0.123456, 0.654321, 1 - 0.123456 - 0.654321])

    def predict(weights_ND):
        return (np.abs(weights_ND - spike_D).max(axis=1) > 1e-9).astype(float)

    hidden = problem(SimpleNamespace(predict=predict), known_ND=spike_D[None])
    assert search(hidden).value == 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), domains=st.integers(2, 8), worst=st.booleans())
def test_what_is_found_is_allowed_and_no_worse_than_anything_that_was_scored(seed, domains, worst):
    rng = np.random.default_rng(seed)
    inside_D = rng.dirichlet(np.ones(domains))
    lower_D, upper_D = (
        inside_D + far_D * rng.random(domains) for far_D in (-inside_D, 1 - inside_D)
    )
    names = ("a", "b") if worst else ("a",)
    bowls = Bowls(*rng.dirichlet(np.ones(domains), len(names)).tolist())
    options = {"worst": names if worst else (), "samples": 300, "average": 32, "seed": seed}
    posed = problem(bowls, FeasibleSet.within(lower_D, upper_D), names, **options)
    best = search(posed)
    assert posed.allowed.contains(best.weights_D, tolerance=1e-12).all()
    # What SLSQP tries on its way is outside the limits, so only allowed mixtures are compared.
    scored_ND = posed.allowed.project(rng.dirichlet(np.ones(domains), 300))
    assert best.value <= posed.score(scored_ND).min() + 1e-9


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_projected_gradients_of_many_domains_end_where_the_slope_pushes_out(seed):
    rng = np.random.default_rng(seed)
    target_D, scales_D = rng.normal(0.01, 0.05, 100), np.exp(rng.normal(0, 1, 100))
    cost = DifferentiableFunction(
        lambda w: (scales_D * (w - target_D) ** 2).sum(keepdims=True),
        lambda w: 2.0 * scales_D * (w - target_D)[None],
    )
    project = FeasibleSet.within(np.zeros(100), np.full(100, 0.1)).project
    end_D = projected_descent(cost, project, np.full(100, 0.01), accuracy=1e-13)
    free = (end_D > 1e-6) & (end_D < 0.1 - 1e-6)
    slope_D = cost.slopes(end_D)[0]
    level = slope_D[free].mean()
    assert np.ptp(slope_D[free]) < 1e-3
    assert slope_D[end_D <= 1e-6].min(initial=np.inf) > level - 1e-3
    assert slope_D[end_D >= 0.1 - 1e-6].max(initial=-np.inf) < level + 1e-3


def test_more_domains_than_a_quadratic_program_takes_end_at_the_bottom_too():
    posed = problem(Bowls(np.linspace(0.0, 2 / 64, 65)), FeasibleSet.full(65))
    bottom_D = posed.allowed.project(posed.regressor.bottoms_MD)[0]
    np.testing.assert_allclose(descend(posed, posed.natural_D).weights_D, bottom_D, atol=1e-6)


def test_a_broken_guardrail_is_worse_than_any_value_and_the_more_the_worse():
    posed = problem(Slopes([1, 0, 0], [0, 3, 0]), names=("a", "b"), guards=guards(UNIFORM_D, b=0.5))
    weights_ND = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0.6, 0.4], [0, 1.0, 0]])
    np.testing.assert_allclose(posed.excess(weights_ND)[:, 0], [-1.5, 0.0, 0.3, 1.5], atol=1e-12)
    np.testing.assert_allclose(posed.score(weights_ND), [1.0, 0.0, 1.3 * FAR, 2.5 * FAR])
    missed = np.array([[0.0, 0.5 + 5e-10, 0.5 - 5e-10]])  # by what a tolerance misses
    assert posed.score(missed).tolist() == [0.0]


def test_a_descent_finds_a_vertex_and_keeps_a_guardrail_with_a_little_room_also_of_the_worst_loss():
    np.testing.assert_allclose(
        descend(problem(Slopes([-1, 0, 0])), UNIFORM_D).weights_D, [1, 0, 0], atol=1e-9
    )
    held = guards(UNIFORM_D, b=0.1)
    posed = problem(Slopes([-1, 0, 0], [1, 0, 0]), names=("a", "b"), guards=held)
    best = descend(posed, UNIFORM_D)
    assert best.weights_D[0] == pytest.approx(1 / 3 + 0.1, abs=1e-5)
    assert posed.excess(best.weights_D[None])[0, 0] <= 0.0
    assert best.value == pytest.approx(-best.weights_D[0])
    names = ("a", "b", "c")
    slopes, held = Slopes([-1, 0, 0], [0, -1, 0], [1, 1, 0]), guards(UNIFORM_D, names, c=0.1)
    best = descend(problem(slopes, names=names, worst=("a", "b"), guards=held), UNIFORM_D)
    both = (2 / 3 + 0.1) / 2
    np.testing.assert_allclose(best.weights_D, [both, both, 1 - 2 * both], atol=1e-4)


def test_the_least_broken_mixture_breaks_the_worst_guardrail_least():
    bounds = FeasibleSet.within(np.array([0, 0, 0.2]), np.ones(3))
    held = guards([0.6, 0.4, 0], margin=0.0)
    posed = problem(Slopes([-1, 0, 0], [0, -1, 0]), bounds, ("a", "b"), guards=held)
    # 0.2 is missing; half of it from each.
    nearest_D = least_broken(posed, np.array([0.8, 0.0, 0.2]))
    np.testing.assert_allclose(nearest_D, [0.5, 0.3, 0.2], atol=1e-5)


def guarded(margin, **fields) -> Problem:
    bowls, held = Bowls([1.0, 0, 0, 0], [0, 0, 1.0, 0]), guards(NATURAL.array, b=margin)
    return problem(bowls, constraints(**fields).allowed, ("a", "b"), guards=held)


def test_no_guarded_loss_gets_worse_than_its_margin():
    posed = guarded(0.05)
    drawn = simulate(replace(posed, samples=4000, average=16))
    both = found(replace(posed, guards=None)), drawn, found(posed, samples=4000)
    free, drawn, held = (posed.excess(item.weights_D[None])[0, 0] for item in both)
    assert free > 0.5
    assert drawn <= BROKEN
    assert -1e-4 < held <= BROKEN


def limits_around(inside_D, rng):
    """Return limits of every kind, which a mixture meets."""
    low_D, high_D = inside_D * rng.random(4), inside_D + (1 - inside_D) * rng.random(4)
    some, apart_D = inside_D[:2].sum(), np.abs(inside_D - NATURAL.array)
    kl, room = inside_D @ np.log(inside_D / NATURAL.array), 0.3 * rng.random() + 1e-6
    most = (inside_D * 1000 / np.array(list(INVENTORY.values()))).max()
    bounds = (some * rng.random(), some + (1 - some) * rng.random())
    return {
        "bounds": dict(
            zip(DOMAINS, zip(low_D.tolist(), high_D.tolist(), strict=True), strict=True)
        ),
        "groups": {"some": {"domains": DOMAINS[:2], "bounds": bounds}},
        "radius": rng.choice([{"tv": min(apart_D.sum() / 2 + room, 1.0)}, {"kl": kl + room}]),
        "max_epochs": most * (1 + rng.random()),
    }


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.sets(st.sampled_from(["bounds", "groups", "radius", "max_epochs"]))
)
def test_a_search_with_everything_at_once_keeps_all_of_it(seed, kinds):
    rng = np.random.default_rng(seed)
    around = limits_around(rng.dirichlet(np.ones(4)), rng)
    fields = {kind: around[kind] for kind in kinds}
    posed = guarded(0.5 * rng.random(), **fields)
    best = search(replace(posed, samples=200, average=8, seed=seed))
    limits = constraints(**fields)
    assert limits.violations(Mixture.from_array(DOMAINS, best.weights_D)) == []
    if limits.allowed.contains(NATURAL.array[None])[0]:  # the reference keeps every guardrail
        assert posed.excess(best.weights_D[None]).max() <= BROKEN


@pytest.fixture(scope="module")
def fit():
    """Losses of three targets that are linear in the weights: code alone lowers math."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(4), 30)
    slopes_DM = np.array([[0, 1.0, -2.0], [0, 0, 0], [0, -1.0, 0], [1.0, 0, 0]])
    losses_NM = 3 + weights_ND @ slopes_DM + 0.01 * rng.standard_normal((30, 3))
    targets = ("mail", "law", "math")
    objective = Objective(targets, "target", {"math": 1.0})
    return fitted("linear", trials=table(weights_ND, losses_NM, DOMAINS, targets), goal=objective)


def propose(fit, limits=None, **fields):
    config = ProposeConfig(**{"samples": 500, "bootstrap": 4, "keep_unmeasured": 0.0, **fields})
    return fit.propose(constraints=limits, inventory=INVENTORY, search=config)


def test_it_predicts_what_is_measured_then_guarded_and_knows_the_best_trials(fit):
    limits = {"guardrails": {"targets": {"law": 0.1, "math": 0.1}}}
    request = ProposalRequest.of(fit, constraints=limits)
    assert request.needed_columns == [2, 1]
    posed = Problem.of(request)
    predicted_NM = fit.regressor.predict(np.eye(4))
    np.testing.assert_allclose(posed.losses(np.eye(4)), predicted_NM[:, [2, 1]])
    assert posed.objective.evaluation == ("math", "law")
    order = np.argsort(fit.trials.losses("bits_per_byte")[:, 2])[:BEST_TRIALS]
    assert posed.known_ND.tolist() == fit.trials.weights()[order].tolist()


def test_a_guardrail_that_holds_is_named_among_what_binds(fit):
    proposal = propose(fit, {"guardrails": {"targets": {"law": 0.0}}})
    said = "loss of law <= that of natural (constraints.guardrails)"
    assert any(said in item for item in proposal.binding)
    law = fit.predict([proposal.mixture, NATURAL]).losses_NM[:, 1]
    assert law[0] <= law[1] + BROKEN


def test_a_conflict_is_told_of_the_mixture_whose_worst_guardrail_is_broken_least(fit):
    # Code lowers math and raises law, which has too little of its own to make up for that.
    rails = {"targets": {"law": 0.0, "math": 0.0}}
    with pytest.raises(InfeasibleError) as caught:
        propose(fit, {"bounds": {"law": (0.0, 0.1)}, "guardrails": rails}, samples=50)
    said = re.search(r"worse by (.*), within", str(caught.value))[1]
    law, math = (float(re.search(rf"{name} ([0-9.]+)", said)[1]) for name in ("law", "math"))
    assert math == pytest.approx(law, abs=1e-4)
    assert 0.03 < law < 0.1


PHASES = Phases({"1": 0.8, "2": 0.2})
CELLS = ("1/web", "1/code", "2/web", "2/code")


def proposed(tmp_path, loss):
    """Propose from forty trials with hardly any noise, of which every third is tied."""
    rng = np.random.default_rng(0)
    web_N2 = rng.random((40, 2))
    web_N2[::3, 1] = web_N2[::3, 0]
    losses_N = loss(*web_N2.T) + 1e-4 * rng.normal(size=40)
    cells_NC = np.stack([web_N2, 1 - web_N2], axis=2).reshape(40, 4) * [0.8, 0.8, 0.2, 0.2]
    trials = table(cells_NC, losses_N, CELLS, ("exam",))
    fit = trials.fit(regressors=["phases", "gaussian_process"])
    fit.save(tmp_path / "fit")
    return fit.propose(search=ProposeConfig(bootstrap=0, keep_unmeasured=0))


def test_where_phases_do_not_matter_one_mixture_is_proposed(tmp_path):
    found = proposed(tmp_path, lambda first, late: 1 + (0.8 * first + 0.2 * late - 0.6) ** 2)
    parts = found.phases.split(found.mixture)
    assert parts["1"].total_variation(parts["2"]) < 1e-4
    assert PHASES.whole(found.mixture)["web"] == pytest.approx(0.6, abs=0.05)
    assert "includes 0: one mixture is proposed for all phases" in found.warnings[0]
    tied = mixopt.predict(tmp_path / "fit", {"web": 0.3, "code": 0.7}).predicted
    assert tied.mixture == PHASES.tied({"web": 0.3, "code": 0.7})
    with pytest.raises(RunError, match="is a fit of tables, not a run; it answers mixopt propose"):
        mixopt.predict(tmp_path / "fit")


def test_where_late_text_counts_differently_each_phase_has_its_mixture(tmp_path):
    found = proposed(tmp_path, lambda first, late: 1 + (first - 0.8) ** 2 + (late - 0.1) ** 2)
    parts = found.phases.split(found.mixture)
    assert parts["1"]["web"] == pytest.approx(0.8, abs=0.08)
    assert parts["2"]["web"] == pytest.approx(0.1, abs=0.08)
    said = r"phases: .* better than one by \+0\.\d{4} nats per token \(\+0\.\d{4} to \+0"
    assert re.match(said, found.warnings[0])
    assert "natural  phase 1 (80%)  phase 2 (20%)" in proposal_text(found)
    found.to_file(tmp_path / "proposal.yaml")
    reloaded = Proposal.from_file(tmp_path / "proposal.yaml")
    assert dict(reloaded.phases) == pytest.approx(dict(PHASES))
    assert [phase["until"] for phase in reloaded.to_json()["phases"]] == [0.8, 1.0]
