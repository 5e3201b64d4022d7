"""Each promise and each ability that a regressor claims is checked; each of these breaks one."""

import numpy as np
import pytest
from ridge import Ridge
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


class Sure(Ridge):
    """Has deviations of 0, as where trials are without noise."""

    def predict(self, weights_ND, return_std=False):
        mean_NM = super().predict(weights_ND)
        return (mean_NM, np.zeros_like(mean_NM)) if return_std else mean_NM


class Able(Ridge):
    """A ridge that can be cut down, fitted again, and that cross-validates and explains itself."""

    def select(self, targets):
        kept = clone(self)
        kept.coefficients_DM_ = self.coefficients_DM_[:, targets]
        kept.noise_M_ = self.noise_M_[targets]
        return kept

    def tuned(self):
        return clone(self)

    def cross_fit(self, weights_ND, losses_NM, fold_N, update):
        means_NM, stds_NM = np.empty_like(losses_NM), np.empty_like(losses_NM)
        for fold in np.unique(fold_N):
            out_N = fold_N == fold
            self.fit(weights_ND[~out_N], losses_NM[~out_N])
            means_NM[out_N], stds_NM[out_N] = self.predict(weights_ND[out_N], return_std=True)
        self.fit(weights_ND, losses_NM)
        self.held_out_members = {"ridge": means_NM}
        return means_NM, stds_NM

    def explain(self, targets):
        return [f"{target}: a line" for target in targets]


class Sized(Ridge):
    """A ridge of weights and the logarithms of parameters and tokens."""

    uses_scale = True
    gradient = property()  # that of a row is none of this test's

    def fit(self, rows, losses_NM):
        return super().fit(self._logs(rows), losses_NM)

    def predict(self, rows, return_std=False):
        return super().predict(self._logs(rows), return_std)

    def at(self, parameters, tokens):
        return AtRow(self, [parameters, tokens])

    def _logs(self, rows):
        return np.hstack([rows[:, :-2], np.log(rows[:, -2:])])


class AtRow:
    def __init__(self, whole, size):
        self.whole, self.size = whole, size

    def predict(self, weights_ND, return_std=False):
        sizes = np.tile(self.size, (len(weights_ND), 1))
        return self.whole.predict(np.hstack([weights_ND, sizes]), return_std)

    def gradient(self, weights_D):
        return self.whole.coefficients_DM_[:-2].T


class Together(Ridge):
    """Has a covariance, of three losses with one direction each."""

    def covariance(self, weights_KD, loads_M):
        sides_KM = np.asarray(weights_KD)[:, :3] * loads_M
        return sides_KM @ sides_KM.T


@pytest.mark.parametrize("kind", [Able, Sized, Together, ExtraTreesRegressor, Sure])
def test_a_regressor_that_keeps_its_promises_passes(kind):
    check_regressor(kind)


# Broken ones ----------------------------------------------------------------------------------


class Unguarded(Ridge):
    def predict(self, weights_ND, return_std=False):
        if not hasattr(self, "coefficients_DM_"):
            raise AttributeError("no coefficients")
        return super().predict(weights_ND, return_std)


class Tuning(Ridge):
    def fit(self, weights_ND, losses_NM):
        self.penalty = 1.0
        return super().fit(weights_ND, losses_NM)


class Random(Ridge):
    def fit(self, weights_ND, losses_NM):
        rng = np.random.default_rng()
        return super().fit(weights_ND, losses_NM + rng.normal(size=losses_NM.shape))


class Uphill(Ridge):
    def gradient(self, weights_D):
        return -self.coefficients_DM_.T


class Forgetful(Ridge):
    @classmethod
    def load(cls, path):
        loaded = super().load(path)
        loaded.coefficients_DM_ = loaded.coefficients_DM_ + 1e-3
        return loaded


class SelectsInAnyOrder(Able):
    def select(self, targets):
        return super().select(sorted(targets))


class TunesItself(Able):
    def tuned(self):
        return self


class TunesAnother(Able):
    def tuned(self):
        return clone(self).set_params(penalty=100.0)


class CrossFitsBelowZero(Able):
    def cross_fit(self, *given):
        means_NM, stds_NM = super().cross_fit(*given)
        return means_NM, -stds_NM


class Peeks(Able):
    def cross_fit(self, weights_ND, *given):
        _, stds_NM = super().cross_fit(weights_ND, *given)
        return self.predict(weights_ND), stds_NM


class FailsOnEpochs(Ridge):
    def __init__(self, penalty=1e-3, random_state=None, inventory=None, tokens=None):
        super().__init__(penalty, random_state)
        self.inventory = inventory
        self.tokens = tokens

    def fit(self, weights_ND, losses_NM):
        if self.inventory is not None:
            raise ValueError("no inventory, please")
        return super().fit(weights_ND, losses_NM)


class SizedElsewhere(Sized):
    def at(self, parameters, tokens):
        return super().at(parameters, 2 * tokens)


class TogetherBelowZero(Together):
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
        (CrossFitsBelowZero, "deviations of cross_fit are finite and >= 0"),
        (Peeks, "cross_fit predicts a fold without its losses"),
        (FailsOnEpochs, "it fits with inventory and tokens set. Broken: ValueError"),
        (SizedElsewhere, "`at` predicts for mixtures what the fit predicts for rows"),
        (TogetherBelowZero, "covariance is positive semidefinite"),
    ],
)
def test_a_regressor_that_breaks_a_promise_is_told_which(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_regressor(broken)
