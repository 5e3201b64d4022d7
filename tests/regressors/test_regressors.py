"""Our regressors keep the promises of a regressor; auto chooses among them by held-out error."""

import numpy as np
import pytest
from mixing_law import law, mixtures
from mixopt_regressors.boosted import LightGBMRegressor
from mixopt_regressors.combinations import AutoRegressor, stacking_weights
from mixopt_regressors.gaussian import GaussianProcessRegressor
from mixopt_regressors.laws import EpochsRegressor, LogLinearRegressor
from mixopt_regressors.laws.log_linear import fitted
from mixopt_regressors.linear import LinearRegressor

from mixopt.errors import ConfigError, PluginError, TrialsError
from mixopt.fitting import grouped_folds, read_regressor, row_groups
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
def test_an_invalid_parameter_is_named(regressor, message):
    weights_ND = mixtures(20, domains=3)
    with pytest.raises(ConfigError, match=message):
        regressor.fit(weights_ND, law(weights_ND))


def test_epochs_fits_shares_of_right_answers_of_domains_that_repeat_hundreds_of_times():
    """A solution takes more than three steps a column, where scipy gives up."""
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


LAWS = ("linear", "log_linear")


def data(rows: int = 40, noise: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Losses of which the first is linear in the weights and the second exponential."""
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), rows)
    straight_N = 3.0 - weights_ND @ [1.0, 0.5, 0.0]
    bent_N = 1.0 + np.exp(-4.0 * weights_ND @ [1.0, 0.3, 0.0])
    noise_NM = noise * rng.standard_normal((rows, 2))
    return weights_ND, np.column_stack([straight_N, bent_N]) + noise_NM


def test_it_predicts_the_weighted_mean_and_members_that_disagree_make_it_less_sure():
    weights_ND, losses_NM = data(noise=0.2)
    both = AutoRegressor(candidates=LAWS).fit(weights_ND, losses_NM)
    mean_NM, std_NM = both.predict(weights_ND, return_std=True)
    alone = [item.predict(weights_ND, return_std=True) for item in both.members_]
    means_CNM, stds_CNM = (np.stack([item[k] for item in alone]) for k in (0, 1))
    shares_CM = both.weights_MC.T[:, None]
    assert np.allclose(mean_NM, (shares_CM * means_CNM).sum(axis=0), rtol=1e-12)
    apart_NM = (shares_CM * (means_CNM - mean_NM) ** 2).sum(axis=0)
    assert np.allclose(std_NM**2, (shares_CM * stds_CNM).sum(axis=0) ** 2 + apart_NM)


def test_each_loss_gets_the_candidate_of_its_law():
    auto = AutoRegressor(candidates=("linear", "log_linear", "lightgbm")).fit(*data(noise=0.0))
    assert auto.weights_MC[1, 1] > 0.9
    assert "log_linear (held-out errors: log_linear 0.0" in auto.explain(["straight", "bent"])[1]
    assert auto.weights_MC[:, 2].max() == 0


def test_what_a_candidate_predicts_for_a_fold_does_not_depend_on_the_folds_losses():
    weights_ND, losses_NM = data(noise=0.1)
    fold_N = grouped_folds(row_groups(weights_ND), 4, 0)
    names, seen = ("linear", "lightgbm"), []
    for up in (0.0, 5.0):
        auto = AutoRegressor(candidates=names)
        auto.cross_fit(weights_ND, losses_NM + up * (fold_N == 0)[:, None], fold_N)
        seen.append([auto.held_out_members[name] for name in names])
    same_CNM = np.equal(*seen)
    assert same_CNM[:, fold_N == 0].all()
    assert not same_CNM[:, fold_N == 1].all(axis=(1, 2)).any()


def test_the_weights_of_a_fold_come_from_the_errors_of_the_others():
    weights_ND, losses_NM = data()
    fold_N = grouped_folds(row_groups(weights_ND), 4, 0)
    auto = AutoRegressor(candidates=LAWS)
    held_out_NM, _ = auto.cross_fit(weights_ND, losses_NM, fold_N)
    means_CNM = np.stack([auto.held_out_members[name] for name in LAWS])
    others_N = fold_N != 2
    weights_MC = stacking_weights((losses_NM - means_CNM)[:, others_N])
    expected_NM = (weights_MC.T[:, None] * means_CNM).sum(axis=0)
    assert np.allclose(held_out_NM[fold_N == 2], expected_NM[fold_N == 2])


def test_the_weights_minimise_the_squared_error_of_the_mean_and_small_ones_are_left_out():
    errors_CNM = np.random.default_rng(0).standard_normal((2, 4000, 1))
    times = np.array([1.0, 2.0])[:, None, None]
    few, many = (stacking_weights(errors_CNM[:, :n] * times, prior=0.0)[0] for n in (8, 4000))
    assert many == pytest.approx([0.8, 0.2], abs=0.02)
    assert few[0] < many[0]
    assert np.array_equal(stacking_weights(errors_CNM * times**2.6), [[1.0, 0.0]])


def test_errors_of_other_targets_count_as_prior_trials():
    errors_CNM = np.ones((2, 10, 2))
    errors_CNM[0, ::2], errors_CNM[1, 1::2] = -1.0, -1.0
    errors_CNM[0, :, 1] *= 3.0
    assert stacking_weights(errors_CNM)[:, 0] == pytest.approx([0.30657, 0.33796], rel=1e-4)
    alone, pooled = (stacking_weights(errors_CNM, prior=trials)[1, 0] for trials in (0.0, 100.0))
    assert alone < pooled


def test_no_default_member_is_without_a_gradient():
    auto = AutoRegressor().fit(*data(rows=16))
    assert auto.names == ("gaussian_process", "skills")
    assert auto.gradient(data()[0][0]).shape == (2, 3)


def test_one_mixture_cannot_be_held_out():
    with pytest.raises(PluginError, match="auto: one mixture only; it needs at least 2"):
        AutoRegressor(candidates=LAWS).fit(np.full((3, 2), 0.5), np.ones((3, 1)))
