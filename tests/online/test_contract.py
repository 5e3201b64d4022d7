"""The contract of estimators: what a setting and a plan must be, and what is left unsaid."""

from __future__ import annotations

import numpy as np
import pytest
from driver_parts import NAMES, START, sampler

from mixopt import MixtureSampler
from mixopt.errors import ConfigError, EstimatorError
from mixopt.online import DriverOptions, Plan, Setting, make_estimator

HALVES = np.array([0.5, 0.5])


def setting(**fields):
    usual = {
        "domains": ("a", "b"),
        "steps": 1,
        "tokens_per_step": 1,
        "reference_D": HALVES,
        "natural_D": HALVES,
        "evaluations": ("x", "y", "z"),
        "objective_M": np.array([0.5, 0.25, 0.25]),
        "lower_D": np.zeros(2),
        "upper_D": np.ones(2),
    }
    return Setting(**usual | fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"domains": ()}, r"domains \[\]: give each a name of its own"),
        ({"domains": ("a", "a")}, r"domains \['a', 'a'\]: give each a name of its own"),
        ({"steps": 0}, r"steps: 0; at least 1"),
        ({"tokens_per_step": 0}, r"tokens_per_step: 0; at least 1"),
        ({"reference_D": np.ones(1)}, r"reference_D: shape \(1,\); it takes \(2,\)"),
        ({"objective_M": HALVES}, r"objective_M: shape \(2,\); it takes \(3,\)"),
        ({"lower_D": np.zeros(3)}, r"lower_D: shape \(3,\); it takes \(2,\)"),
        ({"lower_D": np.array([0, np.nan])}, r"lower_D: \[0.0, nan\] has no number"),
        ({"upper_D": np.array([np.nan, 1])}, r"upper_D: \[nan, 1.0\] has no number"),
    ],
)
def test_what_a_setting_cannot_have_is_named(fields, said):
    with pytest.raises(EstimatorError, match=said):
        setting(**fields)


@pytest.mark.parametrize("shares", [[1.5, -0.5], [0.5, np.nan], [0.5, 0.500002], [0.5, 0.499998]])
def test_shares_that_are_no_mixture_are_refused(shares):
    with pytest.raises(EstimatorError, match=r"reference_D: .* is not a mixture"):
        setting(reference_D=np.array(shares))
    with pytest.raises(EstimatorError, match=r"plan 'tag': weights_D: .* is not a mixture"):
        Plan(np.array(shares), 1, "tag")


@pytest.mark.parametrize(
    ("lower", "upper", "sums"),
    [
        ([0.5, 0.7], [1.0, 1.0], r"the leasts add up to 1.2, the mosts to 2"),
        ([0.0, 0.0], [0.5, 0.3], r"the leasts add up to 0, the mosts to 0.8"),
    ],
)
def test_bounds_that_hold_no_mixture_are_refused(lower, upper, sums):
    with pytest.raises(EstimatorError, match=rf"no mixture is within the bounds: .*{sums}"):
        setting(lower_D=np.array(lower), upper_D=np.array(upper))


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        ([0.0, 0.6], [1.0, 1.0], r"domain 'b': the reference mixture has 0.5, .* 0.6 to 1"),
        ([0.0, 0.0], [1.0, 0.4], r"domain 'b': the reference mixture has 0.5, .* 0 to 0.4"),
    ],
)
def test_a_reference_outside_the_bounds_is_named(lower, upper, said):
    with pytest.raises(EstimatorError, match=said):
        setting(lower_D=np.array(lower), upper_D=np.array(upper))


@pytest.mark.parametrize(("steps", "held_out"), [(0, False), (-1, False), (-1, True)])
def test_a_plan_without_steps_is_refused(steps, held_out):
    with pytest.raises(EstimatorError, match=rf"plan 'tag': {steps} steps; at least 1"):
        Plan(HALVES, steps, "tag", held_out)


def test_an_estimator_is_made_by_name_with_its_options():
    assert make_estimator("natural").needs == frozenset()
    assert make_estimator("ado").needs == {"training_loss"}
    with pytest.raises(ConfigError, match="warmup"):
        make_estimator("ado", {"warmup_step": 6})


# What a loop says of its run -------------------------------------------------------------------

LENGTHS = {"a": 10.0, "b": 20.0, "c": 40.0}


def options(**fields):
    return DriverOptions(**{"steps": 40, "tokens_per_sample": 16} | fields)


def setting_of(order=None, **fields):
    return options(**fields).setting(sampler() if order is None else order)


@pytest.mark.parametrize("field", ["steps", "accumulation", "observe_every"])
def test_counts_are_whole_numbers_from_1_on(field):
    assert getattr(options(**{field: 1}), field) == 1
    for value in (0, 1.5, True, "2"):
        with pytest.raises(EstimatorError, match=rf"{field}: .* is not a whole number >= 1"):
            options(**{field: value})


def test_a_setting_follows_from_the_sampler():
    one = setting_of(seed=7)
    assert (one.domains, one.steps, one.tokens_per_step, one.seed) == (NAMES, 40, 8 * 16, 7)
    assert one.reference_D.tolist() == START
    assert one.evaluations == NAMES
    assert one.objective_M.tolist() == [1 / 3] * 3
    assert (one.lower_D.tolist(), one.upper_D.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_shares_of_the_corpus_and_tokens_of_a_step_follow_from_the_lengths():
    order = MixtureSampler({"a": 100, "b": 300, "c": 50}, START, batch_size=8)
    one = setting_of(order, tokens_per_sample=LENGTHS, accumulation=2)
    assert one.natural_D.tolist() == [1 / 9, 6 / 9, 2 / 9]
    assert one.tokens_per_step == round(16 / (0.5 / 10 + 0.3 / 20 + 0.2 / 40))


def test_what_is_said_of_a_run_is_told():
    one = setting_of(
        evaluations=["x", "y"],
        objective={"y": 0.5},
        natural={"a": 1.0, "c": 3.0},
        bounds={"b": (0.1, 0.9)},
    )
    assert one.evaluations == ("x", "y")
    assert one.objective_M.tolist() == [0, 1]
    assert one.natural_D.tolist() == [0.25, 0, 0.75]
    assert (one.lower_D.tolist(), one.upper_D.tolist()) == ([0, 0.1, 0], [1, 0.9, 1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"natural": {"d": 1.0}}, r"natural: 'd' is not a domain of the sampler"),
        (
            {"natural": {"a": 0.0}},
            r"natural: \{'a': 0.0\}; weights must be >= 0, and at least one > 0",
        ),
        ({"natural": {"a": np.inf}}, r"natural: .*; weights must be >= 0"),
        ({"objective": {"d": 1.0}}, r"objective: 'd' is not an evaluation domain"),
        ({"bounds": {"d": (0, 1)}}, r"bounds: 'd' is not a domain of the sampler"),
        ({"tokens_per_sample": {"a": 1.0, "b": 1.0}}, r"tokens_per_sample: domain 'c' is left"),
        ({"tokens_per_sample": LENGTHS | {"b": 0}}, r"tokens_per_sample: .*; they are > 0"),
        ({"tokens_per_sample": np.nan}, r"tokens_per_sample: nan; they are > 0"),
    ],
)
def test_what_cannot_be_right_is_named(fields, said):
    with pytest.raises(EstimatorError, match=said):
        setting_of(**fields)
