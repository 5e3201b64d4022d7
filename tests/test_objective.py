"""Objectives: values, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mixopt.config import ObjectiveConfig
from mixopt.errors import ConfigError
from mixopt.objective import Objective

NAMES = ("code", "prose", "law")
LOSSES_NM = np.array([[1.0, 2.0, 4.0], [3.0, 0.5, 2.0]])
HIGHER = {"direction": {"law": "higher"}}
SPREADS = {"scale": "spread"}


def objective(names=NAMES, **fields):
    return Objective.from_config(ObjectiveConfig(**fields), names)


def test_a_mean_is_weighted_by_shares_and_losses_that_are_not_measured_may_be_missing():
    assert objective(mean={"law": 30, "code": 10}).value(LOSSES_NM).tolist() == [3.25, 2.25]
    losses_NM = np.array([[np.nan, 2.0, np.nan]])
    assert objective(target="prose").value(losses_NM).tolist() == [2.0]


def test_an_objective_over_its_measured_losses_alone_has_the_same_value():
    goal = objective(mean={"law": 3, "code": 1})
    alone = goal.over(goal.measured)
    assert alone.value(LOSSES_NM[:, goal.columns]).tolist() == goal.value(LOSSES_NM).tolist()


def test_metrics_are_negated_where_they_enter_and_turned_back_where_they_leave():
    values_NM = np.array([[1.0, 0.5, 4.0], [3.0, 0.75, 2.0]])
    goal = objective(target="prose", direction={"prose": "higher"})
    losses_NM = goal.turned(values_NM)
    assert losses_NM.tolist() == [[1.0, -0.5, 4.0], [3.0, -0.75, 2.0]]
    assert goal.turned(losses_NM).tolist() == values_NM.tolist()
    assert goal.value(losses_NM).tolist() == [-0.5, -0.75]
    assert goal.turned_value(goal.value(losses_NM)).tolist() == [0.5, 0.75]
    both = objective(mean={"code": 1, "prose": 1}, direction={"prose": "higher"})
    assert both.value(losses_NM).tolist() == [0.25, 1.125]
    assert both.turned_value(both.value(losses_NM)).tolist() == [0.25, 1.125]


def test_with_spreads_no_loss_counts_for_more_than_another():
    goal = objective(mean={"code": 1, "law": 1}, **SPREADS)
    goal = goal.scaled({"code": 0.5, "prose": 9.0, "law": 2.0})
    assert goal.value(LOSSES_NM).tolist() == [2.0, 3.5]
    assert goal.spreads == {"code": 0.5, "law": 2.0}
    assert goal.over(goal.measured).value(LOSSES_NM[:, [0, 2]]).tolist() == [2.0, 3.5]


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_a_scaled_mean_orders_mixtures_the_same_whatever_a_loss_is_measured_in(factor, offset):
    goal = objective(mean={"code": 1, "prose": 2}, **SPREADS)
    there_NM = LOSSES_NM * [factor, 1, 1] + [offset, 0, 0]
    values = [
        goal.scaled(dict(zip(NAMES, losses_NM.std(axis=0), strict=True))).value(losses_NM)
        for losses_NM in (LOSSES_NM, there_NM)
    ]
    assert np.ptp(values[0]) == pytest.approx(np.ptp(values[1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective(NAMES, "target", {"lw": 1.0}), "target: unknown evaluation domain 'lw'"),
        (lambda: Objective(NAMES, "mean", {"law": 1.0}, higher=("cod",)), "direction: unknown"),
        (lambda: Objective(NAMES, "mean", {}), "mean: needs at least one evaluation domain"),
        (
            lambda: objective(mean={"law": 1}, **SPREADS).value(LOSSES_NM),
            "scale: spread: the spreads of the trials are missing",
        ),
        (
            lambda: objective(mean={"law": 1}, **SPREADS).scaled({"law": 0.0}),
            ".*the spread of 'law' is 0.0; it must be above 0",
        ),
        (
            lambda: objective(worst=["code", "law"], **HIGHER),
            ".*higher is better for law and lower for the others, so",
        ),
        (
            lambda: objective(families={"a": {"mean": {"law": 1}}, "b": {"mean": {"la*": 1}}}),
            "families.b: other families name every loss that it",
        ),
        (
            lambda: objective(hinge="law").against({"code": 2.0, "law": 3.0}, {"law": 1.0}),
            "hinge: the noise of 'code' is unknown: ",
        ),
    ],
)
def test_an_objective_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=f"^objective.{message}"):
        make()


MANY = tuple(f"mmlu_{n}" for n in range(57))


@pytest.mark.parametrize(
    ("fields", "words", "unit"),
    [
        ({"mean": {"code": 1, "law": 3}}, "the mean of 0.25 code and 0.75 law", "bits_per_byte"),
        ({"worst": ["code", "prose", "law"]}, "the worst of code, prose and law", "bits_per_byte"),
        ({"target": "law", **HIGHER}, "law (higher is better)", "metric_units"),
        (
            {"mean": {"code": 1, "prose": 1}, **SPREADS},
            "the mean of code and prose, each divided by its spread over the trials",
            "standard_deviations",
        ),
        (
            {"mean": {"law": 1}, **SPREADS, **HIGHER},
            "the mean of law (higher is better), each divided by its spread over the trials",
            "metric_deviations",
        ),
        (
            {"target": "law", "items": {"law": 40}, **HIGHER},
            "law (higher is better)",
            "right_answers",
        ),
        (
            {"mean": {"law": 1, "code": 1}, **HIGHER},
            "the mean of minus law and code (higher law is better)",
            "mixed_units",
        ),
        (
            {"names": MANY, "mean": {"*": 1}},
            "the mean of 57 losses: mmlu_0, mmlu_1, mmlu_2, mmlu_3 and 53 more",
            "bits_per_byte",
        ),
    ],
)
def test_an_objective_says_what_it_is_with_directions_and_scale(fields, words, unit):
    goal = objective(**fields)
    assert (goal.describe(), goal.value_unit) == (words, unit)


def test_of_many_losses_where_higher_is_better_few_words_are_said():
    assert len(objective(MANY, worst=["*"], direction={"*": "higher"}).describe()) < 150


TASKS = ("mmlu_law:rc", "mmlu_maths:rc", "mmlu_art:rc", "code_c", "code_java", "lambada")


def test_weights_of_globs_add_up_and_an_exact_name_has_its_own():
    goal = objective(TASKS, mean={"*": 1, "mmlu_*": 1, "lambada": 3})
    shares = {"mmlu_law:rc": 2, "mmlu_maths:rc": 2, "mmlu_art:rc": 2, "code_c": 1, "code_java": 1}
    expected = {name: weight / 11 for name, weight in {**shares, "lambada": 3}.items()}
    assert goal.weights == pytest.approx(expected)


def test_a_family_counts_the_same_however_many_losses_it_has():
    families = {
        "knowledge": {"weight": 2, "mean": {"mmlu_*": 1}},
        "code": {"mean": {"code_c": 1, "code_*": 3}},
    }
    goal = objective(TASKS, families=families)
    expected = {**dict.fromkeys(TASKS[:3], 2 / 9), "code_c": 1 / 12, "code_java": 3 / 12}
    assert goal.weights == pytest.approx(expected)
    assert goal.value(np.arange(6.0)[None]).tolist() == pytest.approx([2 / 3 * 1.0 + 1 / 3 * 3.75])
    assert goal.describe() == (
        "the mean of 2 families: 0.667 knowledge (3 losses) and 0.333 code (2 losses)"
    )


def test_what_is_left_out_gives_its_weight_to_its_family():
    families = {
        "knowledge": {"weight": 2, "mean": {"mmlu_*": 1}},
        "code": {"mean": {"code_*": 1}},
        "rest": {"mean": {"lambada": 1}},
    }
    goal = objective(TASKS, families=families, **SPREADS).without(["mmlu_art:rc", "lambada"])
    expected = {"mmlu_law:rc": 1 / 3, "mmlu_maths:rc": 1 / 3, "code_c": 1 / 6, "code_java": 1 / 6}
    assert goal.weights == pytest.approx(expected)
    assert goal.left_out == ("mmlu_art:rc", "lambada")
    assert goal.describe().endswith(", without mmlu_art:rc and lambada (noise)")


def test_a_hinge_is_its_target_until_another_is_worse_by_more_than_its_noise():
    goal = objective(hinge="law", direction={"prose": "higher"})
    means = {"code": 2.0, "prose": -1.0, "law": 3.0}
    hinge = goal.against(means, {"code": 0.5, "prose": 0.25, "law": 1.0})
    values_NM = [[2.4, 0.8, 2.0], [3.0, 1.0, 2.0], [2.0, 0.25, 2.0], [2.0, 1.0, 5.0]]
    losses_NM = goal.turned(values_NM)
    assert hinge.value(losses_NM).tolist() == [-1.0, 0.0, 1.0, 2.0]
    for one_M in losses_NM:
        there_N = hinge.value(losses_NM)
        slope_M = hinge.pieces()[hinge.sums(one_M[None]).argmax()]
        least_N = hinge.value(one_M[None]) + (losses_NM - one_M) @ slope_M
        assert (there_N >= least_N - 1e-12).all()
    assert hinge.value_unit == "noise"
    assert hinge.describe().startswith("law against the average trial, plus the largest excess of")


@pytest.mark.parametrize(
    ("names", "unit"),
    [
        (("task/a/bits_per_byte", "task/b/bits_per_byte"), "bits_per_byte"),
        (("task/a/bits_per_byte", "web"), "nats_per_token"),
    ],
)
def test_the_unit_of_tasks_is_theirs_whatever_losses_are_in(names, unit):
    weights = dict.fromkeys(names, 1 / len(names))
    assert Objective(names, "mean", weights, "nats_per_token").value_unit == unit
