"""Every installed estimator keeps its promises, and one that breaks a promise is told which."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from mixopt_regressors.online import ODMEstimator

from mixopt.online import Plan, make_estimator
from mixopt.system import plugin_names
from mixopt.testing import check_estimator
from mixopt.testing._estimators import SimulatedRun, simulated_setting


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in plugin_names("estimator")),
        ("aioli", {"update_steps": 30, "sweep_steps": 3, "sweeps": 2, "prior_steps": 11}),
        ("aioli", {"ema": 0.3, "update_steps": 120, "realised": True, "one_hot": 1.0}),
        ("odm", {"update_steps": 7}),
    ],
)
def test_every_installed_estimator_keeps_its_promises_in_each_variant(name, options):
    check_estimator(lambda: make_estimator(name, options))


def test_the_run_that_estimators_are_checked_in_follows_its_law():
    needs = {"training_loss", "held_out"}
    run = SimulatedRun(lambda: SimpleNamespace(needs=needs, start=lambda setting: None))
    first, last = run.follow(Plan(np.array([0.5, 0.3, 0.2]), 5, "sweep", held_out=True))
    assert (first.step, first.tokens_D.tolist(), first.held_out) == (2, [600, 360, 240], None)
    assert (last.step, last.tokens_D.tolist()) == (5, [900, 540, 360])
    assert last.learning_rate == pytest.approx(1e-3 * 115 / 120)
    losses = [4.577474095, 4.320215278, 5.325379019, 5.439012034]  # the exam's is the last
    assert last.loss_sum_D / last.loss_count_D == pytest.approx(losses[:3], abs=1e-8)
    assert last.held_out.losses_M == pytest.approx(losses, abs=1e-7)
    setting = simulated_setting(bounded=True)
    assert setting.objective_M.tolist() == [1 / 3, 1 / 3, 1 / 3, 0]
    assert (setting.lower_D[0], setting.upper_D[0], run.setting.natural_D[0]) == (0.3, 0.36, 0.5)


class Unbounded(ODMEstimator):
    def plan(self):
        plan = super().plan()
        others = len(plan.weights_D) - 1
        return replace(plan, weights_D=np.array([0.2] + [0.8 / others] * others))


class Adding(ODMEstimator):
    def plan(self):
        plan = super().plan()
        return replace(plan, weights_D=np.append(plan.weights_D, 0.0))


class Asking(ODMEstimator):
    def plan(self):
        return replace(super().plan(), held_out=True)


class Counting(ODMEstimator):
    requests = 0

    def plan(self):
        self.requests += 1
        return replace(super().plan(), steps=1 + self.requests % 2)


class Scribbling(ODMEstimator):
    def observe(self, observation):
        super().observe(observation)
        observation.loss_sum_D[:] = 0.0


class Forgetful(ODMEstimator):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.rewards_D = 0.0 * self.rewards_D


class Infinite(ODMEstimator):
    def state_dict(self):
        return super().state_dict() | {"last": float("nan")}


class Trusting(ODMEstimator):
    def observe(self, observation):
        super().observe(observation)
        self.rewards_D = self.rewards_D + 1e-6 * np.nan_to_num(observation.loss_sum_D, nan=9.0)


class Crashing(ODMEstimator):
    def load_state_dict(self, state):
        super().load_state_dict(dict(state) | {"domains": state["domains"]})


class Hasty(ODMEstimator):
    def observe(self, observation):
        self.rewards_D = self.rewards_D + 1.0
        super().observe(observation)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Unbounded, "a mixture of the domains within their bounds"),
        (Adding, "a mixture of the domains within their bounds"),
        (Asking, "requests held-out losses only if `needs` has held_out"),
        (Counting, "a call of plan changes nothing"),
        (Scribbling, "observe does not change its argument"),
        (Forgetful, "state_dict returns a loaded state unchanged"),
        (Infinite, "a state consists of JSON values"),
        (Trusting, "the loss of a domain with count 0 is not read"),
        (Crashing, "an invalid state raises an EstimatorError. Broken: KeyError"),
        (Hasty, "a refused observation changes nothing"),
    ],
)
def test_an_estimator_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_estimator(broken)
