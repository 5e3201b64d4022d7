"""The hyperparameters of the Gaussian process, derivatives and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from mixing_law import law, mixtures
from mixopt_regressors.gaussian.gaussian_process import Posterior, StackedPosteriors
from mixopt_regressors.gaussian.hyperparameters import Evidence, Prior, evidences
from mixopt_regressors.gaussian.kernels import Matern, log_weights
from scipy.optimize import approx_fprime


def evidence(trials: int = 12, domains: int = 4) -> Evidence:
    weights_ND = mixtures(trials, domains)
    losses_NM = law(weights_ND, 1)
    return evidences(weights_ND, (losses_NM - losses_NM.mean()) / losses_NM.std())[0]


@given(arrays(np.float64, 7, elements=st.floats(-2.0, 2.0)))
def test_the_gradient_of_the_posterior_of_hyperparameters_is_exact(whitened_P):
    own = evidence()
    logs_ND = log_weights(own.rows)
    measured_P = approx_fprime(whitened_P, lambda at_P: own.objective(at_P, logs_ND)[0], 1e-6)
    claimed_P = own.objective(whitened_P, logs_ND)[1]
    # Forward differences are off by about 1e-6 of the value and of the curvature.
    assert np.allclose(claimed_P, measured_P, rtol=1e-3, atol=1e-3 * (1 + np.abs(measured_P).max()))


def test_the_prediction_moves_with_hyperparameters_as_stated():
    weights_ND, fresh_KD = mixtures(12), mixtures(5, seed=1)
    losses_N = law(weights_ND, 1)[:, 0] - 2.5
    parameters_P = np.append(np.random.default_rng(0).normal(0.0, 0.5, 7), -3.0)

    def mean(at_P):
        own = Posterior.of(Matern.of(at_P), weights_ND, losses_N)
        return StackedPosteriors([own]).means(fresh_KD)[:, 0]

    posterior = Posterior.of(Matern.of(parameters_P), weights_ND, losses_N)
    still_K = posterior.variance(fresh_KD, np.zeros((8, 8)))
    moved_KP = np.stack(
        [posterior.variance(fresh_KD, np.diag(one_P)) - still_K for one_P in np.eye(8)], axis=1
    )
    measured_KP = approx_fprime(parameters_P, mean, 1e-7)
    assert np.allclose(moved_KP, measured_KP**2, rtol=1e-3, atol=1e-8)


def test_polishing_on_all_trials_ends_near_where_learning_from_all_does():
    weights_ND = mixtures(300, domains=3)
    own = evidences(weights_ND, law(weights_ND, 1, noise=0.05) - 2.5)[0]
    polished_P, whole_P = own.learned(np.arange(300), 300), own.most_probable()
    few_P = own.learned(np.arange(300), 256)

    def loss(at_P):
        whitened_P = (at_P - own.prior.centers_P) / own.prior.spreads_P
        return own.objective(whitened_P, log_weights(weights_ND))[0]

    assert loss(polished_P) == pytest.approx(loss(whole_P), abs=0.3)
    assert loss(polished_P) < loss(few_P)


def test_more_trials_make_hyperparameters_surer_and_none_less_sure_than_the_prior():
    own = evidence(30)
    found_P = own.most_probable()
    few_P, many_P = ((own.spread(found_P, trials) ** 2).sum(axis=1) for trials in (30, 300))
    assert (many_P < few_P).all()
    assert (few_P <= own.prior.spreads_P**2 * (1 + 1e-9)).all()


def test_four_degrees_of_freedom_decide_the_prior_of_the_noise():
    without, with_four = Prior.of(5, 0.0, 0), Prior.of(5, 0.25, 4)
    assert with_four.spreads_P[-1] < 1 < without.spreads_P[-1]
    assert abs(with_four.centers_P[-1] - np.log(0.25)) < with_four.spreads_P[-1]
