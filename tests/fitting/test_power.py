"""Whether arms can be told apart before they are trained."""

import numpy as np
import pytest
from refusals import refuses

from mixopt.errors import ConfigError
from mixopt.fitting import power
from mixopt.fitting.power import critical_difference


def test_what_is_claimed_is_realised_in_simulated_sweeps():
    noise, worlds = 0.012, 4000

    def realised(spread, arms, seeds):
        rng = np.random.default_rng(0)
        true = spread * rng.standard_normal((worlds, arms + 1))
        true[:, 0] = 0.0
        runs = true + noise / np.sqrt(seeds) * rng.standard_normal(true.shape)
        seen = runs[:, 1:].max(axis=1) - runs[:, 0] > critical_difference(noise, arms, seeds=seeds)
        return pytest.approx(seen.mean(), abs=0.03)

    assert power(noise, 0.03, 1, seeds=1).power == realised(0.03, 1, 1)
    assert power(noise, 0.01, 24, seeds=3).power == realised(0.01, 24, 3)


def test_without_a_spread_the_power_is_the_level_and_arguments_out_of_range_are_named():
    assert power(0.01, 0.0, 8).power == pytest.approx(0.05, abs=1e-6)
    assert power(0.01, 0.0, 8).seeds is None
    refuses(ConfigError, "noise is -1.0", power, -1.0, 0.1, 8)
    refuses(ConfigError, "arms", power, 1, 1, 0)


def test_the_needed_arms_seeds_and_questions_reach_the_goal_and_one_less_does_not():
    found = power(0.02, 0.03, 12, items=500)
    assert power(0.02, 0.03, found.arms).power >= 0.8 > power(0.02, 0.03, found.arms - 1).power
    fewer = power(0.02, 0.03, 12, seeds=found.seeds - 1).power
    assert power(0.02, 0.03, 12, seeds=found.seeds).power >= 0.8 > fewer
    assert found.items == 500 * found.seeds
