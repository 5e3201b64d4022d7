"""Every installed estimator keeps its promises, and one that breaks a promise is told which."""

from dataclasses import replace

import numpy as np
import pytest
from mixopt_regressors.online import AioliEstimator

from mixopt.errors import EstimatorError
from mixopt.online import Plan, make_estimator
from mixopt.system import load_plugin, plugin_names
from mixopt.testing import check_estimator


@pytest.mark.parametrize("name", plugin_names("estimator"))
def test_every_installed_estimator_keeps_its_promises(name):
    check_estimator(load_plugin("estimator", name))


@pytest.mark.parametrize(
    "options",
    [
        {"update_steps": 30, "sweep_steps": 3, "sweeps": 2, "prior_steps": 11},
        {"ema": 0.3, "eta": 2.0},
        {"update_steps": 120, "realised": True, "one_hot": 1.0},
    ],
)
def test_aioli_keeps_its_promises_in_each_variant(options):
    check_estimator(lambda: AioliEstimator(**options))


def test_plans_of_several_steps_keep_the_promises():
    check_estimator(lambda: make_estimator("odm", {"update_steps": 7}))


class Softmax:
    """Follows running means of training losses and keeps every promise."""

    needs = frozenset({"training_loss", "held_out"})

    def start(self, setting):
        self.setting = setting
        self.step, self.held = 0, 0.0
        self.mean = dict.fromkeys(setting.domains)

    def mixture(self):
        known = [mean for mean in self.mean.values() if mean is not None] or [0.0]
        middle = sum(known) / len(known)
        losses_D = np.array([middle if m is None else m for m in self.mean.values()])
        weights_D = np.exp(losses_D + self.held) / np.exp(losses_D + self.held).sum()
        lower_D, upper_D = self.setting.lower_D, self.setting.upper_D
        for _ in range(100):
            weights_D = np.clip(weights_D, lower_D, upper_D)
            weights_D = weights_D + (1.0 - weights_D.sum()) / len(weights_D)
        return np.clip(weights_D, lower_D, upper_D)

    def plan(self):
        steps = min(5 - self.step % 5, self.setting.steps - self.step)
        return Plan(self.mixture(), steps, "softmax", held_out=True)

    def check(self, told):
        held_out = told.held_out
        good = told.step >= self.step and len(told.tokens_D) == len(self.mean)
        good = good and not np.isnan(told.loss_sum_D).any()
        if held_out is not None:
            good = good and len(held_out.losses_M) == len(self.setting.evaluations)
            good = good and not np.isnan(held_out.losses_M).any()
        if not good:
            raise EstimatorError("cannot be")

    def observe(self, told):
        self.check(told)
        self.take(told)
        self.step = told.step

    def take(self, told):
        rows = zip(self.mean, told.loss_sum_D, told.loss_count_D, strict=True)
        for name, total, count in list(rows):
            if count > 0:
                old = self.mean[name]
                new = float(total / count)
                self.mean[name] = new if old is None else 0.5 * (old + new)
        if told.held_out is not None:
            self.held = float(told.held_out.losses_M.mean())

    def state_dict(self):
        return {"step": self.step, "held": self.held, "mean": dict(self.mean)}

    def load_state_dict(self, state):
        if "mean" not in state or set(state["mean"]) != set(self.mean):
            raise EstimatorError("not mine")
        self.step, self.held = state["step"], state["held"]
        self.mean = {name: state["mean"].get(name) for name in self.setting.domains}


class Unbounded(Softmax):
    def mixture(self):
        return np.array([0.2] + [0.8 / (len(self.mean) - 1)] * (len(self.mean) - 1))


class Asking(Softmax):
    needs = frozenset({"training_loss"})


class Counting(Softmax):
    asked = 0

    def plan(self):
        self.asked += 1
        return replace(super().plan(), steps=1 + self.asked % 2 if self.step < 100 else 1)


class Scribbling(Softmax):
    def observe(self, told):
        super().observe(told)
        told.loss_sum_D[:] = 0.0


class Forgetful(Softmax):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.mean = dict.fromkeys(self.mean, 0.0)

    def state_dict(self):
        return self.first if hasattr(self, "first") else super().state_dict()


class Infinite(Softmax):
    def state_dict(self):
        return super().state_dict() | {"last": float("nan")}


class Trusting(Softmax):
    def take(self, told):
        super().take(replace(told, loss_count_D=np.maximum(told.loss_count_D, 1.0)))


class Crashing(Softmax):
    def load_state_dict(self, state):
        self.step = state["step"]
        super().load_state_dict(state)


class Hasty(Softmax):
    def observe(self, told):
        if told.held_out is not None:
            self.held = float(np.nanmean(told.held_out.losses_M)) + 1.0
        super().observe(told)


def test_an_estimator_that_keeps_its_promises_passes():
    check_estimator(Softmax)


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
