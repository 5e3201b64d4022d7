"""Known worlds: the truth is a function of the mixture, the optimum is one, noise is as stated."""

from __future__ import annotations

import numpy as np
import pytest
from places import experiment

worlds = experiment("published", "known_worlds")


@pytest.fixture(scope="module", params=["plain", "repetition"])
def world(request):
    return worlds.known_world(request.param, 1)


def test_the_optimum_is_allowed_and_better_than_a_hundred_thousand_random_mixtures(world):
    rng = np.random.default_rng(5)
    wide_ND = rng.dirichlet(np.full(len(world.domains), 0.5), 100_000)
    wide_ND = world.constraints.simplex.inside(wide_ND)
    assert world.values(wide_ND).min() > world.best
    assert world.constraints.simplex.project(world.optimum) == pytest.approx(world.optimum)
    assert world.regret(world.optimum) == 0.0


def test_the_noise_of_each_loss_is_a_twentieth_of_its_spread_over_random_mixtures(world):
    weights_ND = np.tile(world.natural.array, (4_000, 1))
    noise_NM = world.train(weights_ND, 0).losses() - world.truth(weights_ND)
    spread_M = world.truth(world.random(worlds.RANDOM, 99)).std(axis=0)
    assert noise_NM.mean(axis=0) == pytest.approx(np.zeros(len(spread_M)), abs=0.004)
    # Both deviations are estimates; spreads of 2,000 skewed mixtures differ by a tenth.
    assert noise_NM.std(axis=0) == pytest.approx(0.05 * spread_M, rel=0.2)
