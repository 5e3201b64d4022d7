"""A request: what it may be made with, and that all of it reaches the answer."""

from dataclasses import replace

import numpy as np
import pytest
from made_fit import fitted, table, with_objective

from mixopt.config import ConstraintsConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError
from mixopt.fitting import Fit
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import ProposalRequest, propose_front
from mixopt.proposals.best_mixture import keeping_unmeasured

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
    objective = Objective(TARGETS, "target", {"quiz": 1.0})
    return fitted("linear", trials=table(weights_ND, losses_NM, DOMAINS, TARGETS), goal=objective)


def test_without_an_inventory_the_natural_mixture_is_uniform_and_tokens_reach_the_search(fit):
    request = ProposalRequest.of(fit)
    assert request.natural == Mixture.uniform(DOMAINS)
    assert request.inventory is None
    search = ProposalRequest.of(fit, tokens="15e2", search=QUICK).search
    assert search == QUICK.model_copy(update={"target_tokens": 1500})


def test_limits_are_fields_or_a_file_and_epochs_are_of_a_file_of_sizes(fit, tmp_path):
    fields = {"bounds": {"law": [0.1, 0.4]}, "max_epochs": 2.0}
    limits, sizes = tmp_path / "limits.yaml", tmp_path / "tokens.yaml"
    limits.write_text("bounds: {law: [0.1, 0.4]}\nmax_epochs: 2\n", encoding="utf-8")
    sizes.write_text("code: 5e2\nlaw: 300\nmail: 200\n", encoding="utf-8")
    for given in (ConstraintsConfig(**fields), fields, str(limits)):
        request = ProposalRequest.of(fit, constraints=given, inventory=sizes, tokens=1500)
        assert request.inventory == INVENTORY
        assert request.constraints.lower_D.tolist() == [0.0, 0.1, 0.0]
        np.testing.assert_allclose(request.constraints.upper_D, [1000 / 1500, 0.4, 400 / 1500])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"constraints": {"max_epochs": 2.0}, "tokens": 9},
            "constraints.max_epochs: needs the tok",
        ),
        (
            {"constraints": {"bonds": {}}},
            "constraints: bonds: unknown field; did you mean 'bounds'",
        ),
        ({"target": "maths"}, "unknown evaluation domain 'maths'; did you mean 'math'"),
    ],
)
def test_a_request_that_cannot_be_is_one_line(fit, given, message):
    with pytest.raises(ConfigError, match=message):
        ProposalRequest.of(fit, **given)


@pytest.mark.parametrize("kind", ["mean", "worst"])
def test_a_target_is_minimised_alone_in_its_unit_and_direction_whatever_the_fit_minimises(
    fit, kind
):
    both = Objective(TARGETS, kind, {"math": 0.5, "quiz": 0.5}).scaled({"math": 10.0, "quiz": 20.0})
    proposal = with_objective(fit, both).propose(target="math", search=QUICK)
    assert (proposal.objective, proposal.unit) == ("math", "bits_per_byte")
    assert proposal.mixture["code"] == pytest.approx(1.0, abs=1e-6)
    assert proposal.predicted_objective.value == proposal.losses["math"].value
    turned = with_objective(fit, replace(both, higher=TARGETS))
    turned = turned.propose(target="math", search=QUICK)
    assert turned.mixture["mail"] == pytest.approx(1.0, abs=1e-6)


def test_a_front_has_the_points_the_seed_and_the_epochs_that_were_asked_for(fit):
    request = ProposalRequest.of(fit, inventory=INVENTORY, tokens=600, search=QUICK, seed=7)
    first, *_ = propose_front(request, TARGETS, points=3).points
    assert first.mixture["code"] == pytest.approx(1.0, abs=1e-6)
    assert first.provenance["seed"] == 7
    assert first.natural == request.natural
    assert first.epochs["code"] == pytest.approx(1.2, abs=1e-3)


def limited(**fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY)


def test_an_unmeasured_domain_keeps_a_share_of_its_natural_weight_that_gives_way():
    limits, natural = limited(bounds={"mail": (0.0, 0.05)}), Mixture.natural(INVENTORY)
    kept, names = keeping_unmeasured(limits, natural, ("code",), 0.5)
    assert names == ("law", "mail")
    np.testing.assert_allclose(kept.lower_D, [0.0, 0.15, 0.05])
    assert keeping_unmeasured(limits, natural, ("code",), 0.0) == (limits, ())
    assert keeping_unmeasured(limits, natural, ("math",), 0.5) == (limits, ())
    few = limited(groups={"rest": {"domains": ["law", "mail"], "bounds": (0.0, 0.1)}})
    assert keeping_unmeasured(few, natural, ("code",), 1.0) == (few, ())
    without = Mixture({"code": 0.5, "law": 0.5, "mail": 0.0})
    assert keeping_unmeasured(limited(), without, ("code",), 0.5)[1] == ("law",)
