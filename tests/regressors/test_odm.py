"""ODM makes the published update."""

import math

import numpy as np
from mixopt_regressors.online import ODMEstimator
from online_setting import run_of

from mixopt.online import Observation

REFERENCE_D = np.array([0.5, 0.3, 0.2])


def started(estimator):
    natural_D = np.array([0.6, 0.3, 0.1])
    setting = run_of(steps=1000, reference_D=REFERENCE_D, natural_D=natural_D)
    estimator.start(setting)
    return estimator


def told(step, losses_D, count_D):
    count_D = np.array(count_D, np.float64)
    return Observation(step, count_D, np.array(losses_D) * count_D, count_D)


class PublishedExp3:
    """One domain a step, in the loops of the published updater."""

    def __init__(self, weights):
        self.k = len(weights)
        self.probabilities = list(weights)
        self.rewards = [0.0] * self.k
        self.eps = 1 / self.k

    def update(self, drawn, loss, iteration):
        self.rewards[drawn] += loss / 10 / self.probabilities[drawn]
        before = self.eps
        self.eps = min(1 / self.k, math.sqrt(math.log(self.k) / (self.k * iteration)))
        total = sum(math.exp(reward * before) for reward in self.rewards)
        weights = [
            math.exp(reward * before) / total * (1 - self.k * self.eps) + self.eps
            for reward in self.rewards
        ]
        self.probabilities = [weight / sum(weights) for weight in weights]


def test_odm_is_exp3_where_a_batch_has_one_domain():
    estimator = started(ODMEstimator())  # which warms up for 2% of the run
    assert estimator.plan().steps == 20
    estimator.observe(told(20, [5.0, 5.0, 5.0], [300, 400, 500]))  # teaches nothing yet
    assert estimator.plan().weights_D.tolist() == REFERENCE_D.tolist()
    published = PublishedExp3(REFERENCE_D)
    rng = np.random.default_rng(0)
    for step in range(21, 200):
        drawn, loss = int(rng.integers(3)), float(rng.uniform(1.0, 5.0))
        count_D = 100.0 * np.eye(3)[drawn]
        estimator.observe(told(step, [loss] * 3, count_D))
        published.update(drawn, loss, step)
        np.testing.assert_allclose(estimator.plan().weights_D, published.probabilities, rtol=1e-12)
    assert np.ptp(estimator.plan().weights_D) > 0.05


def test_odm_gives_each_domain_of_a_batch_its_share_of_the_reward():
    estimator = started(ODMEstimator(warmup_steps=0))
    estimator.observe(told(1, [2.0, 4.0, 3.0], [500, 300, 200]))
    np.testing.assert_allclose(estimator.rewards_D, [0.2, 0.4, 0.3])  # batches as planned
    estimator = started(ODMEstimator(warmup_steps=0))
    estimator.observe(told(1, [2.0, 4.0, 3.0], [500, 0, 500]))
    np.testing.assert_allclose(estimator.rewards_D, [0.2, 0.0, 0.5 * 0.3 / 0.2])
