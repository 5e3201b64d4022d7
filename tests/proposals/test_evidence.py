"""How sure a proposal is: gains, what is held back, stability, and mixtures that are as good."""

from types import SimpleNamespace

import numpy as np
import pytest
from made_fit import fitted, table

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.fitting.intervals import held_back
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals.best_mixture import epochs_of, predicted_gains
from mixopt.proposals.search import Problem, near_best

DOMAINS = ("a", "b", "c")
TARGET = Objective(("loss",), "target", {"loss": 1.0})
NATURAL = Mixture({"a": 0.5, "b": 0.3, "c": 0.2})
NOISE = 0.02
RNG = np.random.default_rng(3)
DRAWN_ND = np.vstack([RNG.dirichlet(np.ones(3), 20), np.tile(NATURAL.array, (3, 1))])


def made_fit(weights_ND=DRAWN_ND, domains=DOMAINS):
    """Fit a law that is linear; the last three trials, of one mixture, were all unlucky."""
    values_N = 2.0 - weights_ND[:, 0] + NOISE * RNG.standard_normal(len(weights_ND))
    values_N[-3:] = 1.55
    return fitted("linear", trials=table(weights_ND, values_N, domains, ("loss",)), goal=TARGET)


FIT = made_fit()
BETTER = Mixture({"a": 0.7, "b": 0.2, "c": 0.1})


def test_a_gain_is_measured_from_the_trials_of_a_baseline_and_less_sure_where_it_has_none():
    even = Mixture.uniform(DOMAINS)
    gains = predicted_gains(FIT, TARGET, BETTER, {"natural": NATURAL, "even": even})
    value, natural, other = FIT.predict([BETTER, NATURAL, even], TARGET).objective_N
    assert gains["natural"].mean == pytest.approx(1.55 - value, abs=1e-6)
    assert natural < 1.55 - NOISE / 4
    assert gains["even"].mean == pytest.approx(other - value, abs=1e-6)
    known, unknown = (gain.high - gain.low for gain in gains.values())
    assert unknown == pytest.approx(np.sqrt(2) * known, rel=1e-3)
    (none,) = predicted_gains(FIT, TARGET, NATURAL, {"natural": NATURAL}).values()
    assert (none.mean, none.low, none.high, none.verdict) == (0.0, 0.0, 0.0, "same mixture")
    corner = Mixture({"a": 1.0, "b": 0.0, "c": 0.0})  # beyond the trials
    wider = FIT.gain_half(corner, TARGET) / FIT.gain_half(NATURAL, TARGET)
    assert wider == pytest.approx(1.11687, rel=1e-4)


def test_huge_held_out_errors_at_corners_do_not_make_every_gain_unsure():
    weights_ND = np.vstack([np.eye(3), np.random.default_rng(0).dirichlet([4, 4, 4], 14)])
    values_N = 1.0 + 0.01 / (weights_ND[:, 0] + 1e-3)
    trials = table(weights_ND, values_N, DOMAINS, ("loss",))
    fit = fitted("gaussian_process", trials=trials, goal=TARGET)
    prediction = fit.predict(NATURAL, TARGET)
    half = float(prediction.objective_high_N[0] - prediction.objective_N[0])
    assert fit.gain_half(NATURAL, TARGET) == pytest.approx(half, rel=1e-9)
    assert half < 0.2 * np.abs(fit.errors.of_objective(TARGET)).max()


def test_predictions_beyond_the_best_trial_keep_their_order_and_lose_half_of_the_error_at_most():
    values_N = np.linspace(0.0, 2.0, 200)
    shown_N = held_back(values_N, best=1.0, error=0.1)
    assert (np.diff(shown_N) > 0).all()
    assert (shown_N[values_N >= 1.0] == values_N[values_N >= 1.0]).all()
    assert 0.04 < shown_N[0] - values_N[0] < 0.05


def test_fewer_mixtures_than_domains_say_which_domains_they_measure():
    shares_N = np.linspace(0.1, 0.7, 7)
    rest_ND = np.outer(1 - shares_N, np.full(9, 1 / 9))
    fit = made_fit(np.column_stack([shares_N, rest_ND]), "abcdefghij")
    assert "7 mixtures cannot tell 10 domains apart: they measure a alone" in fit.thin_evidence()
    assert fit.thin_evidence() in fit.summary()
    assert FIT.thin_evidence() is None


def test_epochs_are_those_of_domains_that_are_used():
    mixture = Mixture({"a": 0.75, "b": 0.25, "c": 0.0})
    assert epochs_of(mixture, {"a": 10, "b": 50, "c": 0}, 100) == {"a": 7.5, "b": 0.5, "c": 0.0}
    assert epochs_of(mixture, None, 100) is None
    assert epochs_of(mixture, {"a": 10, "b": 50, "c": 1}, None) is None


@pytest.mark.parametrize("most_a", [1.0, 0.55])
def test_a_region_reaches_as_far_as_noise_and_limits_allow(most_a):
    best_D = np.array([0.5, 0.3, 0.2])
    bowl = SimpleNamespace(predict=lambda w_ND: ((w_ND - best_D) ** 2).sum(axis=1))
    limits = ConstraintsConfig(bounds={"a": (0.0, most_a)})
    allowed = Constraints.from_config(limits, dict.fromkeys(DOMAINS, 1)).allowed
    problem = Problem(bowl, TARGET, allowed, best_D, best_D[None])
    low_D, high_D = near_best(problem, best_D, noise=0.015)
    # One share moves by 0.1 where the two others make room evenly.
    assert low_D == pytest.approx(best_D - 0.1, abs=0.01)
    assert high_D == pytest.approx([min(0.6, most_a), 0.4, 0.3], abs=0.01)


def test_a_region_has_the_ends_of_a_flat_law_and_reaches_up_where_it_reaches_no_lower():
    best_D, flat = np.array([0.5, 0.5, 0.0]), SimpleNamespace(predict=lambda w_ND: w_ND[:, 2])
    allowed = Constraints.from_config(ConstraintsConfig(), dict.fromkeys(DOMAINS, 1)).allowed
    low_D, high_D = near_best(Problem(flat, TARGET, allowed, best_D, best_D[None]), best_D, 0.25)
    assert [*low_D, *high_D] == pytest.approx([0, 0, 0, 1, 1, 0.25], abs=1e-9)
