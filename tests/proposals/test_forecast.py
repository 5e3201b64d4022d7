"""Any mixture is predicted, and the limits that it breaks are shown and refuse nothing."""

from dataclasses import replace

import polars as pl
import pytest
from made_fit import DOMAINS, TARGETS, fitted, make_trials, with_objective

from mixopt.constraints.limits import up
from mixopt.errors import MixtureError
from mixopt.mixture import Mixture
from mixopt.proposals import (
    ProposalRequest,
    predict_mixture,
    predict_own_mixture,
    predicted_other_losses,
)
from mixopt.proposals.best_mixture import EDITED
from mixopt.trials import Trials

MOSTLY_CODE = Mixture({"code": 0.7, "prose": 0.2, "law": 0.1})
INVENTORY = {"code": 1e9, "prose": 4e9, "law": 2e9}


UNIFORM = Mixture.uniform(DOMAINS)
FIT = fitted("linear")


def forecast(mixture=MOSTLY_CODE, target=None, fit=FIT, **options):
    return predict_mixture(ProposalRequest.of(fit, target, **options), mixture)


def test_losses_objective_and_gains_are_those_that_the_fit_predicts():
    found, said = forecast().predicted, FIT.predict(MOSTLY_CODE)
    losses = [loss.value for loss in found.losses.values()]
    assert losses == pytest.approx(said.losses_NM[0].tolist(), abs=1e-6)
    assert found.predicted_objective.value == pytest.approx(said.objective_N[0], abs=1e-6)
    gain = found.gains["uniform"]
    base, _ = FIT.baseline(UNIFORM, FIT.objective)
    assert gain.mean == pytest.approx(base - said.objective_N[0], abs=1e-5)
    assert gain.low < gain.mean < gain.high


def test_epochs_beyond_a_limit_are_shown_with_the_number_and_not_refused():
    limits = {"max_epochs": 2}
    found = forecast(constraints=limits, inventory=INVENTORY, tokens=10e9)
    assert found.predicted.epochs == {"code": 7.0, "prose": 0.5, "law": 0.5}
    (line,) = found.broken
    assert "'code': a weight of 0.7 of 10B tokens needs 7 epochs of its 1B tokens" in line
    assert found.to_json()["broken"] == [line]


def test_a_guardrail_that_is_broken_says_by_how_much():
    found = forecast(constraints={"guardrails": "uniform"})
    own_M, even_M = FIT.predict([MOSTLY_CODE, UNIFORM]).losses_NM
    worse = own_M[2] - even_M[2]
    assert (
        f"law: predicted to be {worse:.4g} worse than with uniform; constraints.guardrails"
        f" allows 0.02; allow targets: {{law: {up(worse)}}}"
    ) in found.broken
    assert found.limits == ("constraints.guardrails",)
    assert not any(line.startswith("code:") for line in found.broken)


def test_other_losses_are_those_that_the_objective_does_not_measure_worst_first():
    others = forecast().other_losses
    own_M, even_M = FIT.predict([MOSTLY_CODE, UNIFORM]).losses_NM
    assert list(others) == ["prose", "math"]
    assert others["math"].mean == pytest.approx(even_M[3] - own_M[3], abs=1e-5)
    assert others["prose"].low < others["prose"].mean < others["prose"].high
    higher = replace(FIT.objective, higher=("math",))
    turned = predicted_other_losses(MOSTLY_CODE, UNIFORM, with_objective(FIT, higher), higher)
    assert turned["math"].mean == pytest.approx(-others["math"].mean, abs=1e-5)
    assert forecast(target="*").other_losses == {}


def test_a_mixture_far_from_all_trials_is_called_an_extrapolation():
    corner = Mixture({"code": 0.0, "prose": 1.0, "law": 0.0})
    few = make_trials().table.filter(pl.col("weight/prose") < 0.5)
    inner = fitted("linear", trials=Trials(few, DOMAINS, TARGETS))
    warnings = forecast(corner, fit=inner).predicted.warnings
    assert any(w.startswith("the mixture is 0.") and "an extrapolation" in w for w in warnings)
    assert forecast(UNIFORM, fit=inner).predicted.warnings == ()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"code": 0.5, "prose": 0.5}, "no weight for 'law': the fit has domains code, prose, law;"),
        ({"code": 0.5, "pros": 0.5}, "unknown domain 'pros'; did you mean 'prose'?"),
    ],
)
def test_other_domains_than_the_fit_has_are_one_line(weights, message):
    with pytest.raises(MixtureError) as error:
        forecast(Mixture(weights))
    assert str(error.value).startswith(message)


def test_an_edited_proposal_has_limits_that_it_breaks_and_no_search():
    request = ProposalRequest.of(FIT, constraints={"bounds": {"law": (0.0, 0.05)}})
    found = predict_own_mixture(request, MOSTLY_CODE)
    assert (found.stability, found.region) == (None, None)
    assert found.provenance["method"] == "edited by hand"
    assert found.warnings[0] == EDITED
    assert any("law" in warning and "0.05" in warning for warning in found.warnings[1:])
