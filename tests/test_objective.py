"""Objectives: values, subgradients, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixopt.config import ObjectiveConfig
from mixopt.errors import ConfigError
from mixopt.objective import Objective

NAMES = ("code", "prose", "law")
LOSSES_NM = np.array([[1.0, 2.0, 4.0], [3.0, 0.5, 2.0]])


def objective(**fields: object) -> Objective:
    return Objective.from_config(ObjectiveConfig(**fields), NAMES)


def test_a_target_is_its_own_loss():
    assert objective(target="prose").value(LOSSES_NM).tolist() == [2.0, 0.5]


def test_a_mean_is_weighted_and_its_weights_are_shares():
    assert objective(mean={"law": 30, "code": 10}).value(LOSSES_NM).tolist() == [3.25, 2.25]


def test_the_worst_is_the_largest_of_those_named():
    assert objective(worst=["prose", "law"]).value(LOSSES_NM).tolist() == [4.0, 2.0]


def test_losses_that_are_not_measured_do_not_count_even_if_they_are_missing():
    losses_NM = np.array([[np.nan, 2.0, np.nan]])
    assert objective(target="prose").value(losses_NM).tolist() == [2.0]


@pytest.mark.parametrize(
    "fields", [{"target": "law"}, {"mean": {"code": 1, "law": 3}}, {"worst": ["code", "law"]}]
)
@given(st.lists(st.floats(0.1, 9), min_size=6, max_size=6))
def test_the_gradient_is_a_subgradient(fields, numbers):
    one_M, other_M = np.array(numbers[:3]), np.array(numbers[3:])
    asked = objective(**fields)
    at, there = asked.value(np.stack([one_M, other_M]))
    assert there >= at + asked.gradient(one_M) @ (other_M - one_M) - 1e-9


@pytest.mark.parametrize(
    "fields", [{"target": "law"}, {"mean": {"law": 3, "code": 1}}, {"worst": ["law", "code"]}]
)
def test_an_objective_over_its_measured_losses_alone_has_the_same_value(fields):
    asked = objective(**fields)
    assert (
        asked.only_measured().value(LOSSES_NM[:, asked.columns]).tolist()
        == asked.value(LOSSES_NM).tolist()
    )


def test_an_objective_survives_json():
    asked = objective(mean={"code": 1, "law": 2}, unit="nats_per_token")
    assert Objective.from_json(asked.to_json()) == asked


def test_an_unknown_evaluation_domain_is_named_with_the_nearest():
    message = "objective.target: unknown evaluation domain 'pros'; did you mean 'prose'?"
    with pytest.raises(ConfigError) as error:
        objective(target="pros")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": "law"}, "law"),
        ({"mean": {"code": 1, "law": 1}}, "the mean of code and law"),
        ({"mean": {"code": 1, "law": 3}}, "the mean of 0.25 code and 0.75 law"),
        ({"worst": ["code", "prose", "law"]}, "the worst of code, prose and law"),
    ],
)
def test_an_objective_says_what_it_is(fields, words):
    assert objective(**fields).describe() == words
