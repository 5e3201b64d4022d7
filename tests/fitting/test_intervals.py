"""Intervals: what share of new errors they hold within the trials' reach and beyond it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_fit import NOISE, fitted, table
from sklearn.linear_model import LinearRegression

from mixopt.fitting.intervals import TrialReach, calibrate, conformal_quantile

NEAR = np.array([0.3, 0.4, 0.3])
WORLDS = 6


def noise(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors of deviations that vary tenfold."""
    rng = np.random.default_rng(seed)
    stds_N = np.exp(rng.uniform(np.log(0.1), 0.0, count))
    return rng.normal(0.0, stds_N), stds_N


def test_new_errors_lie_within_at_the_stated_rate_whether_deviations_tell_or_not():
    (errors_N, stds_N), (new_errors_N, new_stds_N) = noise(400, 0), noise(4000, 1)
    for power in (1, -1):
        halves_N = calibrate(errors_N, stds_N**power).halves(new_stds_N**power)
        assert 0.87 < (np.abs(new_errors_N) <= halves_N).mean() < 0.93


def test_deviations_that_tell_are_believed_and_others_beyond_those_of_the_trials_alone():
    errors_N, stds_N = noise(400, 0)
    assert np.ptp(calibrate(errors_N, stds_N).halves(stds_N)) > 0
    even, most = conformal_quantile(np.abs(errors_N)), 1 / stds_N.min()
    halves_N = calibrate(errors_N, 1 / stds_N).halves(np.array([0.0, most, 2 * most]))
    assert np.allclose(halves_N, [even, even, 2 * even])
    assert (calibrate(errors_N, 1 / stds_N).halves(1 / stds_N) == halves_N[0]).all()
    assert (calibrate(errors_N, 0 * stds_N).halves(np.zeros(3)) == even).all()


def world(seed, name):
    """Return a fit of 24 trials near one mixture, and mixtures and losses from everywhere."""
    helps_DM = np.random.default_rng([seed, 1]).dirichlet(np.ones(3), 4).T
    rng = np.random.default_rng([seed, 2])
    near_ND, everywhere_ND = rng.dirichlet(15 * NEAR, 24), rng.dirichlet(np.ones(3), 300)

    def noisy(weights_ND):
        law_NM = 2.0 + (0.05 + weights_ND**0.7 @ helps_DM) ** -0.5  # which no regressor has
        return law_NM + 0.1 * NOISE * rng.standard_normal(law_NM.shape)

    return fitted(name, trials=table(near_ND, noisy(near_ND))), everywhere_ND, noisy(everywhere_ND)


def test_coverage_is_near_the_stated_one_beyond_the_trials_as_within_by_the_stretch():
    within, beyond, unstretched = [], [], []
    for seed in range(WORLDS):
        fit, weights_ND, losses_NM = world(seed, "gaussian_process")
        found, reach = fit.predict(weights_ND), fit.reach
        inside_N = reach.nearest(weights_ND) <= reach.reach
        halves_NM, errors_NM = found.high_NM - found.losses_NM, np.abs(losses_NM - found.losses_NM)
        within.append((errors_NM <= halves_NM)[inside_N])
        beyond.append((errors_NM <= halves_NM)[~inside_N])
        plain_NM = halves_NM / reach.stretch(weights_ND)[:, None]
        unstretched.append((errors_NM <= plain_NM)[~inside_N])
    assert np.concatenate(within).mean() > 0.8
    share = np.concatenate(beyond).mean()
    assert share > 0.8
    assert np.concatenate(unstretched).mean() < share - 0.15


def test_a_regressor_without_deviations_is_less_sure_beyond_the_trials_too():
    fit, *_ = world(0, "linear")
    weights_ND = fit.data.weights_ND
    regressor = LinearRegression().fit(weights_ND, fit.data.losses_NM)
    plain = replace(fit, fitted=regressor, held_out=fit.held_out.with_columns(std=pl.lit(0.0)))
    found = plain.predict(np.vstack([weights_ND[:1], np.eye(3)]))
    half_N = found.objective_high_N - found.objective_N
    assert (half_N[1:] > 2 * half_N[0]).all()
    assert half_N[0] == plain.objective_calibration().factor


def test_within_the_reach_nothing_is_stretched_and_beyond_it_grows_from_there():
    reach = TrialReach(np.array([[0.5, 0.5, 0.0], [0.3, 0.5, 0.2], [0.4, 0.3, 0.3]]))
    assert reach.reach == pytest.approx(0.2)
    assert reach.radius == pytest.approx(0.5 * (0.1 + 0.0667 + 0.1667), abs=1e-3)
    points_ND = np.array([[0.5, 0.5, 0.0], [0.7, 0.3, 0.0], [1.0, 0.0, 0.0]])
    wide = (1 + (0.5 - 0.2) / reach.radius) ** 2
    assert reach.nearest(points_ND) == pytest.approx([0.0, 0.2, 0.5])
    assert reach.stretch(points_ND) == pytest.approx([1.0, 1.0, wide])
    alone = TrialReach(points_ND[[0, 0]])  # one mixture reaches nowhere
    assert (alone.reach, alone.radius) == (0.0, 0.0)
    assert alone.stretch(points_ND).tolist() == [1.0, 1.0, 1.0]
