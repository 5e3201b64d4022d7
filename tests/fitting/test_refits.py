"""Refits on resampled trials are made as the fit was; the losses are synthetic."""

from __future__ import annotations

import numpy as np
import pytest
from made_fit import table

from mixopt.config import FitConfig
from mixopt.fitting import Fit, ModelSize, Repetition, fit_trials, predict_with_std
from mixopt.fitting.regressor import resampled_rows
from mixopt.objective import Objective
from mixopt.proposals import fit_surrogate
from mixopt.trials import Trials

DOMAINS = ("web", "code", "books")
TARGETS = ("code", "books")
INVENTORY = {"web": 1e9, "code": 2e7, "books": 1e8}
TOKENS = 4e8
SIZES = ((1e6, 1e9), (1e7, 1e10))
NEEDY = "odd_regressors:NeedsEpochs"


def runs(sizes=((1e6, TOKENS),)) -> Trials:
    """Return forty trials, of which the last four repeat the first."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), 40)
    weights_ND[36:] = weights_ND[:4]
    parameters_N1 = np.array([sizes[n % len(sizes)] for n in range(40)])[:, :1]
    losses_NM = 3 - np.sqrt(weights_ND[:, 1:]) + 3 * parameters_N1**-0.1
    losses_NM += 0.02 * rng.standard_normal(losses_NM.shape)
    return table(weights_ND, losses_NM, DOMAINS, TARGETS, sizes)


@pytest.fixture(scope="module")
def trials() -> Trials:
    return runs()


def objective_of():
    return Objective(TARGETS, "mean", dict.fromkeys(TARGETS, 0.5), "nats_per_token")


def fitted(trials, name, **options) -> Fit:
    return fit_trials(trials, FitConfig(regressors=[name], folds=3), objective_of(), 0, **options)


def test_mixtures_are_drawn_with_all_their_replicates():
    mixtures = ["a", "b", "a", "c", "b", "d"]
    for seed in range(20):
        drawn = resampled_rows(mixtures, np.random.default_rng(seed))
        times = [drawn.count(row) for row in range(6)]
        assert times[0] == times[2]
        assert times[1] == times[4]
        assert times[0] + times[1] + times[3] + times[5] == 4


def test_refits_are_of_other_trials_each_and_those_of_some_losses_are_cut_from_them(trials):
    fits = fitted(trials, "linear").resampled([1, 0], count=2, seed=0)
    first, second = (one.predict(trials.weights()) for one in fits.regressors)
    assert not np.allclose(first, second)
    for whole_NM, some in zip((first, second), fits.of([0]), strict=True):
        assert np.allclose(some.predict(trials.weights()), whole_NM[:, [1]], rtol=1e-12)


def test_a_refit_knows_of_epochs_as_the_fit_did(trials):
    fit = fitted(trials, "epochs", repetition=Repetition.of_trials(trials, INVENTORY))
    truth_NM = fit.regressor.predict(trials.weights())
    for one in fit.resampled([0, 1], count=3, seed=0).regressors:
        assert np.abs(one.predict(trials.weights()) - truth_NM).max() < 0.1


def test_a_surrogate_resamples_a_regressor_that_needs_an_inventory(trials):
    known = Repetition.of_trials(trials, INVENTORY)
    surrogate = fit_surrogate(
        trials, objective_of(), FitConfig(regressors=[NEEDY]), repetition=known
    )
    means_N, stds_N = surrogate.moments(trials.weights())
    assert np.allclose(means_N, trials.losses().mean(axis=1), atol=0.1)
    assert 0 < stds_N.max() < 0.1


def test_a_refit_predicts_at_the_size_of_the_fit():
    fit = fitted(runs(SIZES), "scaling", size=ModelSize(1e8, 1e11))
    weights_ND = np.random.default_rng(1).dirichlet(np.ones(3), 10)
    truth_NM = fit.regressor.predict(weights_ND)
    for one in fit.resampled([0, 1], count=2, seed=0).regressors:
        assert np.abs(one.predict(weights_ND) - truth_NM).max() < 0.2


def test_a_refit_of_a_carried_fit_keeps_its_size_and_its_inventory(trials):
    known = Repetition.of_trials(trials, INVENTORY)
    pilots = runs(((1e9, 1e12),))
    few = Trials(pilots.table[:5], pilots.domains, pilots.targets)
    fit = fitted(trials, NEEDY, repetition=known).with_pilots(few)
    truth_NM = fit.regressor.predict(trials.weights())
    for one in fit.resampled([0, 1], count=2, seed=0).regressors:
        assert np.abs(one.predict(trials.weights()) - truth_NM).max() < 0.1
        assert predict_with_std(one, trials.weights())[1].min() > 0
