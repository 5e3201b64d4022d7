"""ODM makes the published update."""

import math

import numpy as np
from mixopt_regressors.online import ODMEstimator
from online_setting import run_of

from mixopt.online import Observation

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
