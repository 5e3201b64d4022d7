"""Known worlds, regrets of what is proposed in them, and the procedures of others."""

import os
import subprocess
import sys

import numpy as np
import pytest
from places import EXPERIMENTS, experiment

peers = experiment("published", "peer_procedures")
worlds = experiment("published", "known_worlds")
NATURAL_D = np.array([0.5, 0.3, 0.2])
ANY_D = np.ones(3)


@pytest.mark.nightly
def test_the_smallest_setting_prints_a_row_for_each_way():
    script = EXPERIMENTS / "published" / "decisions.py"
    args = ["--worlds", "plain", "--trials", "12", "--seeds", "1", "--processes", "1"]
    command, environment = [sys.executable, script, *args], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.check_output(command, env=environment, text=True, timeout=400)
    rows = [line.split("|")[2].strip() for line in done.splitlines() if "| 12 |" in line]
    controls = ["best trial", "natural", "uniform"]
    assert rows == ["mixopt", "RegMix", "Olmix", *controls, "mixopt in rounds"]


def test_regmix_with_fewer_than_forty_trials_cannot_split_and_proposes_the_mean_of_draws():
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 39)
    fit = peers.RegMixFit.of(weights_ND, weights_ND[:, 0])
    assert np.ptp(fit.predict(weights_ND)) == 0.0
    drawn_ND = np.random.default_rng(4).dirichlet(NATURAL_D, 1_000)
    found_D = fit.proposal(NATURAL_D, ANY_D, seed=4, draws=1_000)
    assert found_D == pytest.approx(drawn_ND[:128].mean(axis=0))


def test_olmix_finds_a_log_linear_law():
    seen_ND, unseen_ND = (np.random.default_rng(k).dirichlet(np.ones(3), 60) for k in range(2))
    slopes_DM = np.array([[0.5, -1.0], [-2.0, 0.3], [1.0, -0.5]])
    fit = peers.OlmixFit.of(seen_ND, 1.5 + np.exp(seen_ND @ slopes_DM))
    truth_NM = 1.5 + np.exp(unseen_ND @ slopes_DM)
    assert fit.predict(unseen_ND) == pytest.approx(truth_NM, abs=0.01)


def test_olmix_minimises_the_mean_and_the_divergence():
    fit = peers.OlmixFit(np.array([[0.0, 1.0, -1.0, 0.0]]))
    found_D = fit.proposal(NATURAL_D, ANY_D, np.ones(1))
    drawn_ND = np.random.default_rng(0).dirichlet(np.ones(3), 20_000)
    both_ND = np.vstack([found_D, drawn_ND])
    ratios_ND = np.maximum(both_ND, 1e-12) / NATURAL_D
    divergence_N = (both_ND * np.log(ratios_ND)).sum(axis=1)
    assert (fit.predict(both_ND)[:, 0] + peers.KL * divergence_N).argmin() == 0


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
