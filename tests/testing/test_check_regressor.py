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


@pytest.mark.parametrize("kind", [ExtraTreesRegressor, LinearRegressor])
def test_a_regressor_that_keeps_its_promises_passes(kind):
    check_regressor(kind)


# Broken ones ----------------------------------------------------------------------------------


class Uncopied(LinearRegressor):
    """Cannot be cloned: it changes its parameter when it is made."""

    def __init__(self, folds=5):
        self.folds = folds + 1


class ReturnsNothing(LinearRegressor):
    def fit(self, weights_ND, losses_NM):
        super().fit(weights_ND, losses_NM)


class Scribbles(LinearRegressor):
    def fit(self, weights_ND, losses_NM):
        super().fit(weights_ND, losses_NM)
        losses_NM[:] = 0.0
        return self


class PredictsOneLoss(LinearRegressor):
    def predict(self, weights_ND, return_std=False):
        answer = super().predict(weights_ND, return_std)
        return answer if return_std else answer[:, :1]


class ReturnsNoDeviations(LinearRegressor):
    def predict(self, weights_ND, return_std=False):
        return super().predict(weights_ND)


class ShiftsWithDeviations(LinearRegressor):
    def predict(self, weights_ND, return_std=False):
        answer = super().predict(weights_ND, return_std)
        return (answer[0] + 0.01, answer[1]) if return_std else answer


class Sure(LinearRegressor):
    def _std(self, weights_ND):
        return np.zeros((len(weights_ND), len(self.means_M)))


class Relative(LinearRegressor):
    """Predicts relative to the mean of the rows that it is asked for."""

    def predict(self, weights_ND, return_std=False):
        answer = super().predict(weights_ND, return_std)
        if return_std:
            return answer[0] - answer[0].mean(axis=0), answer[1]
        return answer - answer.mean(axis=0)


class NeedsTwoLosses(LinearRegressor):
    def predict(self, weights_ND, return_std=False):
        answer = super().predict(weights_ND, return_std)
        if return_std or answer.shape[1] > 1:
            return answer
        return np.hstack([answer, answer])


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


class FlatGradient(LinearRegressor):
    def gradient(self, weights_D):
        return super().gradient(weights_D)[0]


class Forgetful(LinearRegressor):
    @classmethod
    def load(cls, path):
        loaded = super().load(path)
        loaded.means_M = loaded.means_M + 1e-3
        return loaded


class SelectsInAnyOrder(GaussianProcessRegressor):
    def select(self, targets):
        return super().select(sorted(targets))


class SelectsInPlace(GaussianProcessRegressor):
    def select(self, targets):
        selected = super().select(targets)
        self.means_M = self.means_M + 1.0
        return selected


class Flat(GaussianProcessRegressor):
    @property
    def gradient(self):
        raise AttributeError("it has none")


class SelectsWithoutGradient(GaussianProcessRegressor):
    def select(self, targets):
        selected = super().select(targets)
        selected.__class__ = Flat
        return selected


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


class LeavesNoFit(GaussianProcessRegressor):
    def cross_fit(self, *given):
        return clone(self)._cross_fit(*given)

    def _cross_fit(self, *given):
        return super().cross_fit(*given)


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


class ForgetsEpochs(FailsOnEpochs):
    def _fit(self, weights_ND, losses_NM):
        self.inventory = None
        super()._fit(weights_ND, losses_NM)


class SizedElsewhere(ScalingRegressor):
    def at(self, parameters, tokens):
        return super().at(parameters, 2 * tokens)


class OneVariance(GaussianProcessRegressor):
    def covariance(self, weights_KD, loads_M):
        return super().covariance(weights_KD, loads_M)[:1]


class Lopsided(GaussianProcessRegressor):
    def covariance(self, weights_KD, loads_M):
        return np.triu(super().covariance(weights_KD, loads_M))


class IgnoresLoads(GaussianProcessRegressor):
    def covariance(self, weights_KD, loads_M):
        return super().covariance(weights_KD, np.ones_like(loads_M))


class TogetherBelowZero(GaussianProcessRegressor):
    def covariance(self, weights_KD, loads_M):
        return -super().covariance(weights_KD, loads_M)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Uncopied, "sklearn.base.clone copies it with its parameters"),
        (ReturnsNothing, "fit returns the regressor. Broken: it returned None"),
        (Scribbles, "fit and predict do not change their inputs"),
        (PredictsOneLoss, r"predict returns shape \(N, M\)"),
        (ReturnsNoDeviations, "predict with return_std returns means and deviations"),
        (ShiftsWithDeviations, "return_std does not change the mean"),
        (Sure, "deviations of predict with return_std are above 0"),
        (Relative, "a prediction does not depend on the other rows"),
        (NeedsTwoLosses, r"losses of shape \(N, 1\) give predictions of shape \(N, 1\)"),
        (FlatGradient, r"gradient returns shape \(M, D\)"),
        (SelectsInPlace, "select returns a copy"),
        (SelectsWithoutGradient, "select keeps the gradient"),
        (LeavesNoFit, "cross_fit fits on all rows"),
        (ForgetsEpochs, "it keeps its inventory and tokens"),
        (OneVariance, r"covariance returns shape \(K, K\)"),
        (Lopsided, "covariance is symmetric"),
        (IgnoresLoads, "covariance is of the weighted sum"),
        (Unguarded, "raises sklearn.exceptions.NotFittedError. Broken: AttributeError"),
        (Tuning, "fit changes no parameter"),
        (Random, "two fits with one random_state predict the same"),
        (Uphill, "gradient is the derivative of predict"),
        (Forgetful, "a loaded regressor predicts like the saved one"),
        (SelectsInAnyOrder, "select keeps the predictions of the selected targets"),
        (TunesItself, "tuned returns a copy"),
        (TunesAnother, "tuned, fitted on the same trials, predicts nearly"),
        (CrossFitsBelowZero, "deviations of cross_fit are above 0"),
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
