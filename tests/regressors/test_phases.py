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


def both(cells_NC):
    return np.hstack([losses(cells_NC, 1.0), losses(cells_NC, 8.0)])


@pytest.fixture(scope="module")
def fitted():
    return PhasesRegressor().fit(cells(48), both(cells(48)))


def test_each_loss_has_its_own_ratio_and_unseen_mixtures_are_predicted(fitted, tmp_path):
    assert fitted.ratio_M.tolist() == [1, 1, 1, 8, 8, 8]
    new_NC = cells(20, seed=1)
    means_NM, stds_NM = fitted.predict(new_NC, return_std=True)
    seen_ND = new_NC[:, :3] + 8.0 * new_NC[:, 3:]
    alone = fitted.laws_[8.0].predict(seen_ND / seen_ND.sum(axis=1)[:, None], return_std=True)
    assert np.stack([means_NM, stds_NM])[:, :, 3:] == pytest.approx(np.stack(alone))
    error, spread = (np.abs(both(new_NC) - x).mean() for x in (means_NM, both(new_NC).mean(axis=0)))
    assert error < 0.2 * spread
    fitted.save(tmp_path)
    reloaded = PhasesRegressor.load(tmp_path).predict(new_NC)
    np.testing.assert_allclose(reloaded, means_NM, rtol=1e-6)
    np.testing.assert_allclose(
        fitted.select([4, 0]).predict(new_NC), reloaded[:, [4, 0]], rtol=1e-6
    )


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 5), (4, 5)])
def test_the_slope_is_that_of_the_predictions_within_phases(fitted, first, second):
    point_C, move_C = cells(1, seed=2)[0], 1e-5 * (np.eye(6)[first] - np.eye(6)[second])
    there, back = fitted.predict(np.stack([point_C + move_C, point_C - move_C]))
    slope_M = fitted.gradient(point_C) @ move_C
    np.testing.assert_allclose(slope_M, (there - back) / 2, rtol=1e-2, atol=1e-8)


def test_trials_without_phases_are_fitted_as_a_law_without():
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    fitted = PhasesRegressor().fit(weights_ND, weights_ND @ np.arange(4.0))
    assert fitted.phases_ == 1
    assert fitted.ratio_M.tolist() == [1.0]
