"""A proposal that somebody edited is a mixture of their own, with a prediction of its own."""

from __future__ import annotations

import re

import pytest
from made_fit import DOMAINS, fitted, make_trials, objective

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.errors import EditedWarning, MixtureError
from mixopt.mixture import Mixture
from mixopt.proposals import Proposal, ProposalRequest, predict_own_mixture
from mixopt.proposals.best_mixture import EDITED

OWN = Mixture({"code": 0.2, "prose": 0.3, "law": 0.5})


@pytest.fixture(scope="module")
def fit():
    return fitted("linear")


def predicted(fit, mixture=OWN, **limits):
    inventory = dict.fromkeys(DOMAINS, 1000)
    constraints = Constraints.from_config(
        ConstraintsConfig.model_validate(limits), inventory=inventory, target_tokens=None
    )
    natural, goal = Mixture.uniform(DOMAINS), objective("code", "law")
    request = ProposalRequest(fit, constraints, natural, trials=make_trials(), goal=goal)
    return predict_own_mixture(request, mixture)


def test_nothing_is_said_of_a_search_that_was_not_made(fit):
    found = predicted(fit)
    assert found.stability is None
    assert found.region is None
    assert found.provenance["method"] == "edited by hand"
    assert found.warnings[0] == EDITED


def test_limits_that_it_breaks_are_warnings(fit):
    found = predicted(fit, bounds={"law": [0.0, 0.4]})
    assert any("law" in warning and "0.4" in warning for warning in found.warnings[1:])


def test_an_edited_file_is_no_proposal_and_still_a_mixture(fit, tmp_path):
    path = tmp_path / "proposal.yaml"
    predicted(fit).to_file(path)
    text = re.sub(r"code: 0\.2\b", "code: 0.25", path.read_text(), count=1)
    path.write_text(re.sub(r"law: 0\.5\b", "law: 0.45", text, count=1))
    with (
        pytest.warns(EditedWarning),
        pytest.raises(MixtureError, match=r"has changed .*Mixture\.from_file"),
    ):
        Proposal.from_file(path)
    with pytest.warns(EditedWarning):
        assert Mixture.from_file(path)["code"] == 0.25
