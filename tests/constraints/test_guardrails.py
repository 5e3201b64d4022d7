"""Guardrails and floors: how much worse than a reference, and which way worse is."""

import numpy as np
import pytest
from refusals import refuses

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints, Guardrails
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.objective import Objective
from mixopt.trials import Trials

EVALUATION = ("code", "law", "score")
OBJECTIVE = Objective(EVALUATION, "target", {"code": 1.0}, higher=("score",))
BASE = {"code": 2.0, "law": 1.0, "score": 0.5}


def guards(base=None, **fields) -> Guardrails:
    config = ConstraintsConfig.model_validate(fields)
    rails = Constraints.from_config(config, {"a": 1, "b": 1}, base=base).guardrails
    return rails.on(OBJECTIVE, np.full(2, 0.5))


def within(margin=None, reference="uniform", base=None, **targets) -> Guardrails:
    rails = {"reference": reference, "margin": margin, "targets": targets}
    return guards(base, guardrails=rails)


def excess(found, *losses):
    compared_G = found.compared(lambda w: OBJECTIVE.turned([[1.0, 1.0, 0.7]]))
    return found.excess(OBJECTIVE.turned([losses]), compared_G)[0]


def test_worse_is_above_a_reference_or_a_floor_for_a_loss_and_below_it_for_a_score():
    found = within(score=0.1, law=0.2)
    assert found.names == ("law", "score")
    assert excess(found, 9.0, 1.5, 0.5) == pytest.approx([0.3, 0.1])
    assert excess(found, 0.0, 1.0, 1.0) == pytest.approx([-0.2, -0.4])
    found = guards(floors={"law": 2.0, "score": 0.55}, guardrails={"targets": {"score": 0.01}})
    assert excess(found, 1.0, 2.25, 0.5) == pytest.approx([0.19, 0.25, 0.05])
    (line,) = guards(floors={"score": 0.55}).refusals(np.array([0.05]))
    assert line == "score: predicted to be 0.5; constraints.floors requires at least 0.55"


def test_a_targets_own_margin_wins_over_that_of_a_glob_and_of_all():
    found = within(0.1, **{"*": 0.3, "law": 0.0})
    assert (found.names, found.margins_G.tolist()) == (("code", "law", "score"), [0.3, 0.0, 0.3])
    refuses(ConfigError, r"guardrails.targets: unknown evaluation domain 'lwa'; d", within, lwa=0.0)
    assert guards(guardrails="natural").margins_G.tolist() == [0.02] * 3


def test_a_reference_is_what_the_checkpoint_was_measured_to_lose_or_given_by_name():
    found = guards(BASE, guardrails="base")
    assert excess(found, 2.05, 1.3, 0.5) == pytest.approx([0.03, 0.28, -0.02])
    (line,) = found.refusals(np.array([-0.05, 0.2, -0.1]))
    assert line.startswith("law: predicted to be 0.22 worse than with base")
    with pytest.raises(ConfigError, match="the loss of the checkpoint on 'law' is unknown"):
        guards({"code": 2.0}, guardrails="base")
    assert within(reference="base", base={"law": 2.0}, law=0.1).names == ("law",)
    found = within(0.01, {"score": 0.5, "law": 1.0}, law=0.2)
    assert found.names == ("law", "score")
    assert excess(found, 1.0, 1.3, 0.48) == pytest.approx([0.1, 0.01])
    with pytest.raises(ConfigError, match="guardrails.reference: unknown evaluation domain 'scor'"):
        within(0.01, {"scor": 0.5})
    with pytest.raises(ConfigError, match="guardrails.targets: the reference has no 'code'"):
        within(0.01, {"score": 0.5}, code=0.1)


def test_active_guardrails_and_floors_are_named():
    found = guards(
        guardrails={"reference": "uniform", "targets": {"law": 0.2, "score": 0.0, "code": 0.5}},
        floors={"score": 0.55},
    )
    assert found.binding(np.array([4e-5, -1.9e-5, 9e-6, 0.0])) == [
        "loss of code <= that of uniform + 0.5 (constraints.guardrails)",
        "loss of law <= that of uniform + 0.2 (constraints.guardrails)",
        "score >= that of uniform (constraints.guardrails)",
        "score >= 0.55 (constraints.floors)",
    ]
    assert found.binding(np.array([-6e-5, -2.1e-5, 1.1e-5, 1e-4])) == []


def test_a_conflict_names_what_is_broken_by_how_much_and_what_would_be_enough():
    found = within(code=0.1, law=0.2, score=0.0)
    broken_G = np.array([0.05, -0.1, 0.0123])
    assert found.conflict(broken_G, ["a <= 0.5", "b >= 0.1"]) == (
        "no mixture was found that satisfies constraints.guardrails (code 0.1, score 0 worse "
        "than uniform): the nearest is predicted to be worse by code 0.15, score 0.0123, within "
        "a <= 0.5; b >= 0.1; allow targets: {code: 0.15, score: 0.0123}, or widen the other "
        "limits"
    )


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("arms"), np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), 30)
    shares_N2 = rng.binomial(500, 0.3 + 0.3 * weights_ND[:, :2]) / 500
    tables = {"W": ("index,a,b,c", weights_ND)}
    tables["L"] = ("index,qa,code,items/qa,items/code", np.c_[shares_N2, np.full((30, 2), 500)])
    for name, (header, rows) in tables.items():
        text = {"delimiter": ",", "header": header, "comments": "", "fmt": "%.17g"}
        np.savetxt(path / f"{name}.csv", np.c_[np.arange(30), rows], **text)
    trials = Trials.from_csv(path / "W.csv", path / "L.csv")
    return trials.fit(regressors=["linear"], objective="code")


def test_a_proposal_keeps_a_floor_and_one_above_everything_predicted_is_refused(fit):
    held = fit.propose(constraints={"floors": {"qa": 0.4}})
    column = fit.targets.index("qa")
    assert fit.predict(fit.propose().mixture).losses_NM[0, column] < 0.35
    assert fit.predict(held.mixture).losses_NM[0, column] == pytest.approx(0.4, abs=1e-4)
    assert held.binding == ("qa >= 0.4 (constraints.floors)",)
    with pytest.raises(InfeasibleError, match=r"qa at least 0.9\): the nearest .* reach qa 0.6"):
        fit.propose(constraints={"floors": {"qa": 0.9}})


def test_no_metric_falls_below_the_reference_by_more_than_its_noise(fit):
    column, natural = fit.targets.index("qa"), np.full((1, 3), 1 / 3)
    binomial = np.sqrt(0.4 * 0.6 / 500)
    was = float(fit.predict(natural).losses_NM[0, column])
    for reference in ("natural", {"qa": was}):
        held = fit.propose(constraints={"guardrails": {"reference": reference, "margin": "noise"}})
        lost = was - fit.predict(held.mixture).losses_NM[0, column]
        assert 0.5 * binomial < lost < 1.2 * binomial
