"""The regret of what the first n trials would have picked, as the fit of all trials sees it."""

import numpy as np
import pytest
from made_fit import fitted

from mixopt.errors import TrialsError
from mixopt.fitting import fit_regressor, regret_by_trials


@pytest.fixture(scope="module")
def fit():
    return fitted("linear")


def test_the_regret_of_all_trials_is_0_and_none_is_below_0(fit):
    table = regret_by_trials(fit)
    assert table["trials"][-1] == len(fit.trials)
    assert table["law"][-1] == 0
    assert table["law"].min() >= 0
    assert table["best_trial"].min() >= 0


def test_the_pick_of_the_first_trials_is_that_of_a_fit_of_them_alone(fit):
    table = regret_by_trials(fit, [7])
    weights_ND, losses_NM = fit.trials.weights(), fit.data.losses_NM
    alone = fit_regressor("linear", fit.unfitted(), weights_ND[:7], losses_NM[:7])
    pick = np.argmin(fit.objective.value(alone.predict(weights_ND)))
    final_N = fit.predict(weights_ND).objective_N
    assert table["law"][0] == pytest.approx(final_N[pick] - final_N.min())


def test_a_refit_keeps_what_the_fit_chose_and_chooses_nothing_anew(monkeypatch):
    chosen = fitted("power", folds=3)
    monkeypatch.setattr(type(chosen), "unfitted", lambda _: pytest.fail("was built anew"))
    weights_ND, losses_NM = chosen.trials.weights(), chosen.data.losses_NM
    again = chosen.regressor.tuned().fit(weights_ND[:12], losses_NM[:12])
    pick = np.argmin(chosen.objective.value(again.predict(weights_ND)))
    final_N = chosen.predict(weights_ND).objective_N
    found = regret_by_trials(chosen, [12])["law"][0]
    assert found == pytest.approx(final_N[pick] - final_N.min())


def test_the_best_trial_is_the_one_that_was_observed_best_among_the_first(fit):
    table = regret_by_trials(fit, [9])
    best = np.argmin(fit.objective.value(fit.data.losses_NM)[:9])
    final_N = fit.predict(fit.trials.weights()).objective_N
    assert table["best_trial"][0] == pytest.approx(final_N[best] - final_N.min())


@pytest.mark.parametrize("count", [5, 29])
def test_a_number_of_trials_that_cannot_be_fitted_is_refused(fit, count):
    with pytest.raises(TrialsError, match=rf"regret of {count} trials: .* from 6 to 28"):
        regret_by_trials(fit, [count])
