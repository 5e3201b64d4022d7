"""What the user says of a run, and what its estimator is told of it."""

from __future__ import annotations

import numpy as np
import pytest
from driver_parts import NAMES, START, sampler

from mixopt import MixtureSampler
from mixopt.errors import EstimatorError
from mixopt.online import DriverOptions

LENGTHS = {"a": 10.0, "b": 20.0, "c": 40.0}


def options(**fields):
    return DriverOptions(**{"steps": 40, "tokens_per_sample": 16} | fields)


def setting(order=None, **fields):
    return options(**fields).setting(sampler() if order is None else order)


@pytest.mark.parametrize(
    ("field", "least"), [("steps", 1), ("accumulation", 1), ("observe_every", 1), ("lead", 0)]
)
def test_counts_are_whole_numbers_from_the_least_on(field, least):
    assert getattr(options(**{field: least}), field) == least
    for value in (least - 1, least + 0.5, True, "2"):
        with pytest.raises(EstimatorError, match=rf"{field}: .* is not a whole number >= {least}"):
            options(**{field: value})


def test_a_setting_follows_from_the_sampler():
    one = setting(seed=7)
    assert (one.domains, one.steps, one.tokens_per_step, one.seed) == (NAMES, 40, 8 * 16, 7)
    assert one.reference_D.tolist() == START
    assert one.evaluations == NAMES
    assert one.objective_M.tolist() == [1 / 3] * 3
    assert (one.lower_D.tolist(), one.upper_D.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_shares_of_the_corpus_and_tokens_of_a_step_follow_from_the_lengths():
    order = MixtureSampler({"a": 100, "b": 300, "c": 50}, START, batch_size=8)
    one = setting(order, tokens_per_sample=LENGTHS, accumulation=2)
    assert one.natural_D.tolist() == [1 / 9, 6 / 9, 2 / 9]
    assert one.tokens_per_step == round(16 / (0.5 / 10 + 0.3 / 20 + 0.2 / 40))


def test_what_is_said_of_a_run_is_told():
    one = setting(
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
        ({"natural": {"a": 2.0, "b": -1.0}}, r"natural: .*; weights must be >= 0"),
        ({"natural": {"a": np.inf}}, r"natural: .*; weights must be >= 0"),
        ({"objective": {"d": 1.0}}, r"objective: 'd' is not an evaluation domain"),
        ({"objective": {"a": 0.0}}, r"objective: .*; weights must be >= 0"),
        ({"bounds": {"d": (0, 1)}}, r"bounds: 'd' is not a domain of the sampler"),
        ({"tokens_per_sample": {"a": 1.0, "b": 1.0}}, r"tokens_per_sample: domain 'c' is left"),
        ({"tokens_per_sample": LENGTHS | {"d": 1.0}}, r"tokens_per_sample: 'd' is not a domain of"),
        ({"tokens_per_sample": LENGTHS | {"b": 0}}, r"tokens_per_sample: .*; they are > 0"),
        ({"tokens_per_sample": np.nan}, r"tokens_per_sample: nan; they are > 0"),
    ],
)
def test_what_cannot_be_right_is_named(fields, said):
    with pytest.raises(EstimatorError, match=said):
        setting(**fields)
