"""The contract of estimators: what a setting and a plan must be, and what is left unsaid."""

from dataclasses import replace

import numpy as np
import pytest
from driver_parts import NAMES, START, sampler
from online_setting import run_of
from refusals import refuses

from mixopt import MixtureSampler
from mixopt.errors import EstimatorError, SamplerError
from mixopt.online import DriverOptions, Plan

HALVES = np.array([0.5, 0.5])
RUN = run_of(2, evaluations=("x", "y", "z"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lower_D": np.array([0, np.nan])}, r"no mixture is within the bounds: .* up to nan"),
        ({"lower_D": np.array([0.5, 0.7])}, r"no mixture is within the bounds: .* add up to 1.2"),
        ({"upper_D": np.array([0.5, 0.3])}, r"no mixture is within the bounds: .*maximums to 0.8"),
        ({"reference_D": np.array([0.5, 0.500002])}, r"reference_D: .* is not a mixture"),
        ({"upper_D": np.array([1.0, 0.4])}, r"'code': the reference mixture has 0.5, .* 0 to 0.4"),
    ],
)
def test_what_a_setting_cannot_have_is_named(fields, said):
    refuses(EstimatorError, said, replace, RUN, **fields)


def test_a_plan_without_steps_or_a_mixture_is_refused():
    refuses(EstimatorError, r"plan 'tag': 0 steps; at least 1", Plan, HALVES, 0, "tag")
    with pytest.raises(EstimatorError, match=r"plan 'tag': weights_D: .* is not a mixture"):
        Plan(np.array([0.5, np.nan]), 1, "tag")


LENGTHS = {"a": 10.0, "b": 20.0, "c": 40.0}


def setting_of(order=None, **fields):
    options = DriverOptions(**{"steps": 40, "tokens_per_sample": 16} | fields)
    return options.setting(sampler() if order is None else order)


def test_a_setting_follows_from_the_sampler_and_its_bounds_may_leave_one_mixture():
    run = setting_of(seed=7)
    assert (run.domains, run.steps, run.tokens_per_step, run.seed) == (NAMES, 40, 8 * 16, 7)
    assert run.reference_D.tolist() == START
    assert run.evaluations == NAMES
    assert run.objective_M.tolist() == [1 / 3] * 3
    assert (run.lower_D.tolist(), run.upper_D.tolist()) == ([0, 0, 0], [1, 1, 1])
    assert replace(RUN, lower_D=HALVES, upper_D=HALVES).upper_D.tolist() == [0.5, 0.5]


def test_shares_of_the_corpus_and_tokens_of_a_step_follow_from_the_lengths():
    order = MixtureSampler({"a": 100, "b": 300, "c": 50}, START, batch_size=8)
    run = setting_of(order, tokens_per_sample=LENGTHS, accumulation=2)
    assert run.natural_D.tolist() == [1 / 9, 6 / 9, 2 / 9]
    assert run.tokens_per_step == round(16 / (0.5 / 10 + 0.3 / 20 + 0.2 / 40))


def test_a_setting_has_the_options_of_the_run():
    run = setting_of(
        evaluations=["x", "y"],
        objective={"y": 0.5},
        natural={"a": 1.0, "c": 3.0},
        bounds={"b": (0.1, 0.9)},
    )
    assert run.evaluations == ("x", "y")
    assert run.objective_M.tolist() == [0, 1]
    assert run.natural_D.tolist() == [0.25, 0, 0.75]
    assert (run.lower_D.tolist(), run.upper_D.tolist()) == ([0, 0.1, 0], [1, 0.9, 1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"natural": {"d": 1.0}}, r"natural: 'd' is not a domain of the sampler"),
        ({"natural": {"a": 0.0}}, r"natural: \{'a': 0.0\}; weights must be >= 0, and at least one"),
        ({"objective": {"d": 1.0}}, r"objective: 'd' is not an evaluation domain"),
        ({"bounds": {"d": (0, 1)}}, r"bounds: 'd' is not a domain of the sampler"),
        ({"tokens_per_sample": {"a": 1.0, "b": 1.0}}, "tokens_per_sample: domain 'c': is left out"),
        (
            {"tokens_per_sample": LENGTHS | {"b": 0}},
            "tokens_per_sample: domain 'b': 0 is not above 0",
        ),
    ],
)
def test_what_cannot_be_right_is_named(fields, said):
    refuses(EstimatorError, said, setting_of, **fields)


def test_steps_are_whole_numbers_that_a_state_can_hold():
    options = DriverOptions(steps=np.int64(4), tokens_per_sample=8)
    assert type(options.steps) is int
    message = r"accumulation: 1.5 is not a whole number from 1"
    refuses(SamplerError, message, setting_of, accumulation=1.5)
