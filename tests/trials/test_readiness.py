"""Whether trials tell mixtures apart on a loss: the ratio, its bound, and what is left out."""

from dataclasses import replace

import numpy as np
import pytest
from made_fit import TARGETS, table

from mixopt.errors import ConfigError
from mixopt.objective import Objective
from mixopt.trials import Replicates, readiness_of, settled

SIGNALS = np.array([3.0, 1.25, 0.3, 0.0])  # of each loss, in units of the noise


def made(mixtures=40, replicates=2, seed=0, signals=SIGNALS):
    """Trials whose losses have these signals; each mixture is trained so many times."""
    rng = np.random.default_rng(seed)
    weights_KD = rng.dirichlet(np.ones(3), mixtures)
    true_KM = rng.standard_normal((mixtures, len(signals))) * signals
    losses_NM = np.repeat(true_KM, replicates, axis=0)
    losses_NM = 20.0 + losses_NM + rng.standard_normal(losses_NM.shape)
    return table(np.repeat(weights_KD, replicates, axis=0), losses_NM)


def found(trials):
    return readiness_of(trials, trials.losses(), trials.targets)


def test_the_ratio_is_that_of_signal_and_noise_and_a_state_that_of_the_ratio():
    assert [item.state for item in found(made())] == ["ready", "weak", "noise", "noise"]
    ready = found(made(mixtures=2000))
    assert [item.ratio for item in ready[:2]] == pytest.approx([3.0, 1.25], rel=0.1)
    assert [item.noise for item in ready] == pytest.approx([1.0] * 4, rel=0.05)
    assert ready[0].spread == pytest.approx(np.sqrt(10.0), rel=0.1)


def test_the_lower_bound_holds_in_19_of_20_sets_of_trials():
    lows = [item.low for seed in range(60) for item in found(made(12, 2, seed, np.full(4, 1.5)))]
    below = np.mean(np.array(lows) <= 1.5)
    assert 0.90 <= below <= 0.99  # 240 draws: 0.95 has a standard error of 0.014


def test_without_replicates_of_one_size_nothing_is_known_but_the_spread():
    trials = made(replicates=1)
    first = found(trials)[0]
    assert (first.noise, first.ratio, first.low, first.state) == (None, None, None, "unknown")
    assert first.spread == pytest.approx(trials.losses()[:, 0].std(ddof=1))
    assert Replicates.of(trials).describe().startswith("no mixture was trained twice")
    two = replace(trials := made(), table=trials.table.with_columns(tokens=np.tile([10, 90], 40)))
    assert Replicates.of(two).trials == 0


def objective(**fields):
    weights = dict.fromkeys(TARGETS, 0.25)
    return Objective(TARGETS, "mean", weights, "nats_per_token", leave_out="noise", **fields)


def test_noise_is_left_out_once_and_not_without_replicates_or_where_all_is_noise():
    trials = made()
    once = settled(objective(), trials)
    assert once.left_out == TARGETS[2:]
    assert once.weights == {TARGETS[0]: 0.5, TARGETS[1]: 0.5}
    assert settled(once, trials) == once
    assert settled(objective(scale="spread"), trials).spreads.keys() == set(TARGETS[:2])
    with pytest.raises(ConfigError, match="objective.noise: leave_out: no mixture was trained tw"):
        settled(objective(), made(replicates=1))
    with pytest.raises(
        ConfigError, match="objective.noise: leave_out leaves nothing of the mean of"
    ):
        settled(objective(), made(signals=np.zeros(4)))
