"""Every installed estimator keeps its promises, and one that breaks a promise is told which."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from mixopt_regressors.online import ODMEstimator

from mixopt.errors import EstimatorError
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


class Holding(ODMEstimator):
    """Observes, and keeps its first plan."""

    def _next(self, observation):
        return Plan(self.setting.reference_D, self.update_steps, "held")


def test_an_estimator_that_holds_its_mixture_passes_only_if_it_says_so():
    check_estimator(Holding, moves=False)
    with pytest.raises(AssertionError, match="other losses lead to another mixture .moves=False"):
        check_estimator(Holding)


class Unknown(ODMEstimator):
    needs = frozenset({"gradient of everything"})


class Idle(ODMEstimator):
    needs = frozenset({"training_loss", "held_out"})

    def plan(self):
        return replace(super().plan(), steps=0, held_out=True)


class Steering(ODMEstimator):
    """Writes to the setting of the run."""

    def start(self, setting):
        super().start(setting)
        self.given = setting

    def observe(self, observation):
        super().observe(observation)
        self.given.lower_D[0] = 0.01


class Exposed(ODMEstimator):
    """Hands out the array that its next plan is read from."""

    held_D = None

    def plan(self):
        plan = super().plan()
        if self.held_D is None or not np.isclose(self.held_D.sum(), 1.0):
            self.held_D = plan.weights_D.copy()
        return replace(plan, weights_D=self.held_D)


class Endless(ODMEstimator):
    def plan(self):
        return replace(super().plan(), steps=1000)


class Drawing(ODMEstimator):
    """Starts from rewards that nobody seeded."""

    def start(self, setting):
        super().start(setting)
        self.rewards_D = self.rewards_D + np.random.default_rng().random(len(self.rewards_D))


class Emptying(ODMEstimator):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        state.clear()


class Tupled(ODMEstimator):
    def state_dict(self):
        return super().state_dict() | {"seen": (1, 2)}


class Rushing(ODMEstimator):
    """Keeps something that its state does not have."""

    count = 0

    def observe(self, observation):
        super().observe(observation)
        self.count += 1
        if self.count == 3:
            self.rewards_D = self.rewards_D[::-1].copy()


class ZeroForMissing(ODMEstimator):
    def observe(self, observation):
        tokens_D = observation.tokens_D
        counts_D = np.where(observation.loss_count_D > 0, observation.loss_count_D, tokens_D)
        sums_D = np.where(observation.loss_count_D > 0, observation.loss_sum_D, 1e-9)
        super().observe(replace(observation, loss_sum_D=sums_D, loss_count_D=counts_D))


class Careless(ODMEstimator):
    def observe(self, observation):
        try:
            super().observe(observation)
        except EstimatorError:
            return


class AnyDomains(ODMEstimator):
    def load_state_dict(self, state):
        if not state:
            raise EstimatorError("no state")
        try:
            super().load_state_dict(state)
        except EstimatorError:
            return


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
        (Unknown, "needs is a frozenset of"),
        (Idle, "a plan of 0 steps is followed by a plan with steps"),
        (Steering, "the setting is not changed"),
        (Exposed, "writing to a returned plan does not change the estimator"),
        (Endless, "a plan has no more steps than the run has left"),
        (Drawing, "two runs with the same observations make the same plans"),
        (Emptying, "load_state_dict does not change its argument"),
        (Tupled, "a state is unchanged by JSON"),
        (Rushing, "after loading a state, at any step, the plans are the same"),
        (ZeroForMissing, "a domain without observations differs from a domain with loss 0"),
        (Careless, "raises an EstimatorError. Broken: it was accepted"),
        (AnyDomains, "a state of other domains raises an EstimatorError"),
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
