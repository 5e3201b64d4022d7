"""What our estimators share: plans, checked observations, bounds, and state by name."""

import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mixopt_regressors.online import AioliEstimator
from mixopt_regressors.online.online_estimator import OnlineEstimator, option
from online_setting import run_of
from refusals import refuses

from mixopt.errors import EstimatorError
from mixopt.online import HeldOut, Observation, Plan, make_estimator

HUNDREDS = np.full(3, 100.0)
NONE = np.zeros(3)


@dataclass(eq=False)
class Following(OnlineEstimator):
    """Shares in proportion to held-out losses, ten steps each; at first the natural ones."""

    name: ClassVar[str] = "following"
    pace: int = option(10, minimum=1)
    limit: int | None = option(None, minimum=1)

    def _first(self):
        return Plan(self.bounded(self.setting.natural_D), 10, "natural", held_out=True)

    def _next(self, seen):
        return Plan(self.bounded(seen.held_out.losses_M), 10, "losses", held_out=True)


def started(estimator, **changes):
    given = {"steps": 100, "tokens_per_step": 300, "natural_D": np.array([0.7, 0.2, 0.1])}
    estimator.start(run_of(**given | changes))
    return estimator


def told(step, losses=None, **changes):
    held_out = None if losses is None else HeldOut(np.array(losses))
    observation = Observation(step, HUNDREDS, 3.0 * HUNDREDS, HUNDREDS, held_out=held_out)
    return replace(observation, **changes)


@pytest.mark.parametrize("options", [{"pace": 1.5}, {"pace": None}, {"limit": 0}, {"limit": True}])
def test_an_own_option_is_checked_by_its_annotation(options):
    refuses(EstimatorError, r"following: (pace|limit): .*a whole number >= 1", Following, **options)


def test_held_out_losses_may_come_after_the_last_step_of_a_plan():
    estimator = started(Following())
    estimator.observe(told(10))
    waiting = estimator.plan()
    assert (waiting.steps, waiting.held_out) == (0, True)
    estimator.observe(told(10, [3.0, 2.0, 1.0], tokens_D=NONE, loss_count_D=NONE))
    assert estimator.plan().steps == 10
    np.testing.assert_allclose(estimator.plan().weights_D, [1 / 2, 1 / 3, 1 / 6])
    estimator.observe(told(100, [3.0, 2.0, 1.0]))
    assert (estimator.plan().steps, estimator.plan().held_out) == (1, False)  # after the run


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), min_size=3, max_size=3).filter(lambda w: sum(w) > 1e-3))
def test_bounded_weights_are_a_mixture_within_the_bounds(weights):
    lower_D, upper_D = np.array([0.1, 0.0, 0.2]), np.array([0.6, 0.5, 0.4])
    estimator = started(Following(), lower_D=lower_D, upper_D=upper_D)
    bounded_D = estimator.bounded(np.array(weights))
    assert abs(bounded_D.sum() - 1) < 1e-9
    assert (bounded_D >= lower_D).all()
    assert (bounded_D <= upper_D).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (told(3), "following: step 3: it comes after step 5"),
        (told(9, [3.0, math.nan, 1.0]), "step 9: held-out losses: nan for 'code'"),
        (told(9, tokens_D=HUNDREDS[:2]), r"step 9: tokens: shape \(2,\); one value each of web"),
        (told(9, loss_sum_D=np.array([1.0, math.nan, 1.0])), "loss sums: nan for 'code'"),
    ],
)
def test_an_observation_that_cannot_be_right_is_one_clear_line_and_changes_nothing(wrong, message):
    estimator = started(Following())
    estimator.observe(told(5))
    before = estimator.state_dict()
    refuses(EstimatorError, message, estimator.observe, wrong)
    assert estimator.state_dict() == before


def changed(state, **parts):
    return state | {name: state[name] | values for name, values in parts.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"estimator": "odm"}, "aioli: state: estimator: 'odm', here aioli"),
        (lambda s: s | {"options": ["eta=0.5"]}, "options: .*'eta=0.5'.*, here .*'eta=0.2'"),
        (lambda s: {n: v for n, v in s.items() if n != "own"}, "own: is missing"),
        (lambda s: s | {"domains": ["web", "books", "code"]}, "domains: .*, here .'web', 'code'"),
        (lambda s: changed(s, own={"drops_KM": [[0.1] * 3]}), "drops_KM: has shape"),
        (lambda s: changed(s, run={"weights_D": [0.5] * 3}), "run: 'weights_D' is not a mixture"),
        (lambda s: changed(s, own={"log_weights_D": [0.0]}), r"log_weights_D: has shape \(1,\)"),
        (lambda s: changed(s, own={"log_weights_D": "zero"}), "is not an array of numbers"),
    ],
)
def test_a_state_of_something_else_or_damaged_is_refused(change, message):
    state = json.loads(json.dumps(started(AioliEstimator()).state_dict(), allow_nan=False))
    refuses(EstimatorError, message, started(AioliEstimator()).load_state_dict, change(state))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("aioli", {"eta": True}, "aioli: eta: True; it takes a number >= 0"),
        ("aioli", {"ema": 1.5}, "ema: 1.5; it takes a number from 0 to 1"),
        ("aioli", {"realised": 1}, "realised: 1; it takes true or false"),
        ("aioli", {"sweep_steps": 1.5}, "sweep_steps: 1.5; it takes a whole"),
        ("robust", {"most": 0.5}, "robust: most: 0.5; it takes a number >= 1"),
        ("odm", {"update_steps": 0}, "odm: update_steps: 0; it takes a whole"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(name, options, message):
    refuses(EstimatorError, message, make_estimator, name, options)


def test_an_option_may_be_at_the_ends_of_its_range():
    ends = {"eta": 0, "ema": 1, "one_hot": 1.0, "sweeps": 1, "update_steps": 1, "prior_steps": 0}
    assert make_estimator("aioli", ends).needs == {"held_out"}
    assert make_estimator("robust", {"most": 1, "keep": 1, "least": 0, "end": 0})
