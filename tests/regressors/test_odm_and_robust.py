"""ODM makes the published update; the robust estimator moves on no noise, and finds its way."""

import math

import numpy as np
import pytest
from mixopt_regressors.online import ODMEstimator, RobustEstimator
from mixopt_regressors.online.robust import Curves
from online_setting import run_of

from mixopt.errors import EstimatorError
from mixopt.online import Observation

STEPS, TOKENS = 400, 3000


def losses(tokens_D, powers=(0.3, 0.3, 0.3), heights=(3.0, 3.0, 3.0)):
    return 1.0 + np.array(heights) * (1 + tokens_D / 20_000) ** -np.array(powers)


def setting(objective=(1 / 3, 1 / 3, 1 / 3), **changes):
    return run_of(3, objective_M=objective, steps=STEPS, tokens_per_step=TOKENS, **changes)


MEAN = setting()


def run(estimator, where=MEAN, noise=0.0, **law):
    """Let an estimator steer a run; return the mixture of every step."""
    rng = np.random.default_rng(0)
    estimator.start(where)
    tokens_D, weights, step = np.zeros(3), [], 0
    while step < STEPS:
        plan = estimator.plan()
        drawn_D = plan.steps * TOKENS * plan.weights_D
        before_M, tokens_D = losses(tokens_D, **law), tokens_D + drawn_D
        mean_D = (before_M + losses(tokens_D, **law)) / 2 + noise * rng.standard_normal(3)
        step += plan.steps
        weights += [plan.weights_D] * plan.steps
        estimator.observe(Observation(step, drawn_D, mean_D * drawn_D, drawn_D))
    return np.array(weights)


def test_on_losses_of_noise_alone_it_hardly_moves():
    weights = run(RobustEstimator(), noise=0.05, heights=(0.0, 0.0, 0.0))
    assert np.abs(weights - 1 / 3).max() < 0.02


def test_on_the_mean_it_gives_more_to_the_domain_that_still_falls():
    law = {"powers": (0.2, 0.3, 0.4), "heights": (1.0, 3.0, 2.0)}
    weights = run(RobustEstimator(), noise=0.02, **law)
    expected = np.array([
        [0.313190026, 0.348915920, 0.337894053],
        [0.266666667, 0.410503037, 0.322830296],
        [0.266666667, 0.403664145, 0.329669189],
    ])  # fmt: skip
    assert weights[[24, 200, 320]] == pytest.approx(expected, abs=1e-6)


def test_a_target_that_is_a_training_domain_gets_most_of_the_tokens_without_evaluations():
    weights = run(RobustEstimator(), setting((0.2, 0.8, 0.0)), powers=(0.2, 0.3, 0.4))
    expected = np.array([
        [0.03338562, 0.93322938, 0.03338500],
        [0.04582552, 0.92084115, 0.03333333],
        [0.19232903, 0.77433764, 0.03333333],
    ])  # fmt: skip
    assert weights[[120, 300, -1]] == pytest.approx(expected, abs=1e-6)


def test_an_objective_without_a_training_domain_is_refused():
    with pytest.raises(EstimatorError, match="robust: the objective has no training domain"):
        RobustEstimator().start(setting((1.0,), evaluations=("exam",)))


def test_curves_find_the_slope_of_a_power_law():
    curves = Curves.empty(1)
    at = np.linspace(0.01, 0.5, 40)
    for n in at:
        recent = np.array([0.5 + 2 * n])  # which grows with what was seen
        loss = 1 + 2 * (1 + n / 0.03) ** -0.35 - 0.1 * np.log(recent)
        curves = curves.add(np.array([n]), loss, np.ones(1), recent, 1.0)
    slopes = curves.slopes(np.array([0.5]))
    assert slopes.fall_D[0] == pytest.approx(0.35 / 0.015 * (1 + 0.5 / 0.03) ** -1.35, rel=0.05)
    assert slopes.recency_D[0] == pytest.approx(0.1, rel=0.05)


def test_on_the_mean_it_keeps_to_its_region_and_the_last_plan_ends_where_the_end_begins():
    planned = []

    class Noting(RobustEstimator):
        def _next(self, seen):
            plan = super()._next(seen)
            planned.append((self.step, plan.steps, plan.tag))
            return plan

    law = {"powers": (0.05, 0.5, 0.2), "heights": (0.1, 5.0, 3.0)}
    weights = run(Noting(end=0.1456, eta=2.0), **law)  # the end is from step 341.76 on
    assert planned[-3:] == [(336, 4, "curves"), (340, 2, "curves"), (342, 400, "end: reference")]
    assert {steps for _, steps, _ in planned[:-2]} == {4}
    assert np.abs(weights[:342] - 1 / 3).max(axis=1)[-1] > 0.01
    assert weights[342:] == pytest.approx(1 / 3)
    assert [3 * weights.min(), 3 * weights.max()] == pytest.approx([0.8, 1.25])


REFERENCE_D = np.array([0.5, 0.3, 0.2])


def started(estimator):
    natural_D = np.array([0.6, 0.3, 0.1])
    estimator.start(run_of(steps=1000, reference_D=REFERENCE_D, natural_D=natural_D))
    return estimator


def observation(step, losses_D, count_D):
    count_D = np.array(count_D, np.float64)
    return Observation(step, count_D, np.array(losses_D) * count_D, count_D)


def test_odm_is_exp3_where_a_batch_has_one_domain():
    estimator = started(ODMEstimator())  # which warms up for 2% of the run
    assert estimator.plan().steps == 20
    estimator.observe(observation(20, [5.0, 5.0, 5.0], [300, 400, 500]))  # teaches nothing yet
    assert estimator.plan().weights_D.tolist() == REFERENCE_D.tolist()
    rng = np.random.default_rng(0)
    published_D, rewards_D, floor = REFERENCE_D, np.zeros(3), 1 / 3
    for step in range(21, 200):
        drawn_D, loss = np.eye(3)[rng.integers(3)], float(rng.uniform(1.0, 5.0))
        estimator.observe(observation(step, [loss] * 3, 100.0 * drawn_D))
        rewards_D += drawn_D * loss / 10 / published_D
        powers_D = np.exp(rewards_D * floor)
        floor = min(1 / 3, math.sqrt(math.log(3) / (3 * step)))
        published_D = powers_D / powers_D.sum() * (1 - 3 * floor) + floor
        np.testing.assert_allclose(estimator.plan().weights_D, published_D, rtol=1e-12)
    assert np.ptp(estimator.plan().weights_D) > 0.05


def test_odm_gives_each_domain_of_a_batch_its_share_of_the_reward():
    estimator = started(ODMEstimator(warmup_steps=0))
    estimator.observe(observation(1, [2.0, 4.0, 3.0], [500, 300, 200]))
    np.testing.assert_allclose(estimator.rewards_D, [0.2, 0.4, 0.3])  # batches as planned
    estimator = started(ODMEstimator(warmup_steps=0))
    estimator.observe(observation(1, [2.0, 4.0, 3.0], [500, 0, 500]))
    np.testing.assert_allclose(estimator.rewards_D, [0.2, 0.0, 0.5 * 0.3 / 0.2])
