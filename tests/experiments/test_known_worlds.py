"""Known worlds: the truth is a function of the mixture, the optimum is one, noise is as stated."""

from __future__ import annotations

import numpy as np
import pytest
from experiment_modules import experiment

from mixopt.fitting import Repetition

worlds = experiment("published", "known_worlds")
KINDS = tuple(worlds.KINDS)


@pytest.fixture(scope="module", params=KINDS)
def world(request):
    return worlds.known_world(request.param, 1)


def test_a_world_is_the_same_whenever_its_seed_is(world):
    again = worlds.known_world(world.kind, 1)
    weights_ND = world.random(20, 0)
    assert (again.random(20, 0) == weights_ND).all()
    assert (again.truth(weights_ND) == world.truth(weights_ND)).all()
    assert again.train(weights_ND, 3).table.equals(world.train(weights_ND, 3).table)


def test_the_optimum_is_found_again():
    first, again = (worlds.known_world("plain", 3) for _ in range(2))
    assert (first.optimum == again.optimum).all()


def test_another_seed_is_another_world(world):
    other = worlds.known_world(world.kind, 2)
    weights_ND = world.random(20, 0)
    assert np.abs(other.truth(weights_ND) - world.truth(weights_ND)).max() > 0.1


def test_the_optimum_is_allowed_and_better_than_a_hundred_thousand_random_mixtures(world):
    rng = np.random.default_rng(5)
    wide_ND = rng.dirichlet(np.full(len(world.domains), 0.5), 100_000)
    wide_ND = world.constraints.simplex.inside(wide_ND)
    assert world.values(wide_ND).min() > world.best
    assert world.constraints.simplex.project(world.optimum) == pytest.approx(world.optimum)
    assert world.regret(world.optimum) == 0.0


def test_no_small_step_from_the_optimum_is_better(world):
    rng = np.random.default_rng(6)
    steps_ND = world.optimum + 1e-3 * rng.standard_normal((2_000, len(world.domains)))
    near_ND = np.array([world.constraints.simplex.project(step_D) for step_D in steps_ND])
    assert world.values(near_ND).min() > world.best - 1e-6


def test_the_noise_of_each_loss_is_a_twentieth_of_its_spread_over_random_mixtures(world):
    weights_ND = np.tile(world.natural.array, (4_000, 1))
    noise_NM = world.train(weights_ND, 0).losses() - world.truth(weights_ND)
    spread_M = world.truth(world.random(worlds.RANDOM, 99)).std(axis=0)
    assert noise_NM.mean(axis=0) == pytest.approx(np.zeros(len(spread_M)), abs=0.004)
    # Both deviations are estimates; spreads of 2,000 skewed mixtures differ by a tenth.
    assert noise_NM.std(axis=0) == pytest.approx(0.05 * spread_M, rel=0.2)


def test_the_noise_of_a_decision_is_far_below_the_regrets_of_poor_ones(world):
    columns = world.objective.columns
    noise = np.sqrt((world.deviations_M[columns] ** 2).sum()) / len(columns)
    uniform_D = np.full(len(world.domains), 1.0 / len(world.domains))
    assert world.regret(world.natural.array) > 5 * noise
    assert world.regret(uniform_D) > 2 * noise


def test_noise_can_be_set():
    quiet = worlds.known_world("plain", 1, noise=0.0)
    weights_ND = quiet.random(10, 0)
    assert quiet.train(weights_ND, 0).losses() == pytest.approx(quiet.truth(weights_ND))


def test_a_later_round_goes_on_where_the_one_before_it_ended(world):
    weights_ND = world.random(12, 0)
    all_at_once = world.train(weights_ND, 4).table
    later = world.train(weights_ND[8:], 4, first=8).table
    assert later.equals(all_at_once[8:])


def test_the_first_random_mixtures_are_the_same_for_any_count(world):
    assert (world.random(30, 2)[:10] == world.random(10, 2)).all()


def test_random_mixtures_are_allowed(world):
    weights_ND = world.random(500, 3)
    assert weights_ND.sum(axis=1) == pytest.approx(np.ones(500))
    assert (weights_ND <= world.constraints.upper_D + 1e-9).all()


def test_trials_of_repetition_say_how_often_they_repeat():
    world = worlds.known_world("repetition", 1)
    known = Repetition.of_trials(world.train(world.random(8, 0), 0), world.inventory)
    assert known.tokens == world.tokens
    shares = {name: size / sum(known.inventory) for name, size in world.inventory.items()}
    assert shares == pytest.approx(dict(world.natural))


def test_repeating_a_domain_beyond_its_worth_raises_the_losses():
    world = worlds.known_world("repetition", 1)
    scarce = int(np.argmin(world.natural.array))
    most = world.constraints.upper_D[scarce]
    base_D = np.where(np.arange(8) == scarce, 0.0, world.natural.array)
    rows_ND = np.array([(1 - s) * base_D / base_D.sum() for s in (0.3 * most, most)])
    rows_ND[:, scarce] = 0.3 * most, most
    assert world.values(rows_ND)[1] > world.values(rows_ND)[0]


def test_domains_that_help_only_together_do_nothing_alone():
    terms = worlds.known_world("interaction", 1).terms
    one, other = terms.pairs_P2[0]
    alone_ND = np.zeros((1, 10))
    alone_ND[0, one] = 1.0
    both_ND = np.zeros((1, 10))
    both_ND[0, [one, other]] = 0.5
    no_worth = worlds._Terms(**{**vars(terms), "worth_MD": 0.0 * terms.worth_MD})
    silent = no_worth.floor_M + no_worth.height_M * no_worth.rest_M**-no_worth.decay_M
    assert no_worth.losses(alone_ND, None)[0] == pytest.approx(silent)
    assert (no_worth.losses(both_ND, None)[0] < silent).any()
