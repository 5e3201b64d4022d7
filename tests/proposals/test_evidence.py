"""How sure a proposal is: intervals, stability and optimism, from numbers that are made up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Interval
from mixopt.proposals.best_mixture import (
    _stability as stability_of,
    epochs_of,
    estimate_optimism,
    predicted_gains,
)
from mixopt.proposals.proposal import Stability

OBJECTIVE = Objective(("a", "b"), "target", {"a": 1.0})


class Gains:
    """The objective of the first mixture and gains over others, of a fit that predicts these."""

    def __init__(self, values_K, halves_K, values_BK=None):
        high_N = np.array(values_K) + np.array(halves_K)
        predicted = SimpleNamespace(objective_N=np.array(values_K), objective_high_N=high_N)
        fit = SimpleNamespace(predict=lambda points_KD, objective: predicted)
        again = None if values_BK is None else np.array(values_BK, dtype=float)
        found = predicted_gains(fit, OBJECTIVE, np.eye(len(values_K)), again)
        self.own, self.gains = found

    def proposal(self):
        return self.own

    def gain(self, place):
        return self.gains[place - 1]


confidence = Gains


def test_a_gain_is_the_other_mixtures_objective_less_the_proposals():
    gain = confidence([1.0, 1.5, 0.8], [0.3, 0.4, 0.0]).gain(1)
    assert gain == Interval(0.5, 0.0, 1.0)
    assert confidence([1.0, 1.5, 0.8], [0.3, 0.4, 0.0]).gain(2) == Interval(-0.2, -0.5, 0.1)


def test_the_interval_of_the_objective_is_that_of_the_proposal():
    assert confidence([1.0, 1.5], [0.3, 0.4]).proposal() == Interval(1.0, 0.7, 1.3)


def test_the_spread_of_refits_is_added_in_quadrature():
    # Half of the refits are 0.4 above the median of the proposal, half below; 0.3-0.4-0.5.
    values_BK = [[0.6, 1.0], [1.4, 1.8], [0.6, 1.0], [1.4, 1.8]]
    one = confidence([1.0, 1.5], [0.3, 0.0], values_BK)
    assert one.proposal() == Interval(1.0, 0.5, 1.5)
    # The refits agree on the gain, so it has the held-out errors alone.
    assert one.gain(1) == Interval(0.5, 0.2, 0.8)


def test_refits_that_disagree_on_a_gain_widen_its_interval():
    values_BK = [[1.0, 1.1], [1.0, 1.9], [1.0, 1.1], [1.0, 1.9]]
    assert confidence([1.0, 1.5], [0.3, 0.0], values_BK).gain(1) == Interval(0.5, 0.0, 1.0)


def test_the_spread_holds_nine_tenths_of_the_refits():
    values_BK = np.concatenate([np.zeros(9), np.full(2, 7.0)])[:, None]
    assert confidence([0.0], [0.0], values_BK).proposal().high == pytest.approx(7.0)
    values_BK = np.concatenate([np.zeros(19), np.full(1, 7.0)])[:, None]
    assert confidence([0.0], [0.0], values_BK).proposal().high == 0.0


def test_stability_is_the_total_variation_to_the_optimum_of_each_refit():
    mixture = Mixture({"a": 0.5, "b": 0.5})
    optima_BD = [[0.5, 0.5]] * 8 + [[0.6, 0.4]] + [[1.0, 0.0]]
    moved = stability_of(mixture, np.array(optima_BD))
    assert moved == Stability(10, 0.06, 0.14)


def test_epochs_are_those_of_domains_that_are_used():
    mixture = Mixture({"a": 0.75, "b": 0.25, "c": 0.0})
    assert epochs_of(mixture, {"a": 10, "b": 50, "c": 0}, 100) == {"a": 7.5, "b": 0.5, "c": 0.0}
    assert epochs_of(mixture, None, 100) is None
    assert epochs_of(mixture, {"a": 10, "b": 50, "c": 1}, None) is None


def test_optimism_looks_at_a_tenth_of_the_trials_and_at_three_at_least():
    predicted_N = np.arange(50.0)
    observed_N = predicted_N + np.where(np.arange(50) < 5, 1.0, 9.0)
    assert estimate_optimism(predicted_N, observed_N) == 1.0
    few_N = np.arange(6.0)
    observed_N = few_N + np.array([3.0, 3.0, 0.0, 9.0, 9.0, 9.0])
    assert estimate_optimism(few_N, observed_N) == 2.0
