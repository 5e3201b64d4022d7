"""What a proposal says of its own optimism, held against known worlds."""

from __future__ import annotations

import numpy as np
import pytest
from experiment_modules import experiment

from mixopt.proposals.optimism import estimate_optimism

worlds = experiment("published", "known_worlds")
optimism = experiment("published", "optimism")


@pytest.mark.parametrize("bias", [0.1, -0.1])
def test_the_estimate_agrees_with_a_known_world_within_a_factor_of_one_and_a_half(bias):
    # A law that is right about poor mixtures and too good by `bias` about the best quarter.
    world = worlds.known_world("plain", 3)
    weights_ND = world.random(200, 0)
    observed_N = world.objective.value(world.train(weights_ND, 0).losses())
    truth_N = world.values(weights_ND)
    good_N = truth_N < np.quantile(truth_N, 0.25)
    predicted_N = truth_N - bias * good_N
    found = estimate_optimism(predicted_N, observed_N).estimate
    assert found == pytest.approx(bias, rel=0.5)


def test_the_noise_of_trials_is_not_taken_for_optimism():
    world = worlds.known_world("plain", 3)
    weights_ND = world.random(400, 0)
    found = []
    for seed in range(20):
        observed_N = world.objective.value(world.train(weights_ND, seed).losses())
        found.append(estimate_optimism(world.values(weights_ND), observed_N).estimate)
    columns = world.objective.columns
    noise = np.sqrt((world.deviations_M[columns] ** 2).sum()) / len(columns)
    # 20 x 40 trials; chosen by what was observed, they would be off by more than the noise.
    assert abs(np.mean(found)) < 4 * noise / np.sqrt(800)


def test_a_promise_holds_the_estimates_beside_the_truth():
    found = optimism.promise("plain", 1, 30, "log_linear", 2)
    assert set(found.estimates) == {"mixopt", "nearest", "refits"}
    assert found.kind == "plain"
    assert abs(found.actual) < 0.5
    assert found.estimates["mixopt"] != 0.0
