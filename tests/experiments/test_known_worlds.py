"""Known worlds: the truth is a function of the mixture, the optimum is one, noise is as stated."""

from __future__ import annotations

import numpy as np
import pytest
from experiment_modules import experiment

worlds = experiment("published", "known_worlds")


@pytest.fixture(scope="module", params=["plain", "repetition"])
def world(request):
    return worlds.known_world(request.param, 1)


def test_a_world_is_the_same_whenever_its_seed_is(world):
    again = worlds.known_world(world.kind, 1)
    weights_ND = world.random(20, 0)
    assert (again.random(20, 0) == weights_ND).all()
    assert (again.truth(weights_ND) == world.truth(weights_ND)).all()
    assert again.train(weights_ND, 3).table.equals(world.train(weights_ND, 3).table)


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


def test_repeating_a_domain_beyond_its_worth_raises_the_losses():
    world = worlds.known_world("repetition", 1)
    scarce = int(np.argmin(world.natural.array))
    most = world.constraints.upper_D[scarce]
    base_D = np.where(np.arange(8) == scarce, 0.0, world.natural.array)
    rows_ND = np.array([(1 - s) * base_D / base_D.sum() for s in (0.3 * most, most)])
    rows_ND[:, scarce] = 0.3 * most, most
    assert world.values(rows_ND)[1] > world.values(rows_ND)[0]
