"""The Gaussian process: gradient, intervals, held-out predictions, covariance, hyperparameters."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from mixing_law import covariance as kernel, law, mixtures
from mixopt_regressors.combinations import AutoRegressor
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.gaussian.gaussian_process import Posterior, StackedPosteriors
from mixopt_regressors.gaussian.hyperparameters import (
    Evidence,
    Prior,
    evidence_by_target,
    replicate_noise,
)
from mixopt_regressors.gaussian.kernels import Matern, log_weights
from places import DATA
from scipy.optimize import approx_fprime

from mixopt.fitting import make_regressor, spearman
from mixopt.trials import Trials

REGMIX = DATA / "regmix"


def fitted(trials: int = 40, noise: float = 0.01, targets: int = 2) -> GaussianProcessRegressor:
    weights_ND = mixtures(trials)
    return GaussianProcessRegressor().fit(weights_ND, law(weights_ND, targets, noise))


def noise_stds(regressor: GaussianProcessRegressor) -> np.ndarray:
    """Return the learned standard deviation of the noise by target, in nats."""
    return np.exp(regressor.parameters_MP[:, -1] / 2) * regressor.units_M


def test_the_gradient_is_that_of_the_prediction_by_each_weight_alone():
    regressor, weights_D = fitted(), np.array([0.4, 0.3, 0.2, 0.0999, 1e-4])
    steps_DD = np.diag(1e-4 * weights_D)
    ahead_DM = regressor.predict(weights_D + steps_DD)
    behind_DM = regressor.predict(weights_D - steps_DD)
    measured_MD = ((ahead_DM - behind_DM) / (2e-4 * weights_D[:, None])).T
    # Above 1e-4 it is exact; at 1e-4 half of the difference is below, where it is bounded.
    few_MD = regressor.gradient(weights_D)
    assert np.allclose(few_MD, measured_MD, rtol=1e-4, atol=1e-5)
    none_MD = regressor.gradient(np.array([0.4, 0.3, 0.2, 0.1, 0.0]))  # and where there is none
    assert (np.abs(none_MD[:, 4]) < 3 * np.abs(few_MD[:, 4])).all()


def test_a_mixture_that_is_changed_in_place_is_predicted_anew():
    regressor, points_ND = fitted(), mixtures(2)
    row_ND = points_ND[:1].copy()
    regressor.predict(row_ND)
    row_ND[0] = points_ND[1]
    assert np.array_equal(regressor.gradient(row_ND[0]), fitted().gradient(points_ND[1]))


def test_trials_of_one_mixture_count_as_those_of_mixtures_next_to_each_other_do():
    weights_ND, fresh_ND = mixtures(20)[[*range(20), 3, 3, 7]], mixtures(5, seed=1)
    losses_NM = law(weights_ND, 2, noise=0.05)
    same = fitted().tuned().fit(weights_ND, losses_NM)
    apart = fitted().tuned().fit(weights_ND * (1 + 1e-12 * np.arange(23)[:, None]), losses_NM)
    assert same.predict(fresh_ND) == pytest.approx(apart.predict(fresh_ND), rel=1e-7)
    assert same.gradient(fresh_ND[0]) == pytest.approx(apart.gradient(fresh_ND[0]), rel=1e-5)


def test_it_covers_new_trials_at_about_the_stated_rate():
    fresh_ND = mixtures(400, seed=1)
    means, stds = fitted(64, noise=0.05).predict(fresh_ND, return_std=True)
    seen_NM = law(fresh_ND, noise=0.05)
    assert [*means[0], *stds[0]] == pytest.approx([3.4348, 2.2458, 0.10895, 0.10118], rel=1e-3)
    assert 0.82 < np.mean(np.abs(means - seen_NM) < 1.645 * stds) < 0.97  # nominal 0.9


def test_it_is_less_sure_away_from_the_trials():
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet([20.0, 20.0, 20.0, 1.0], 40)
    regressor = GaussianProcessRegressor().fit(weights_ND, law(weights_ND, noise=0.01))
    path_KD = np.array([[(1 - w) / 3] * 3 + [w] for w in (0.02, 0.2, 0.5, 1.0)])
    _, stds_KM = regressor.predict(path_KD, return_std=True)
    assert (np.diff(stds_KM, axis=0) > 0).all()


def test_replicates_raise_the_noise_to_theirs():
    weights_ND = mixtures(24, domains=3)[[*range(24), *[0] * 8]]
    losses_NM = law(weights_ND)
    losses_NM[24:] += 0.2 * np.random.default_rng(0).standard_normal((8, 2))
    seen_M = replicate_noise(weights_ND, losses_NM).stds_M
    alone, replicated = (
        GaussianProcessRegressor().fit(weights_ND[:n], losses_NM[:n]) for n in (24, 32)
    )
    assert (noise_stds(alone) < 0.05).all()
    assert (noise_stds(replicated) > 0.5 * seen_M).all()


def folds(trials: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).permutation(np.arange(trials) % count)


def test_a_fold_is_predicted_by_a_fit_of_the_others_alone():
    weights_ND, fold_N = mixtures(24), folds(24)
    losses_NM = law(weights_ND, noise=0.01)
    means_NM, stds_NM = GaussianProcessRegressor().cross_fit(weights_ND, losses_NM, fold_N)
    other_N = fold_N != 2
    anew = GaussianProcessRegressor().fit(weights_ND[other_N], losses_NM[other_N])
    assert np.array_equal(means_NM[~other_N], anew.predict(weights_ND[~other_N]))
    assert (stds_NM > 0).all()


@pytest.mark.parametrize(("trials", "targets"), [(40, 12), (360, 2)])
def test_folds_of_a_law_are_predicted_whatever_their_parameters_start_from(trials, targets):
    weights_ND = mixtures(trials, domains=3)
    losses_NM = law(weights_ND, targets)
    means_NM, _ = GaussianProcessRegressor().cross_fit(weights_ND, losses_NM, folds(trials))
    assert (np.sqrt(((means_NM - losses_NM) ** 2).mean(axis=0)) < 0.1 * losses_NM.std(axis=0)).all()


def test_a_constant_loss_is_predicted_as_that_constant():
    regressor = GaussianProcessRegressor().fit(mixtures(20), np.full(20, 3.5))
    means, stds = regressor.predict(mixtures(50, seed=1), return_std=True)
    assert np.allclose(means, 3.5)
    assert (stds < 0.01).all()


@pytest.mark.skipif(not REGMIX.is_dir(), reason="RegMix's published runs are not here")
def test_it_ranks_published_runs_from_64_of_them():
    train, fresh = (
        Trials.from_csv(REGMIX / f"{name}_mixture.csv", REGMIX / f"{name}_loss.csv")
        for name in ("train_1m", "test_1m")
    )
    assert (train.weights().shape, train.losses().shape) == ((512, 17), (512, 13))
    rows = np.random.RandomState(0).permutation(512)[:64]
    regressor = GaussianProcessRegressor().fit(train.weights()[rows], train.losses()[rows])
    both = zip(regressor.predict(fresh.weights()).T, fresh.losses().T, strict=True)
    assert np.mean([spearman(*pair) for pair in both]) >= 0.98


TRIED = mixtures(40)
LOSSES = law(TRIED, noise=0.05)
OTHERS = mixtures(12, seed=1)


@pytest.mark.parametrize("name", ["gaussian_process", "epochs"])
def test_a_variance_and_the_noise_are_the_variance_of_a_new_trial(name):
    regressor = make_regressor(name, 0).fit(TRIED, LOSSES)
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
    covariance_KK = regressor.covariance(OTHERS, np.ones(1))
    np.testing.assert_allclose(covariance_KK, unit**2 * expected_KK, atol=1e-6 * unit**2)


def test_a_combination_adds_the_disagreement_of_its_members():
    regressor = AutoRegressor(candidates=["skills", "gaussian_process"]).fit(TRIED, LOSSES)
    loads_M, expected = np.array([0.7, 0.3]), []
    for member, shares_M in regressor._used():
        own_M = loads_M * np.sqrt(shares_M)
        away = (member.predict(OTHERS) - regressor.predict(OTHERS)) @ own_M
        expected.append(member.covariance(OTHERS, own_M) + np.outer(away, away))
    np.testing.assert_allclose(regressor.covariance(OTHERS, loads_M), sum(expected), rtol=1e-9)


def evidence(trials: int = 12, domains: int = 4) -> Evidence:
    weights_ND = mixtures(trials, domains)
    losses_NM = law(weights_ND, 1)
    return evidence_by_target(weights_ND, (losses_NM - losses_NM.mean()) / losses_NM.std())[0]


@given(arrays(np.float64, 7, elements=st.floats(-2.0, 2.0)))
def test_the_gradient_of_the_posterior_of_hyperparameters_is_exact(whitened_P):
    value = evidence()
    logs_ND = log_weights(value.rows)
    measured_P = approx_fprime(whitened_P, lambda at_P: value.objective(at_P, logs_ND)[0], 1e-6)
    claimed_P = value.objective(whitened_P, logs_ND)[1]
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
    expected = evidence_by_target(weights_ND, law(weights_ND, 1, noise=0.05) - 2.5)[0]
    polished_P, whole_P = expected.learned(np.arange(300), 300), expected.most_probable()
    few_P = expected.learned(np.arange(300), 256)

    def loss(at_P):
        whitened_P = (at_P - expected.prior.centers_P) / expected.prior.spreads_P
        return expected.objective(whitened_P, log_weights(weights_ND))[0]

    assert loss(polished_P) == pytest.approx(loss(whole_P), abs=0.3)
    assert loss(polished_P) < loss(few_P)


def test_more_trials_make_hyperparameters_surer_and_none_less_sure_than_the_prior():
    expected = evidence(30)
    found_P = expected.most_probable()
    few_P, many_P = ((expected.spread(found_P, trials) ** 2).sum(axis=1) for trials in (30, 300))
    assert (many_P < few_P).all()
    assert (few_P <= expected.prior.spreads_P**2 * (1 + 1e-9)).all()


def test_four_degrees_of_freedom_decide_the_prior_of_the_noise():
    without, with_four = Prior.of(5, 0.0, 0), Prior.of(5, 0.25, 4)
    assert with_four.spreads_P[-1] < 1 < without.spreads_P[-1]
    assert abs(with_four.centers_P[-1] - np.log(0.25)) < with_four.spreads_P[-1]
