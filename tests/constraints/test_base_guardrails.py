"""Guardrails on what a checkpoint lost: measured losses in place of a mixture's prediction."""

import numpy as np
import pytest

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints, Guards
from mixopt.errors import ConfigError
from mixopt.objective import Objective

NAMES = ("web", "law")
INVENTORY = {"web": 100, "law": 50}
HALF = np.array([0.5, 0.5])
BASE = {"web": 2.0, "law": 1.0}
OBJECTIVE = Objective(NAMES, "mean", {"web": 0.5, "law": 0.5})


def rails(base=BASE, **more):
    fields = {"guardrails": {"reference": "base", "margin": 0.1} | more}
    config = ConstraintsConfig.model_validate(fields)
    return Constraints.from_config(config, INVENTORY, base=base).guardrails


def guards(**more):
    return Guards.on(OBJECTIVE, rails(**more), HALF)


def predicted(weights_ND):
    raise AssertionError("the base is measured, not predicted")


def test_measured_losses_are_compared_with():
    found = guards()
    excess_NG = found.excess(np.array([[2.05, 1.3]]), found.compared(predicted))
    assert excess_NG[0] == pytest.approx([-0.05, 0.2])


def test_a_mixture_is_predicted_where_the_reference_is_one():
    config = ConstraintsConfig.model_validate({"guardrails": "natural"})
    other = Constraints.from_config(config, INVENTORY).guardrails
    found = Guards.on(OBJECTIVE, other, HALF)
    assert found.compared(lambda w: w * 4).tolist() == [2.0, 2.0]


def test_a_refusal_names_the_base():
    (line,) = guards().refusals(np.array([-0.05, 0.2]))
    assert line.startswith("law: predicted to be 0.3 worse than with base")


def test_one_word_is_the_base_with_the_usual_margin():
    config = ConstraintsConfig.model_validate({"guardrails": "base"})
    assert Constraints.from_config(config, INVENTORY, base=BASE).guardrails.margin == 0.02


def test_losses_that_were_not_measured_are_refused_where_they_are_guarded():
    with pytest.raises(ConfigError, match="the loss of the checkpoint on 'law' is not known"):
        guards(base={"web": 2.0})


def test_losses_that_are_not_guarded_need_not_be_known():
    found = guards(base={"web": 2.0}, margin=None, targets={"web": 0.1})
    assert found.names == ("web",)
