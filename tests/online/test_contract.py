"""The contract of estimators: what a setting and a plan must be, and what is left unsaid."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.errors import ConfigError, EstimatorError
from mixopt.online import Plan, Setting, make_estimator

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
        ([0.0, 0.0], [0.4, 1.0], r"domain 'a': the reference mixture has 0.5, .* 0 to 0.4"),
        ([0.5 + 1e-8, 0.0], [1.0, 1.0], r"domain 'a': the reference mixture has 0.5"),
        ([0.0, 0.0], [1.0, 0.5 - 1e-8], r"domain 'b': the reference mixture has 0.5"),
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
