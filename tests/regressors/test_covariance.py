"""How sure a regressor is of several mixtures together, without the noise of a trial."""

from __future__ import annotations

import numpy as np
import pytest
from mixing_law import covariance as kernel, law, mixtures
from mixopt_regressors.combinations import AutoRegressor
from mixopt_regressors.gaussian import GaussianProcessRegressor

from mixopt.fitting import make_regressor

ALONE = ["gaussian_process", "epochs"]
TRIED = mixtures(40)
LOSSES = law(TRIED, noise=0.05)
OTHERS = mixtures(12, seed=1)


def fitted(name):
    return make_regressor(name, 0).fit(TRIED, LOSSES)


@pytest.mark.parametrize("name", ALONE)
def test_a_variance_and_the_noise_are_the_variance_of_a_new_trial(name):
    regressor = fitted(name)
    _, stds_KM = regressor.predict(OTHERS, return_std=True)
    for target, loads_M in enumerate(np.eye(2)):
        variance_K = np.diag(regressor.covariance(OTHERS, loads_M))
        noise_K = stds_KM[:, target] ** 2 - variance_K
        assert (variance_K >= 0).all()
        np.testing.assert_allclose(noise_K, noise_K[0], rtol=1e-6)
        assert noise_K[0] > 0


def test_a_gaussian_process_has_the_covariance_of_its_posterior():
    """With hyperparameters that are certain it is k - k' K^-1 k, written out."""
    regressor = GaussianProcessRegressor().fit(TRIED, LOSSES[:, :1])
    regressor._roots = [np.zeros((8, 1))]
    parameters_P, unit = regressor.parameters_MP[0], regressor.units_M[0]
    noise = np.exp(parameters_P[-1]) + 1e-8 * (np.exp(parameters_P[-2]) + 1.0)
    trials_NN = kernel(TRIED, TRIED, parameters_P) + noise * np.eye(40)
    across_KN = kernel(OTHERS, TRIED, parameters_P)
    prior_KK = kernel(OTHERS, OTHERS, parameters_P)
    expected_KK = prior_KK - across_KN @ np.linalg.solve(trials_NN, across_KN.T)
    found_KK = regressor.covariance(OTHERS, np.ones(1))
    np.testing.assert_allclose(found_KK, unit**2 * expected_KK, atol=1e-6 * unit**2)


def test_a_combination_adds_how_far_its_members_are_apart():
    regressor = AutoRegressor(candidates=["skills", "gaussian_process"]).fit(TRIED, LOSSES)
    loads_M = np.array([0.7, 0.3])
    parts = [(member, shares_M) for _, member, shares_M in regressor._used()]
    expected = []
    for member, shares_M in parts:
        own_M = loads_M * np.sqrt(shares_M)
        away = (member.predict(OTHERS) - regressor.predict(OTHERS)) @ own_M
        expected.append(member.covariance(OTHERS, own_M) + np.outer(away, away))
    np.testing.assert_allclose(regressor.covariance(OTHERS, loads_M), sum(expected), rtol=1e-9)
