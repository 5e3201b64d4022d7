"""A request: what it may be made with, and that all of it reaches the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_fit import table, with_objective

from mixopt.config import ConstraintsConfig, FitConfig, ProposeConfig, RiskConfig
from mixopt.errors import ConfigError
from mixopt.fitting import Fit, fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import ProposalRequest, propose_front, propose_mixture, search_steps

DOMAINS = ("code", "law", "mail")
TARGETS = ("math", "quiz")
INVENTORY = {"code": 500, "law": 300, "mail": 200}
SLOPES_MD = np.array([[-2.0, 0.0, 1.0], [0.0, -3.0, 1.0]])
QUICK = ProposeConfig(samples=200, bootstrap=0)


@pytest.fixture(scope="module")
def fit() -> Fit:
    """Losses that are linear in the weights: code lowers math, and law the quiz."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), 16)
    losses_NM = 5 + weights_ND @ SLOPES_MD.T + 0.01 * rng.standard_normal((16, 2))
    objective, trials = Objective(TARGETS, "target", {"quiz": 1.0}), (DOMAINS, TARGETS)
    return fit_trials(
        table(weights_ND, losses_NM, *trials),
        FitConfig(regressors=["linear"], folds=4),
        objective,
        0,
    )


def proposed(request, target=None, **options):
    """Propose for a target; the fit's own objective when None."""
    return propose_mixture(request.aimed_at(target), **options)


# What is natural --------------------------------------------------------------------------------


def test_the_natural_mixture_is_uniform_where_no_inventory_is_known(fit):
    request = ProposalRequest.of(fit)
    assert request.natural == Mixture.uniform(DOMAINS)
    assert request.inventory is None


def test_an_inventory_is_read_from_a_file(fit, tmp_path):
    (tmp_path / "tokens.yaml").write_text("code: 5e2\nlaw: 300\nmail: 200\n", encoding="utf-8")
    assert ProposalRequest.of(fit, inventory=tmp_path / "tokens.yaml").inventory == INVENTORY


# What is allowed --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["mapping", "file"])
def test_constraints_are_the_same_as_a_section_as_fields_and_as_a_file(fit, tmp_path, form):
    fields = {"bounds": {"law": [0.1, 0.4]}}
    path = tmp_path / "limits.yaml"
    path.write_text("bounds: {law: [0.1, 0.4]}\n", encoding="utf-8")
    given = {"config": ConstraintsConfig(**fields), "mapping": fields, "file": str(path)}[form]
    limits = ProposalRequest.of(fit, constraints=given).constraints
    assert limits.domains == DOMAINS
    assert limits.lower_D.tolist() == [0.0, 0.1, 0.0]
    assert limits.upper_D.tolist() == [1.0, 0.4, 1.0]


def test_epochs_are_limited_by_the_inventory_and_the_length_of_the_run(fit):
    request = ProposalRequest.of(
        fit, constraints={"max_epochs": 2.0}, inventory=INVENTORY, tokens=1500
    )
    np.testing.assert_allclose(request.constraints.upper_D, [1000 / 1500, 0.4, 400 / 1500])


def test_a_limit_on_epochs_without_an_inventory_is_refused(fit):
    with pytest.raises(ConfigError, match=r"constraints.max_epochs: needs the tokens of each dom"):
        ProposalRequest.of(fit, constraints={"max_epochs": 2.0}, tokens=1500)


def test_a_misspelt_constraint_is_refused_with_the_nearest(fit):
    with pytest.raises(ConfigError, match=r"constraints: bonds: unknown field; did you mean 'bou"):
        ProposalRequest.of(fit, constraints={"bonds": {}})


# How it is searched -----------------------------------------------------------------------------


def test_tokens_and_risk_are_put_into_the_search(fit):
    search = ProposalRequest.of(fit, tokens="15e2", risk={"quantile": 0.9}, search=QUICK).search
    expected = {"target_tokens": 1500, "risk": RiskConfig(quantile=0.9)}
    assert search == QUICK.model_copy(update=expected)


def test_a_risk_that_cannot_be_right_is_refused(fit):
    with pytest.raises(ConfigError, match="risk: .*give exactly one of std and quantile"):
        ProposalRequest.of(fit, risk={"std": 1.0, "quantile": 0.9})


# What is answered -------------------------------------------------------------------------------


def test_a_target_is_minimised_alone(fit):
    proposal = proposed(ProposalRequest.of(fit, search=QUICK), "math")
    assert proposal.objective == "math"
    assert proposal.mixture["code"] == pytest.approx(1.0, abs=1e-6)
    assert proposal.predicted_objective.value == proposal.losses["math"].value


@pytest.mark.parametrize("kind", ["mean", "worst"])
def test_a_target_is_in_the_unit_of_its_loss_whatever_the_fit_minimises(fit, kind):
    both = Objective(TARGETS, kind, {"math": 0.5, "quiz": 0.5})
    scaled = with_objective(fit, both.scaled({"math": 10.0, "quiz": 20.0}))
    proposal = proposed(ProposalRequest.of(scaled, search=QUICK), "math")
    assert (proposal.objective, proposal.unit) == ("math", "bits_per_byte")
    assert proposal.predicted_objective.value == proposal.losses["math"].value


def test_a_target_keeps_the_direction_that_the_fit_has(fit):
    turned = with_objective(fit, replace(fit.objective, higher=("math",)))
    proposal = proposed(ProposalRequest.of(turned, search=QUICK), "math")
    assert proposal.mixture["mail"] == pytest.approx(1.0, abs=1e-6)


def test_an_unknown_target_is_refused_with_the_nearest(fit):
    with pytest.raises(ConfigError, match=r"unknown evaluation domain 'maths'; did you mean 'ma"):
        proposed(ProposalRequest.of(fit, search=QUICK), "maths")


def test_the_progress_of_a_proposal_counts_refits_the_search_and_a_search_with_each(fit):
    seen = []
    request = ProposalRequest.of(fit, search=QUICK.model_copy(update={"bootstrap": 3}))
    proposed(request, update=lambda done, note: seen.append((done, note)))
    assert seen[:3] == [(1, "refits"), (2, "refits"), (3, "refits")]
    assert seen[-1][0] == search_steps(request.search) == 7
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_front_has_the_points_the_seed_and_the_epochs_that_were_asked_for(fit):
    seen = []
    request = ProposalRequest.of(fit, inventory=INVENTORY, tokens=600, search=QUICK, seed=7)
    update = lambda done, note: seen.append((done, note))  # noqa: E731
    found = propose_front(request, TARGETS, points=3, update=update)
    assert seen == [(1, "points"), (2, "points"), (3, "points")]
    first = found.points[0]
    assert first.mixture["code"] == pytest.approx(1.0, abs=1e-6)
    assert first.provenance["seed"] == 7
    assert first.natural == request.natural
    assert first.epochs["code"] == pytest.approx(1.2, abs=1e-3)
