"""Our regressors keep the promises of a regressor, and their own."""

import numpy as np
import pytest
from mixing_law import law, mixtures
from mixopt_regressors.boosted import LightGBMRegressor
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.laws import EpochsRegressor, LogLinearRegressor
from mixopt_regressors.laws.log_linear import fitted
from mixopt_regressors.linear import LinearRegressor

from mixopt.errors import ConfigError, PluginError, TrialsError
from mixopt.fitting import read_regressor
from mixopt.system import load_plugin, plugin_names
from mixopt.testing import check_regressor

ALL = [LinearRegressor, LogLinearRegressor, LightGBMRegressor]


@pytest.mark.parametrize(
    "name",
    [  # one that fits several others takes long
        pytest.param(name, marks=[pytest.mark.nightly] * (name == "auto"))
        for name in plugin_names("regressor")
    ],
)
def test_every_installed_regressor_keeps_its_promises(name):
    check_regressor(load_plugin("regressor", name))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (LinearRegressor, [2.2539, 2.1954, 0.1912, 0.12617]),
        (LogLinearRegressor, [2.2631, 2.1939, 0.084968, 0.10973]),
        (LightGBMRegressor, [2.3318, 2.2588, 0.25374, 0.13317]),
    ],
)
def test_a_fit_of_fixed_trials_predicts_what_it_did(kind, expected):
    fitted = kind().fit(mixtures(32, domains=3), law(mixtures(32, domains=3), noise=0.1))
    means, stds = fitted.predict([[0.5, 0.3, 0.2]], return_std=True)
    assert [*means[0], *stds[0]] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "trials", "domains"),
    [*((kind, 6, 12) for kind in ALL), *((GaussianProcessRegressor, 2, n) for n in (1, 6))],
)
def test_predictions_are_finite_with_fewer_trials_than_domains(kind, trials, domains):
    weights_ND = mixtures(trials, domains)
    fitted = kind().fit(weights_ND, law(weights_ND))
    means, stds = fitted.predict(mixtures(200, domains, seed=1), return_std=True)
    assert np.isfinite(means).all()
    assert (stds > 0).all()
    assert kind is LightGBMRegressor or np.isfinite(fitted.gradient(np.eye(domains)[0])).all()


def test_input_that_cannot_be_fitted_predicted_or_read_is_named(tmp_path):
    weights_ND, losses_NM = mixtures(20), law(mixtures(20))
    fitted = LinearRegressor().fit(weights_ND, losses_NM)
    fitted.save(tmp_path)
    with pytest.raises(PluginError, match="holds 'LinearRegressor', not 'LogLinearRegressor'"):
        LogLinearRegressor.load(tmp_path)
    with pytest.raises(TrialsError, match="mixtures of 4 domains; the fit has 5"):
        fitted.predict(mixtures(3, domains=4))
    with pytest.raises(TrialsError, match="20 mixtures and 19 rows of losses"):
        LinearRegressor().fit(weights_ND, losses_NM[:-1])
    losses_NM[7, 1] = np.nan
    with pytest.raises(TrialsError, match="losses: row 7, column 1 is nan; drop the row"):
        LinearRegressor().fit(weights_ND, losses_NM)


