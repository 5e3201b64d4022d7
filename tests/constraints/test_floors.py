"""Floors on predictions: whatever the reference, a metric may not be predicted below."""

import numpy as np
import pytest

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints, Guards
from mixopt.errors import InfeasibleError
from mixopt.objective import Objective
from mixopt.trials import Trials

NAMES = ("qa", "web")
OBJECTIVE = Objective(NAMES, "target", {"qa": 1.0}, higher=("qa",))


def guards(**fields):
    config = ConstraintsConfig.model_validate(fields)
    rails = Constraints.from_config(config, {"a": 1, "b": 1}).guardrails
    return Guards.on(OBJECTIVE, rails, np.array([0.5, 0.5]))


def excess(found, *losses):
    predicted = np.array([losses])
    return found.excess(predicted, found.compared(lambda w: np.array([[0.6, 2.0]])))[0]


def test_a_metric_may_not_be_below_and_a_loss_not_above():
    assert excess(guards(floors={"qa": 0.55, "web": 2.0}), 0.5, 2.25) == pytest.approx([0.05, 0.25])


def test_a_floor_stands_beside_a_guardrail_on_the_same_metric():
    found = guards(floors={"qa": 0.55}, guardrails={"targets": {"qa": 0.01}})
    assert excess(found, 0.57, 2.0) == pytest.approx([0.02, -0.02])


def test_a_refusal_names_the_floor_and_what_is_reached():
    (line,) = guards(floors={"qa": 0.55}).refusals(np.array([0.05]))
    assert line == "qa: predicted to be 0.5; constraints.floors asks for at least 0.55"


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("arms"), np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), 30)
    rows = "".join(f"{n},{','.join(map(str, w))}\n" for n, w in enumerate(weights_ND))
    (path / "W.csv").write_text("index,a,b,c\n" + rows)
    shares_N2 = 0.3 + 0.3 * weights_ND[:, :2]
    counts_N2 = rng.binomial(500, shares_N2) / 500
    rows = "".join(f"{n},{one[0]},{one[1]},500,500\n" for n, one in enumerate(counts_N2))
    (path / "L.csv").write_text("index,qa,code,items/qa,items/code\n" + rows)
    trials = Trials.from_csv(path / "W.csv", path / "L.csv")
    return trials.fit(regressors=["linear"], objective="code")


def test_a_proposal_keeps_a_floor(fit):
    free = fit.propose()
    held = fit.propose(constraints={"floors": {"qa": 0.4}})
    column = fit.targets.index("qa")
    assert fit.predict(free.mixture).losses_NM[0, column] < 0.35
    assert fit.predict(held.mixture).losses_NM[0, column] == pytest.approx(0.4, abs=1e-4)
    assert held.binding == ("qa >= 0.4 (constraints.floors)",)


def test_a_floor_above_everything_predicted_is_refused(fit):
    with pytest.raises(InfeasibleError, match=r"qa at least 0.9\): the nearest .* reach qa 0.6"):
        fit.propose(constraints={"floors": {"qa": 0.9}})


def test_no_metric_falls_below_the_reference_by_more_than_its_noise(fit):
    held = fit.propose(constraints={"guardrails": {"reference": "natural", "margin": "noise"}})
    column, natural = fit.targets.index("qa"), np.full((1, 3), 1 / 3)
    lost = fit.predict(natural).losses_NM - fit.predict(held.mixture).losses_NM
    binomial = np.sqrt(0.4 * 0.6 / 500)
    assert 0.5 * binomial < lost[0, column] < 1.2 * binomial
