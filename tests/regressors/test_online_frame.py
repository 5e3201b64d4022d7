"""What our estimators share: plans, checked observations, bounds, and state by name."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mixopt_regressors.online import (
    AioliEstimator,
    NaturalEstimator,
    ODMEstimator,
    SkillItEstimator,
    StratifiedEstimator,
)
from mixopt_regressors.online.online_estimator import pack, unpack

from mixopt.errors import ConfigError, EstimatorError
from mixopt.online import HeldOut, Observation, Setting, make_estimator

THIRDS = np.full(3, 1 / 3)
HUNDREDS = np.full(3, 100.0)
NONE = np.zeros(3)


def three_domains(**changes):
    setting = Setting(
        domains=("web", "code", "books"),
        steps=100,
        tokens_per_step=300,
        reference_D=THIRDS,
        natural_D=np.array([0.7, 0.2, 0.1]),
        evaluations=("web", "code", "books"),
        objective_M=THIRDS,
        lower_D=NONE,
        upper_D=np.ones(3),
    )
    return replace(setting, **changes)


def started(estimator, **changes):
    estimator.start(three_domains(**changes))
    return estimator


def told(step, losses=None, **changes):
    held_out = None if losses is None else HeldOut(np.array(losses))
    observation = Observation(step, HUNDREDS, 3.0 * HUNDREDS, HUNDREDS, held_out=held_out)
    return replace(observation, **changes)


def through_json(estimator):
    return json.loads(json.dumps(estimator.state_dict(), allow_nan=False))


# Plans ------------------------------------------------------------------------------------------


def test_stratified_has_the_same_of_each_and_natural_the_shares_of_the_corpus():
    assert started(StratifiedEstimator()).plan().weights_D.tolist() == THIRDS.tolist()
    natural = started(NaturalEstimator()).plan()
    assert natural.weights_D.tolist() == [0.7, 0.2, 0.1]
    assert (natural.steps, natural.held_out) == (100, False)


def test_after_the_last_step_the_mixture_holds_a_step_at_a_time():
    estimator = started(NaturalEstimator())
    for step in (100, 101, 150):
        estimator.observe(told(step))
        plan = estimator.plan()
        assert (plan.steps, plan.held_out) == (1, False)
        assert plan.weights_D.tolist() == [0.7, 0.2, 0.1]


def test_the_bounds_move_a_mixture_to_the_nearest_that_they_allow():
    estimator = started(NaturalEstimator(), upper_D=np.array([0.5, 1.0, 1.0]))
    np.testing.assert_allclose(estimator.plan().weights_D, [0.5, 0.3, 0.2])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), min_size=3, max_size=3).filter(lambda w: sum(w) > 1e-3))
def test_bounded_weights_are_a_mixture_within_the_bounds(weights):
    lower_D, upper_D = np.array([0.1, 0.0, 0.2]), np.array([0.6, 0.5, 0.4])
    estimator = started(StratifiedEstimator(), lower_D=lower_D, upper_D=upper_D)
    bounded_D = estimator.bounded(np.array(weights))
    assert abs(bounded_D.sum() - 1) < 1e-9
    assert (bounded_D >= lower_D).all()
    assert (bounded_D <= upper_D).all()


def test_held_out_losses_may_come_after_the_last_step_of_a_plan():
    estimator = started(SkillItEstimator(update_steps=10))
    estimator.observe(told(10))
    waiting = estimator.plan()
    assert (waiting.steps, waiting.held_out) == (0, True)
    estimator.observe(told(10, [3.0, 2.0, 1.0], tokens_D=NONE, loss_count_D=NONE))
    assert estimator.plan().steps == 10
    assert estimator.plan().weights_D[0] > estimator.plan().weights_D[2]


# Observations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (told(3), "skill_it: step 3: it comes after step 5"),
        (told(9, [3.0, 2.0]), r"step 9: held-out losses: shape \(2,\); one value each of web, c"),
        (told(9, [3.0, math.nan, 1.0]), "step 9: held-out losses: nan for 'code'"),
        (told(9, tokens_D=HUNDREDS[:2]), r"step 9: tokens: shape \(2,\); one value each of web"),
        (told(9, tokens_D=-HUNDREDS), "step 9: tokens: -100.0 for 'web'"),
        (told(9, loss_count_D=-HUNDREDS), "step 9: loss counts: -100.0 for 'web'"),
        (told(9, loss_sum_D=np.array([1.0, math.nan, 1.0])), "loss sums: nan for 'code'"),
    ],
)
def test_an_observation_that_cannot_be_right_is_one_clear_line_and_changes_nothing(wrong, message):
    estimator = started(SkillItEstimator(update_steps=10))
    estimator.observe(told(5))
    before = estimator.state_dict()
    with pytest.raises(EstimatorError, match=message) as caught:
        estimator.observe(wrong)
    assert "\n" not in str(caught.value)
    assert estimator.state_dict() == before


def test_nothing_is_added_of_a_domain_that_was_not_counted():
    estimator = started(ODMEstimator(warmup_steps=0, update_steps=2))
    unknown_D = np.array([300.0, math.nan, 300.0])
    estimator.observe(told(1, loss_sum_D=unknown_D, loss_count_D=np.array([100.0, 0.0, 100.0])))
    estimator.observe(told(2))
    assert np.isfinite(estimator.rewards_D).all()


# State ------------------------------------------------------------------------------------------


def test_the_state_of_another_estimator_or_of_other_options_is_refused():
    state = through_json(started(AioliEstimator(eta=0.5)))
    with pytest.raises(EstimatorError, match="skill_it: the state is that of 'aioli'"):
        started(SkillItEstimator()).load_state_dict(state)
    with pytest.raises(EstimatorError, match=r"aioli: the state was made with eta: 0.5, not 0.2"):
        started(AioliEstimator()).load_state_dict(state)


@pytest.mark.parametrize("part", ["estimator", "options", "domains", "run", "seen", "own"])
def test_a_state_that_is_not_whole_is_refused(part):
    state = through_json(started(AioliEstimator()))
    del state[part]
    with pytest.raises(EstimatorError, match="aioli: this is not the state of an estimator"):
        started(AioliEstimator()).load_state_dict(state)


def test_a_state_of_other_domains_is_refused():
    state = through_json(started(AioliEstimator()))
    for names in ("domains", "evaluations"):
        other = started(AioliEstimator(), **{names: ("web", "books", "code")})
        with pytest.raises(EstimatorError, match=rf"{names}: .* not those of this run, web, books"):
            other.load_state_dict(state)


def test_a_state_with_a_value_missing_or_of_another_shape_is_refused():
    state = through_json(started(AioliEstimator()))
    uneven = {**state, "own": state["own"] | {"drops_KM": [[0.1, 0.1, 0.1]]}}
    with pytest.raises(EstimatorError, match=r"'drops_KM' has 1 along K, others have 0"):
        started(AioliEstimator()).load_state_dict(uneven)
    unlike = {**state, "run": state["run"] | {"weights_D": [0.5, 0.5, 0.5]}}
    with pytest.raises(EstimatorError, match="aioli: state: run: 'weights_D' is not a mixture"):
        started(AioliEstimator()).load_state_dict(unlike)
    state["own"]["log_weights_D"] = [0.0, 0.0]
    with pytest.raises(EstimatorError, match=r"'log_weights_D' has shape \(2,\)"):
        started(AioliEstimator()).load_state_dict(state)
    state["own"]["log_weights_D"] = "zero"
    with pytest.raises(EstimatorError, match="'log_weights_D' is not an array of numbers"):
        started(AioliEstimator()).load_state_dict(state)
    del state["own"]["log_weights_D"]
    with pytest.raises(EstimatorError, match="state: log_weights_D"):
        started(AioliEstimator()).load_state_dict(state)


def test_nan_is_null_in_a_state_and_nan_again_after():
    packed = pack({"losses_DM": np.array([[1.0, math.nan]]), "round": 3})
    assert packed == {"losses_DM": [[1.0, None]], "round": 3}
    back = unpack(packed, {"losses_DM": np.zeros((1, 2)), "round": 0})
    assert np.array_equal(back["losses_DM"], [[1.0, math.nan]], equal_nan=True)


# The contract -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("aioli", {"etaa": 1}, ConfigError, "unknown option 'etaa'; did you mean 'eta'"),
        ("aioli", {"eta": -1}, EstimatorError, "aioli: eta: -1; it takes a number >= 0"),
        ("aioli", {"eta": True}, EstimatorError, "aioli: eta: True; it takes a number >= 0"),
        ("aioli", {"ema": 1.5}, EstimatorError, "ema: 1.5; it takes a number from 0 to 1"),
        ("aioli", {"sweeps": 0}, EstimatorError, "sweeps: 0; it takes a whole number >= 1"),
        ("aioli", {"diagonal": 1}, EstimatorError, "diagonal: 1; it takes true or false"),
        ("aioli", {"sweep_steps": 1.5}, EstimatorError, "sweep_steps: 1.5; it takes a whole"),
        ("skill_it", {"window": 0}, EstimatorError, "skill_it: window: 0; it takes a whole"),
        ("skill_it", {"eta": math.nan}, EstimatorError, "skill_it: eta: nan; it takes a number"),
        ("skill_it", {"graph": [1]}, EstimatorError, "skill_it: graph: it takes {domain: {ev"),
        ("skill_it", {"graph": {"web": {"code": "x"}}}, EstimatorError, "web on code: 'x'; it t"),
        ("odm", {"update_steps": 0}, EstimatorError, "odm: update_steps: 0; it takes a whole"),
        ("ado", {"fit_steps": "all"}, EstimatorError, "ado: fit_steps: 'all'; it takes a whole"),
        ("ado", {"warmup_steps": -1}, EstimatorError, "ado: warmup_steps: -1; it takes a whole"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(name, options, error, message):
    with pytest.raises(error, match=message):
        make_estimator(name, options)