@pytest.mark.parametrize(
    ("regressor", "message"),
    [
        (EpochsRegressor([1e9, 0, 1e9], 1e9), r"epochs: a domain needs tokens .*\[1000.*, 0, 1000"),
        (EpochsRegressor([1e9] * 3, -1), "got tokens -1 and inventory"),
        (EpochsRegressor([1e9] * 3), "need tokens and an inventory of 3 domains, or neither"),
        (GaussianProcessRegressor(learning_trials=1), "learning_trials is 1; need >= 2"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(regressor, message):
    weights_ND = mixtures(20, domains=3)
    with pytest.raises(ConfigError, match=message):
        regressor.fit(weights_ND, law(weights_ND))


def test_epochs_fits_shares_of_right_answers_of_domains_that_repeat_hundreds_of_times():
    """A solution of these takes more than three steps a column, at which scipy gives up."""
    rng = np.random.default_rng(311)
    weights_ND, shares_N = rng.dirichlet(np.ones(5), 10), rng.integers(150, 290, 10) / 300
    law = EpochsRegressor([2300.0] * 5, 4e6).fit(weights_ND, shares_N[:, None])
    assert np.abs(law.predict(weights_ND)[:, 0] - shares_N).max() < 0.5


def test_a_broken_booster_is_one_line(tmp_path):
    weights_ND = mixtures(40)
    LightGBMRegressor(iterations=5).fit(weights_ND, law(weights_ND)).save(tmp_path)
    (tmp_path / "target-1.txt").write_text("tree\nversion=", encoding="utf-8")
    with pytest.raises(PluginError, match="cannot be read: LightGBMError") as raised:
        read_regressor("lightgbm", tmp_path, LightGBMRegressor())
    assert "\n" not in str(raised.value)


def test_log_linear_ends_where_no_small_change_of_a_parameter_lowers_its_loss():
    weights_ND, penalty = mixtures(30), 0.1
    losses_N = law(weights_ND, noise=0.05)[:, 0]
    losses_N /= losses_N.std()

    def loss(law_P):
        off_N = law_P[0] + np.exp(weights_ND @ law_P[1:]) - losses_N
        held_D = (losses_N.mean() - law_P[0] + 1) * (law_P[1:] - law_P[1:].mean())
        return (off_N**2).sum() + penalty * (held_D**2).sum()

    law_P, _ = fitted(weights_ND, losses_N, penalty)
    for step_P in np.vstack([np.eye(6), -np.eye(6)]) * 1e-2:
        assert loss(law_P + step_P) > loss(law_P) - 1e-4


def test_linear_recovers_a_linear_law_exactly_and_log_linear_a_mixing_law():
    weights_ND, fresh_ND = mixtures(60), mixtures(100, seed=9)
    slopes_DM = np.random.default_rng(2).normal(size=(5, 3))
    fitted = LinearRegressor().fit(weights_ND, weights_ND @ slopes_DM)
    assert np.allclose(fitted.predict(fresh_ND), fresh_ND @ slopes_DM, atol=1e-10)
    losses_KM = law(fresh_ND, targets=4)
    fitted = LogLinearRegressor().fit(weights_ND, law(weights_ND, targets=4))
    # The prior on slopes leaves a trace, far below the spread of the losses.
    assert np.abs(fitted.predict(fresh_ND) - losses_KM).max() < 0.02 * losses_KM.std()


LAW = "mixopt_regressors.laws.log_linear"


def test_log_linear_is_not_pulled_by_one_broken_trial(monkeypatch):
    weights_ND, fresh_ND = mixtures(60), mixtures(100, seed=9)
    broken_N, fresh_K = (law(some, targets=1)[:, 0] for some in (weights_ND, fresh_ND))
    broken_N[3] += 5 * fresh_K.std()
    errors = []
    monkeypatch.setattr(f"{LAW}.PENALTIES", (1e-6,))
    for huber in (3.0, 1e9):
        monkeypatch.setattr(f"{LAW}.HUBER", huber)
        fitted = LogLinearRegressor().fit(weights_ND, broken_N)
        errors.append(np.abs(fitted.predict(fresh_ND) - fresh_K).mean())
    assert errors[0] < 0.2 * errors[1]


def test_lightgbm_stops_early_where_more_trees_only_fit_noise():
    weights_ND = mixtures(40)
    noise_N, law_N = np.random.default_rng(0).standard_normal(40), 3 * weights_ND[:, 0]
    fitted = LightGBMRegressor().fit(weights_ND, np.stack([noise_N, law_N], axis=1))
    assert fitted.trees_M[0] < 100 < fitted.trees_M[1]


def test_a_mixing_law_does_not_explode_where_trials_hardly_varied_a_domain(monkeypatch):
    rng = np.random.default_rng(0)
    most_N1 = 0.96 + 0.01 * rng.random((20, 1))
    weights_ND = np.hstack([most_N1, (1 - most_N1) * rng.dirichlet([1, 1], 20)])
    losses_N1 = 2 + np.exp(400 * (weights_ND[:, :1] - 0.965)) + 0.01 * rng.random((20, 1))
    monkeypatch.setattr(f"{LAW}.PENALTIES", (1e-6,))
    regressor = LogLinearRegressor().fit(weights_ND, losses_N1)
    high = losses_N1.max() + np.ptp(losses_N1)
    assert regressor.predict(np.eye(3)).max() <= high + 1e-9
