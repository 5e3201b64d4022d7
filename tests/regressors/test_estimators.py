"""Every installed estimator keeps its promises, and one that breaks a promise is told which."""

from dataclasses import replace

import numpy as np
import pytest
from mixopt_regressors.online import ODMEstimator

from mixopt.online import make_estimator
from mixopt.system import load_plugin, plugin_names
from mixopt.testing import check_estimator


@pytest.mark.parametrize("name", plugin_names("estimator"))
def test_every_installed_estimator_keeps_its_promises(name):
    check_estimator(load_plugin("estimator", name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("aioli", {"update_steps": 30, "sweep_steps": 3, "sweeps": 2, "prior_steps": 11}),
        ("aioli", {"ema": 0.3, "eta": 2.0}),
        ("aioli", {"update_steps": 120, "realised": True, "one_hot": 1.0}),
        ("odm", {"update_steps": 7}),
    ],
)
def test_estimators_keep_their_promises_in_each_variant(name, options):
    check_estimator(lambda: make_estimator(name, options))


class Unbounded(ODMEstimator):
    def plan(self):
        plan = super().plan()
        others = len(plan.weights_D) - 1
        return replace(plan, weights_D=np.array([0.2] + [0.8 / others] * others))


class Asking(ODMEstimator):
    def plan(self):
        return replace(super().plan(), held_out=True)


class Counting(ODMEstimator):
    asked = 0

    def plan(self):
        self.asked += 1
        return replace(super().plan(), steps=1 + self.asked % 2)


class Scribbling(ODMEstimator):
    def observe(self, told):
        super().observe(told)
        told.loss_sum_D[:] = 0.0


class Forgetful(ODMEstimator):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.rewards_D = 0.0 * self.rewards_D


class Infinite(ODMEstimator):
    def state_dict(self):
        return super().state_dict() | {"last": float("nan")}


class Trusting(ODMEstimator):
    def observe(self, told):
        super().observe(told)
        self.rewards_D = self.rewards_D + 1e-6 * np.nan_to_num(told.loss_sum_D, nan=9.0)


class Crashing(ODMEstimator):
    def load_state_dict(self, state):
        super().load_state_dict(dict(state) | {"domains": state["domains"]})


class Hasty(ODMEstimator):
    def observe(self, told):
        self.rewards_D = self.rewards_D + 1.0
        super().observe(told)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Unbounded, "a mixture of the domains within their bounds"),
        (Asking, "asked for only where `needs` has held_out"),
        (Counting, "asking for a plan changes nothing"),
        (Scribbling, "observe does not change its argument"),
        (Forgetful, "the state of what was loaded is that state"),
        (Infinite, "a state is made of what JSON has"),
        (Trusting, "of a domain with count 0 nothing is read"),
        (Crashing, "a state that is not its own is an EstimatorError. Broken: KeyError"),
        (Hasty, "an observation that is refused changes nothing"),
    ],
)
def test_an_estimator_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_estimator(broken)
