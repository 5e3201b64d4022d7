"""The law of phases finds what a token of a later phase counts, and is smooth."""

import numpy as np
import pytest
from mixopt_regressors.phases import PhasesRegressor

LENGTHS = np.array([0.8, 0.2])


def cells(count, seed=0):
    rng = np.random.default_rng(seed)
    drawn_NPD = rng.dirichlet(np.ones(3), (count, 2))
    return (drawn_NPD * LENGTHS[None, :, None]).reshape(count, -1)


def losses(cells_NC, ratio):
    seen_ND = cells_NC[:, :3] + ratio * cells_NC[:, 3:]
    seen_ND = seen_ND / seen_ND.sum(axis=1, keepdims=True)
    return 2.0 + (0.05 + seen_ND) ** -0.3


@pytest.fixture(scope="module")
def fitted():
    weights_NC = cells(48)
    both = np.hstack([losses(weights_NC, 1.0), losses(weights_NC, 8.0)])
    return PhasesRegressor().fit(weights_NC, both)


def test_each_loss_has_its_own_ratio(fitted):
    assert fitted.ratio_M.tolist() == [1, 1, 1, 8, 8, 8]


def test_unseen_mixtures_are_predicted(fitted):
    new_NC = cells(20, seed=1)
    true = np.hstack([losses(new_NC, 1.0), losses(new_NC, 8.0)])
    error = np.abs(fitted.predict(new_NC) - true).mean()
    means_NM, stds_NM = fitted.predict(new_NC[:1], return_std=True)
    assert [means_NM[0, 3], stds_NM[0, 3]] == pytest.approx([3.5977, 0.0014575], rel=2e-3)
    assert error < 0.2 * np.abs(true - true.mean(axis=0)).mean()


def test_the_slope_is_that_of_the_predictions_within_phases(fitted):
    point_C, step = cells(1, seed=2)[0], 1e-5
    slope_MC = fitted.gradient(point_C)
    for first, second in ((0, 1), (3, 5), (4, 5)):
        move_C = np.zeros(6)
        move_C[first], move_C[second] = step, -step
        there, back = fitted.predict(np.stack([point_C + move_C, point_C - move_C]))
        np.testing.assert_allclose(slope_MC @ move_C, (there - back) / 2, rtol=1e-2, atol=1e-8)


def test_a_fit_is_read_as_it_was_written(fitted, tmp_path):
    fitted.save(tmp_path)
    new_NC = cells(5, seed=3)
    again = PhasesRegressor.load(tmp_path).predict(new_NC)
    np.testing.assert_allclose(again, fitted.predict(new_NC), rtol=1e-6)
    np.testing.assert_allclose(fitted.select([4, 0]).predict(new_NC), again[:, [4, 0]], rtol=1e-6)


def test_trials_without_phases_are_fitted_as_a_law_without():
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    fitted = PhasesRegressor().fit(weights_ND, weights_ND @ np.arange(4.0))
    assert fitted.phases_ == 1
    assert fitted.ratio_M.tolist() == [1.0]
