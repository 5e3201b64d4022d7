"""Warnings about a proposal, at the edges of what each is about."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
from made_proposal import DOMAINS, PROPOSAL, made_proposal

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.fitting.intervals import TrialReach
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Proposal, ProposalRequest
from mixopt.proposals.proposal import listed
from mixopt.proposals.proposal_warnings import proposal_warnings

MATH = Objective(("code", "law", "math"), "target", {"math": 1.0})
CORNERS = [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]


def fit_with(rows=CORNERS, error: float = 0.1, mean: float = 2.0) -> SimpleNamespace:
    """The parts of a fit that warnings use: trials, and the objective's held-out errors."""
    table = pl.DataFrame({"trial": [f"t{row}" for row in range(len(rows))]})
    scores = {"linear": {"rmse": error}, "mean": {"rmse": mean}}
    weights_ND = np.array(rows, dtype=float)
    trials = SimpleNamespace(table=table, weights=lambda: weights_ND)
    reach = TrialReach(weights_ND)
    numbers = {"scores": scores, "trials": trials, "reach": reach}
    return SimpleNamespace(name="linear", thin_evidence=lambda: None, **numbers)


FIT = fit_with()


def request(fit=FIT, goal=MATH, **limits) -> ProposalRequest:
    config = ConstraintsConfig(**limits)
    allowed = Constraints.from_config(config, dict.fromkeys(DOMAINS, 1))
    return ProposalRequest(fit, allowed, None, goal=goal)


def warned(said: str, proposal: Proposal = PROPOSAL, fit: SimpleNamespace = FIT) -> bool:
    """Tell whether a warning about a proposal has these words."""
    return any(said in line for line in proposal_warnings(proposal, request(fit)))


def at(*weights: float) -> Proposal:
    return made_proposal(mixture=Mixture.from_array(DOMAINS, weights))


def test_a_weight_counts_as_at_its_floor_up_to_and_with_a_ten_thousandth():
    said = "measures prose, law, mail, and the"
    assert warned(said, at(1 - 1e-4, 0, 0, 1e-4))
    assert not warned(said, at(1 - 1.01e-4, 0, 0, 1.01e-4))


def test_a_regressor_needs_to_explain_a_tenth_of_the_variance():
    said = "of the differences of the objective between held-out trials"
    assert warned(f"linear explains 8% {said}", fit=fit_with(error=1.92))
    assert not warned(said, fit=fit_with(error=1.89))
    assert warned(f"linear explains 0% {said}", fit=fit_with(error=3.0))


def test_a_proposal_is_far_where_it_is_farther_than_any_trial_is_from_its_nearest():
    # Apart 0.125 and 0.25 from their nearest: the wider counts.
    fit = fit_with([(1, 0, 0, 0), (0.875, 0.125, 0, 0), (0.625, 0.375, 0, 0)])
    said = "the prediction is an extrapolation"
    assert not warned(said, at(0.625, 0.125, 0.25, 0), fit)
    assert warned(said, at(0.5, 0.125, 0.375, 0), fit)


def test_a_proposal_that_is_sure_better_and_near_has_no_warning():
    fit = fit_with([(0.2, 0.5, 0.3, 0), (0.4, 0.3, 0.3, 0)])
    goal = Objective(DOMAINS, "mean", dict.fromkeys(DOMAINS, 0.25))
    assert proposal_warnings(PROPOSAL, request(fit, goal)) == ()


def test_a_share_beyond_what_was_tried_is_named_with_the_range():
    fit = fit_with([(1, 0, 0, 0), (0.5, 0.25, 0.25, 0), (0.75, 0, 0.25, 0)])
    said = "beyond the tried range of"
    law = f"is {said} law (30.0%; 0.0% to 25.0% tried): no trial was there"
    assert warned(law, at(0.7, 0, 0.3, 0), fit)
    assert not warned(said, at(0.75, 0, 0.25, 0), fit)
    assert warned(f"and {said} mail (50.0%; 0.0% to 0.0% tried)", at(0.5, 0, 0, 0.5), fit)


def test_a_proposal_that_may_be_no_better_is_said_to_be():
    better = replace(PROPOSAL, best_observed=PROPOSAL.predicted_objective.value)
    assert warned("is not predicted to beat the best trial", better)
    assert not warned("is not predicted to beat", replace(better, best_observed=99.0))
    name = next(iter(PROPOSAL.gains))
    unsure = replace(PROPOSAL, gains={name: replace(PROPOSAL.gains[name], low=0.0)})
    assert warned(f"predicted gain over {listed([name])} includes 0", unsure)


def test_domains_that_nothing_measures_are_kept_and_no_floor_is_advised_where_there_is_one():
    for kept, words in ((("mail",), "mail, so no fit can tell what it is"), (DOMAINS, "they are")):
        lines = proposal_warnings(PROPOSAL, request(), unmeasured=kept)
        assert any(words in line for line in lines)
    lines = proposal_warnings(at(0.5, 0.4, 0.0, 0.1), request(bounds={"mail": (0.1, 1.0)}))
    (said,) = [line for line in lines if "set a floor" in line]
    assert "law" in said
    assert "mail" not in said
