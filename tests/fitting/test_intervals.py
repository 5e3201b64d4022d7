"""Intervals: what share of new errors they hold, and whose deviations they believe."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.fitting.intervals import calibrate, conformal_quantile


def noise(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors of deviations that vary tenfold."""
    rng = np.random.default_rng(seed)
    stds_N = np.exp(rng.uniform(np.log(0.1), 0.0, count))
    return rng.normal(0.0, stds_N), stds_N


@pytest.mark.parametrize("honest", [True, False])
def test_new_errors_lie_within_at_the_stated_rate(honest):
    errors_N, stds_N = noise(400, 0)
    new_errors_N, new_stds_N = noise(4000, 1)
    claimed_N, new_claimed_N = (stds_N, new_stds_N) if honest else (1 / stds_N, 1 / new_stds_N)
    halves_N = calibrate(errors_N, claimed_N).halves(new_claimed_N)
    assert 0.87 < (np.abs(new_errors_N) <= halves_N).mean() < 0.93


def test_deviations_that_tell_are_believed_and_others_are_not():
    errors_N, stds_N = noise(400, 0)
    assert np.ptp(calibrate(errors_N, stds_N).halves(stds_N)) > 0
    assert np.ptp(calibrate(errors_N, 1 / stds_N).halves(1 / stds_N)) == 0


def test_deviations_that_do_not_tell_count_beyond_those_of_the_trials():
    errors_N, stds_N = noise(400, 0)
    claimed_N = 1 / stds_N
    most = claimed_N.max()
    halves_N = calibrate(errors_N, claimed_N).halves(np.array([0.0, most, 2 * most]))
    even = conformal_quantile(np.abs(errors_N))
    assert np.allclose(halves_N, [even, even, 2 * even])


def test_a_regressor_without_deviations_gets_one_width():
    errors_N, _ = noise(50, 0)
    halves_N = calibrate(errors_N, np.zeros(50)).halves(np.zeros(3))
    assert np.array_equal(halves_N, np.full(3, conformal_quantile(np.abs(errors_N))))
