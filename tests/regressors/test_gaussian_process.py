"""The Gaussian process: its gradient, its intervals, held-out predictions, published runs."""

from __future__ import annotations

import numpy as np
import pytest
from mixing_law import law, mixtures
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.gaussian.hyperparameters import replicate_variances
from places import DATA

from mixopt.fitting import spearman
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
    weights_ND = mixtures(24, domains=3)
    with_ND = np.vstack([weights_ND, np.tile(weights_ND[:1], (8, 1))])
    losses_NM = law(with_ND)
    losses_NM[24:] += 0.2 * np.random.default_rng(0).standard_normal((8, 2))
    alone = GaussianProcessRegressor().fit(weights_ND, losses_NM[:24])
    replicated = GaussianProcessRegressor().fit(with_ND, losses_NM)
    seen_M = np.sqrt(replicate_variances(with_ND, losses_NM)[0])
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


@pytest.mark.parametrize(("trials", "domains"), [(2, 1), (2, 6)])
def test_a_handful_of_trials_gives_finite_predictions(trials, domains):
    weights_ND = mixtures(trials, domains)
    regressor = GaussianProcessRegressor().fit(weights_ND, law(weights_ND))
    means, stds = regressor.predict(mixtures(50, domains, seed=1), return_std=True)
    assert np.isfinite(means).all()
    assert (stds > 0).all()
    assert np.isfinite(regressor.gradient(np.eye(domains)[0])).all()


def test_a_constant_loss_is_predicted_as_that_constant():
    regressor = GaussianProcessRegressor().fit(mixtures(20), np.full(20, 3.5))
    means, stds = regressor.predict(mixtures(50, seed=1), return_std=True)
    assert np.allclose(means, 3.5)
    assert (stds < 0.01).all()


def published(name: str) -> Trials:
    if not REGMIX.exists():
        pytest.skip(f"the published RegMix runs are not at {REGMIX}")
    return Trials.from_csv(REGMIX / f"{name}_mixture.csv", REGMIX / f"{name}_loss.csv")


def test_it_ranks_published_runs_from_64_of_them():
    train, fresh = published("train_1m"), published("test_1m")
    rows = np.random.RandomState(0).permutation(512)[:64]
    regressor = GaussianProcessRegressor().fit(train.weights()[rows], train.losses()[rows])
    both = zip(regressor.predict(fresh.weights()).T, fresh.losses().T, strict=True)
    assert np.mean([spearman(*pair) for pair in both]) >= 0.98
