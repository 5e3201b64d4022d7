"""check_regressor names the promise that each of these breaks; tests/regressors has sound ones."""

import numpy as np
import pytest
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.linear import LinearRegressor
from mixopt_regressors.scaling import ScalingRegressor
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor

from mixopt.testing import check_regressor
from mixopt.testing._regressors import CheckedTrials


def test_the_trials_that_regressors_are_checked_on_follow_a_law_of_mixture_and_size():
    plain, sized = (CheckedTrials(None, sized=sized) for sized in (False, True))
    assert plain.losses_NM[0] == pytest.approx([2.477100435, 2.502395805, 2.236386865], abs=1e-8)
    more = 10.0 * (1e7 * 1e9) ** -0.1
    assert sized.losses_NM[0] == pytest.approx(plain.losses_NM[0] + more)
    assert sized.rows[:3, -2:].tolist() == [[1e7, 1e9], [4e7, 1e9], [4e7, 8e9]]
    assert (plain.rows.shape, sized.rows.shape) == ((48, 4), (48, 6))


class Sure(LinearRegressor):
    """Has deviations of 0, as where trials are without noise."""

    def _std(self, weights_ND):
        return np.zeros((len(weights_ND), len(self.means_M)))


@pytest.mark.parametrize("kind", [ExtraTreesRegressor, Sure])
def test_a_regressor_that_keeps_its_promises_passes(kind):
    check_regressor(kind)


# Broken ones ----------------------------------------------------------------------------------


class Unguarded(LinearRegressor):
    def predict(self, weights_ND, return_std=False):
        if not hasattr(self, "means_M"):
            raise AttributeError("no means")
        return super().predict(weights_ND, return_std)


class Tuning(GaussianProcessRegressor):
    def fit(self, weights_ND, losses_NM):
        self.learning_trials = 9
        return super().fit(weights_ND, losses_NM)


class Random(LinearRegressor):
    def _fit(self, weights_ND, losses_NM):
        rng = np.random.default_rng()
        super()._fit(weights_ND, losses_NM + rng.normal(size=losses_NM.shape))


class Uphill(LinearRegressor):
    def gradient(self, weights_D):
        return -super().gradient(weights_D)


class Forgetful(LinearRegressor):
    @classmethod
    def load(cls, path):
        loaded = super().load(path)
        loaded.means_M = loaded.means_M + 1e-3
        return loaded


class SelectsInAnyOrder(GaussianProcessRegressor):
    def select(self, targets):
        return super().select(sorted(targets))


class TunesItself(GaussianProcessRegressor):
    def tuned(self):
        return self


class TunesAnother(GaussianProcessRegressor):
    def tuned(self):
        return clone(self).set_params(learning_trials=2)


class CrossFitsBelowZero(GaussianProcessRegressor):
    def cross_fit(self, *given):
        means_NM, stds_NM = super().cross_fit(*given)
        return means_NM, -stds_NM


class Peeks(GaussianProcessRegressor):
    def cross_fit(self, weights_ND, *given):
        _, stds_NM = super().cross_fit(weights_ND, *given)
        return self.predict(weights_ND), stds_NM


class LosesMembers(GaussianProcessRegressor):
    def cross_fit(self, *given):
        means_NM, stds_NM = super().cross_fit(*given)
        self.held_out_members = {"member": means_NM[1:]}
        return means_NM, stds_NM


class ExplainsInOneString(LinearRegressor):
    def explain(self, targets):
        return "a line"


class FailsOnEpochs(LinearRegressor):
    def __init__(self, inventory=None, tokens=None):
        self.inventory = inventory
        self.tokens = tokens

    def _fit(self, weights_ND, losses_NM):
        if self.inventory is not None:
            raise ValueError("no inventory, please")
        super()._fit(weights_ND, losses_NM)


class SizedElsewhere(ScalingRegressor):
    def at(self, parameters, tokens):
        return super().at(parameters, 2 * tokens)


class TogetherBelowZero(GaussianProcessRegressor):
    def covariance(self, weights_KD, loads_M):
        return -super().covariance(weights_KD, loads_M)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Unguarded, "raises sklearn.exceptions.NotFittedError. Broken: AttributeError"),
        (Tuning, "fit changes no parameter"),
        (Random, "two fits with one random_state predict the same"),
        (Uphill, "gradient is the derivative of predict"),
        (Forgetful, "a loaded regressor predicts like the saved one"),
        (SelectsInAnyOrder, "select keeps the predictions of the selected targets"),
        (TunesItself, "tuned returns a copy"),
        (TunesAnother, "tuned, fitted on the same trials, predicts nearly"),
        (CrossFitsBelowZero, "deviations of cross_fit are >= 0"),
        (Peeks, "cross_fit predicts a fold without its losses"),
        (LosesMembers, r"held_out_members has finite losses of shape \(N, M\) by name"),
        (ExplainsInOneString, "explain returns lines of text"),
        (FailsOnEpochs, "it fits with inventory and tokens set. Broken: ValueError"),
        (SizedElsewhere, "`at` predicts for mixtures what the fit predicts for rows"),
        (TogetherBelowZero, "covariance is positive semidefinite"),
    ],
)
def test_a_regressor_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_regressor(broken)
