"""Any mixture is predicted, and the limits that it breaks are shown and refuse nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_fit import DOMAINS, fitted, make_trials, objective

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.constraints.limits import up
from mixopt.errors import MixtureError
from mixopt.mixture import Mixture
from mixopt.proposals import ProposalRequest, predict_mixture, predict_own_mixture, predicted_costs
from mixopt.proposals.best_mixture import EDITED

MOSTLY_CODE = Mixture({"code": 0.7, "prose": 0.2, "law": 0.1})
INVENTORY = {"code": 1e9, "prose": 4e9, "law": 2e9}


@pytest.fixture(scope="module")
def fit():
    return fitted("linear")


def forecast(fit, mixture=MOSTLY_CODE, target=None, **asked):
    return predict_mixture(ProposalRequest.of(fit, target, **asked), mixture)


def test_losses_objective_and_gains_are_those_that_the_fit_predicts(fit):
    found, said = forecast(fit).predicted, fit.predict([MOSTLY_CODE, Mixture.uniform(DOMAINS)])
    losses = [loss.value for loss in found.losses.values()]
    assert losses == pytest.approx(said.losses_NM[0].tolist(), abs=1e-6)
    assert found.predicted_objective.value == pytest.approx(said.objective_N[0], abs=1e-6)
    gain = found.gains["uniform"]
    base, _ = fit.baseline(Mixture.uniform(DOMAINS), fit.objective)
    assert gain.value == pytest.approx(base - said.objective_N[0], abs=1e-5)
    assert gain.low < gain.value < gain.high


def test_epochs_beyond_a_limit_are_shown_with_the_number_and_not_refused(fit):
    limits = {"max_epochs": 2}
    found = forecast(fit, constraints=limits, inventory=INVENTORY, tokens=10e9)
    assert found.predicted.epochs == {"code": 7.0, "prose": 0.5, "law": 0.5}
    (line,) = found.broken
    assert "'code': a weight of 0.7 of 10B tokens needs 7 epochs of its 1B tokens" in line
    assert found.to_json()["broken"] == [line]


def test_a_guardrail_that_is_broken_says_by_how_much(fit):
    found = forecast(fit, constraints={"guardrails": "uniform"})
    at_NM = fit.predict([MOSTLY_CODE, Mixture.uniform(DOMAINS)]).losses_NM
    worse = at_NM[0, 2] - at_NM[1, 2]
    assert (
        f"law: predicted to be {worse:.4g} worse than with uniform; constraints.guardrails"
        f" allows 0.02; allow targets: {{law: {up(worse)}}}"
    ) in found.broken
    assert found.limits == ("constraints.guardrails",)
    assert not any(line.startswith("code:") for line in found.broken)


def test_costs_are_of_losses_that_the_objective_does_not_measure_the_largest_first(fit):
    costs = forecast(fit).costs
    at_NM = fit.predict([MOSTLY_CODE, Mixture.uniform(DOMAINS)]).losses_NM
    assert list(costs) == ["prose", "math"]
    assert costs["math"].value == pytest.approx(at_NM[0, 3] - at_NM[1, 3], abs=1e-5)
    assert costs["prose"].low < costs["prose"].value < costs["prose"].high
    higher = replace(fit.objective, higher=("math",))
    turned = predicted_costs(MOSTLY_CODE, Mixture.uniform(DOMAINS), fit, higher)
    assert turned["math"].value == -costs["math"].value
    assert forecast(fit, target="*").costs == {}


def test_a_mixture_far_from_all_trials_is_called_an_extrapolation():
    corner = Mixture({"code": 0.0, "prose": 1.0, "law": 0.0})
    near = fitted("linear")
    trials = near.trials
    kept = [row for row, w in enumerate(trials.weights()) if w[1] < 0.5]
    inner = fitted(
        "linear", trials=type(trials)(trials.table[kept], trials.domains, trials.targets)
    )
    warnings = forecast(inner, corner).predicted.warnings
    assert any(w.startswith("the mixture is 0.") and "an extrapolation" in w for w in warnings)
    assert forecast(inner, Mixture.uniform(DOMAINS)).predicted.warnings == ()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"code": 0.5, "prose": 0.5}, "no weight for 'law': the fit has domains code, prose, law;"),
        ({"code": 0.5, "pros": 0.5}, "unknown domain 'pros'; did you mean 'prose'?"),
    ],
)
def test_other_domains_than_the_fit_has_are_one_line(fit, weights, message):
    with pytest.raises(MixtureError) as error:
        forecast(fit, Mixture(weights))
    assert str(error.value).startswith(message)


def test_an_edited_proposal_has_limits_that_it_breaks_and_no_search(fit):
    limits = ConstraintsConfig(bounds={"law": (0.0, 0.05)})
    request = ProposalRequest(
        fit,
        Constraints.from_config(limits, dict.fromkeys(DOMAINS, 1000)),
        Mixture.uniform(DOMAINS),
        trials=make_trials(),
        goal=objective("code", "law"),
    )
    found = predict_own_mixture(request, MOSTLY_CODE)
    assert (found.stability, found.region) == (None, None)
    assert found.provenance["method"] == "edited by hand"
    assert found.warnings[0] == EDITED
    assert any("law" in warning and "0.05" in warning for warning in found.warnings[1:])
