"""Guardrails: how much worse than a reference, and which way worse is."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.config import ConstraintsConfig
from mixopt.config.mixture_sections import GuardrailsConfig
from mixopt.constraints import Guards
from mixopt.constraints.guardrails import Guardrails
from mixopt.errors import ConfigError
from mixopt.objective import Objective

EVALUATION = ("code", "law", "score")
OBJECTIVE = Objective(EVALUATION, "target", {"code": 1.0}, higher=("score",))


def guards(margin=None, **targets) -> Guards:
    return Guards.on(OBJECTIVE, Guardrails("uniform", margin, targets), np.full(2, 0.5))


def test_a_targets_own_margin_wins_over_the_margin_of_all():
    rails = Guardrails("natural", 0.1, {"law": 0.0})
    assert rails.margins(EVALUATION) == {"code": 0.1, "law": 0.0, "score": 0.1}
    assert Guardrails("natural", None, {"law": 0.0}).margins(EVALUATION) == {"law": 0.0}


def test_a_target_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"guardrails.targets: unknown evaluation domain 'lwa'; d"
    ):
        Guardrails("natural", None, {"lwa": 0.0}).margins(EVALUATION)


def test_worse_is_above_the_reference_for_a_loss_and_below_it_for_a_score():
    one = guards(score=0.1, law=0.2)
    assert one.names == ("law", "score")
    assert one.columns == (1, 2)
    losses_NM = np.array([[9.0, 1.5, 0.5], [0.0, 1.0, 1.0]])
    excess_NG = one.excess(losses_NM, np.array([1.0, 0.7]))
    np.testing.assert_allclose(excess_NG, [[0.3, 0.1], [-0.2, -0.4]])


def test_a_guardrail_holds_where_what_is_left_of_its_margin_is_next_to_nothing():
    one = guards(law=0.2, score=0.0, code=0.5)
    assert one.binding(np.array([4e-5, -1.9e-5, 9e-6])) == [
        "loss of code <= that of uniform + 0.5 (constraints.guardrails)",
        "loss of law <= that of uniform + 0.2 (constraints.guardrails)",
        "score >= that of uniform (constraints.guardrails)",
    ]
    assert one.binding(np.array([-6e-5, -2.1e-5, 1.1e-5])) == []
    assert guards(score=0.3).binding(np.zeros(1)) == [
        "score >= that of uniform - 0.3 (constraints.guardrails)"
    ]


def test_a_conflict_names_what_is_broken_by_how_much_and_what_would_be_enough():
    one = guards(code=0.1, law=0.2, score=0.0)
    assert one.conflict(np.array([0.05, -0.1, 0.0123]), ["a <= 0.5", "b >= 0.1"]) == (
        "no mixture was found that satisfies constraints.guardrails (code 0.1, score 0 worse "
        "than uniform): the nearest is predicted to be worse by code 0.15, score 0.0123, within "
        "a <= 0.5; b >= 0.1; allow targets: {code: 0.15, score: 0.0123}, or widen the other "
        "limits"
    )
    assert "worse by code 0.15; allow" in one.conflict(np.array([0.05, 0.0, 9e-8]), [])


@pytest.mark.parametrize("reference", ["natural", "uniform", "best_trial"])
def test_one_word_is_a_reference_with_a_margin_for_every_evaluation_domain(reference):
    given = ConstraintsConfig.model_validate({"guardrails": reference}).guardrails
    assert given == GuardrailsConfig(reference=reference, margin=0.02)


def test_another_word_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown reference 'natral'; did you mean 'natural'?"):
        ConstraintsConfig.model_validate({"guardrails": "natral"})


def test_targets_of_guardrails_are_globs_and_an_exact_name_wins():
    rails = Guardrails("natural", None, {"mmlu_*": 0.1, "mmlu_law": 0.0})
    assert rails.margins(("mmlu_law", "mmlu_art", "code")) == {"mmlu_law": 0.0, "mmlu_art": 0.1}
    with pytest.raises(ConfigError, match=r"constraints.guardrails.targets: 'mlmu_\*' matches no"):
        Guardrails("natural", None, {"mlmu_*": 0.1}).margins(("mmlu_law", "code"))


def test_a_conflict_names_each_margin_that_is_enough_alone():
    one = guards(code=0.1, law=0.2, score=0.0)
    said = one.conflict(np.array([0.05, -0.1, 0.0123]), [], {0: 0.1, 2: 0.03})
    assert "; allow targets: {code: 0.2}, or targets: {score: 0.03}, or widen" in said
