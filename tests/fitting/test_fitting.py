"""Fits are chosen on held-out mixtures, shown beside controls, and read back as they were."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from made_fit import DOMAINS, TARGETS, fitted, make_trials, objective
from refusals import refuses

from mixopt.errors import MixtureError, PluginError
from mixopt.fitting import (
    CEILING,
    OBJECTIVE,
    Fit,
    controls,
    grouped_folds,
    out_of_fold,
    select_targets,
)
from mixopt.fitting.intervals import held_back
from mixopt.fitting.noise_ceiling import noise_ceiling
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import Trials


class Infinite:
    """A regressor of no kind known to scikit-learn, which cannot be saved."""

    def fit(self, weights_ND, losses_NM):
        return self

    def predict(self, weights_ND):
        return np.full((len(weights_ND), len(TARGETS)), np.inf)


class Explodes(Infinite):
    def fit(self, weights_ND, losses_NM):
        raise ArithmeticError("singular\nmatrix")


@pytest.fixture(scope="module")
def fit() -> Fit:
    """A fit of the true law and of another, which tests only look at."""
    return fitted()


def rows(fit: Fit, predictor: str, target: str = OBJECTIVE) -> dict:
    found = fit.report.filter((pl.col("predictor") == predictor) & (pl.col("target") == target))
    return found.row(0, named=True)


def test_no_row_is_predicted_by_a_regressor_that_saw_its_mixture():
    trials = make_trials()
    weights_ND, row_N = trials.weights(), np.arange(len(trials), dtype=float)
    fold_N = grouped_folds(trials.mixtures, 5, 0)

    def remembering(fitted_ND, _):
        def seen(weights_ND):
            return (weights_ND[:, None] == fitted_ND).all(axis=2).any(axis=1, keepdims=True)

        return SimpleNamespace(predict=seen)

    seen_NM, _ = out_of_fold(remembering, weights_ND, row_N[:, None], fold_N)
    assert not seen_NM.any()


def test_the_regressor_with_the_least_held_out_error_is_chosen_of_equals_the_first_named():
    fit = fitted("lightgbm", "linear", folds=3)
    assert fit.name == "linear"
    assert rows(fit, "linear")["rmse"] < rows(fit, "lightgbm")["rmse"]
    noise = make_trials(lambda weights_ND: np.full((len(weights_ND), 4), 3.0), seed=2)
    names = ["linear", "sklearn.dummy:DummyRegressor"]
    fits = [fitted(*order, trials=noise, folds=3) for order in (names, names[::-1])]
    assert rows(fits[0], names[0])["rmse"] != rows(fits[0], names[1])["rmse"]
    assert [fit.name for fit in fits] == names


def test_every_predictor_has_a_row_a_target_and_the_objective_is_predicted_from_the_losses(fit):
    counted = dict(fit.report.group_by("predictor").len().iter_rows())
    count = len(TARGETS) + 1
    names = ("linear", "log_linear", "own_share", "from_uniform", "nearest_trial", "mean", CEILING)
    assert counted == dict.fromkeys(names, count)
    predicted = fit.predict(make_trials(seed=1).weights())
    values_N = predicted.losses_NM[:, [0, 2]] @ [0.5, 0.5]
    assert np.array_equal(
        predicted.objective_N, held_back(values_N, *fit.tried_best(fit.objective))
    )


def test_controls_do_not_see_the_losses_that_they_predict():
    trials, goal = make_trials(), objective("code")
    weights_ND, losses_NM = trials.weights(), trials.losses("bits_per_byte")
    fold_N = grouped_folds(trials.mixtures, 5, 0)
    changed_NM = losses_NM + 100.0 * (fold_N == 2)[:, None]
    before, after = (
        [
            item.predicted_NQ[fold_N == 2]
            for item in controls(weights_ND, seen_NM, fold_N, DOMAINS, goal)
        ]
        for seen_NM in (losses_NM, changed_NM)
    )
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


def test_the_ceiling_falls_with_the_noise():
    values_N = np.linspace(0, 1, 40)
    quiet, loud = (noise_ceiling(values_N, spread, seed=0) for spread in (0.01, 0.15))
    assert quiet > 0.99
    assert 0.7 < loud < 0.9
    assert noise_ceiling(values_N, 0.5, seed=0) is None


def test_the_intervals_of_held_out_predictions_hold_ninety_in_a_hundred(fit):
    held_out = fit.held_out.filter(pl.col("predictor") == fit.name)
    for target, calibration in zip(fit.targets, fit.calibrations, strict=True):
        held = held_out.filter(pl.col("target") == target)
        errors_N = np.abs((held["observed"] - held["predicted"]).to_numpy())
        assert 0.9 <= (errors_N <= calibration.halves(held["std"].to_numpy()) + 1e-12).mean() < 1.0


@pytest.mark.parametrize("name", ["log_linear", "lightgbm", "sklearn.svm:SVR"])
def test_a_fit_is_read_back_as_it_was_saved(name, tmp_path):
    fit = fitted(name)
    fit.save(tmp_path / "fit")
    read = Fit.load(tmp_path / "fit", trust={name})
    weights_ND = make_trials(seed=1).weights()
    assert np.array_equal(read.predict(weights_ND).losses_NM, fit.predict(weights_ND).losses_NM)
    assert read.report.equals(fit.report)
    assert read.held_out.equals(fit.held_out)
    assert (read.name, read.objective) == (name, fit.objective)
    assert {path.suffix for path in tmp_path.rglob("*.*")} <= {".json", ".npz", ".txt", ".parquet"}


def test_one_seed_gives_one_fit_whatever_the_order_of_the_rows():
    trials = make_trials()
    reversed_rows = Trials(trials.table.reverse(), DOMAINS, TARGETS)
    first, second = fitted("linear", trials=trials), fitted("linear", trials=reversed_rows)
    assert first.fingerprint == second.fingerprint
    assert rows(first, "linear")["rmse"] == pytest.approx(rows(second, "linear")["rmse"], rel=1e-9)


@pytest.mark.parametrize(
    "name", ["sklearn.linear_model:Ridge", "mixopt_regressors.linear:LinearRegressor"]
)
def test_one_target_is_fitted_by_scikit_learn_s_regressors_and_by_others_alike(name):
    trials, goal = (
        make_trials().with_targets(["code"]),
        Objective(("code",), "target", {"code": 1.0}),
    )
    fit = fitted(name, trials=trials, goal=goal)
    assert fit.predict(trials.weights()).losses_NM.shape == (len(trials), 1)
    assert select_targets(fit.regressor, [0]).predict(trials.weights()).shape == (len(trials), 1)


def test_a_regressor_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(
        "mixopt.system.load_plugin", lambda _, name: {"theirs": Explodes, "mine": Infinite}[name]
    )
    refuses(
        PluginError, "'theirs' failed on 2. trials: ArithmeticError: singular", fitted, "theirs"
    )
    refuses(PluginError, "'mine' predicts values that are not finite; leave it o", fitted, "mine")


def test_shares_by_domain_are_predicted_as_mixtures_are():
    fit, shares = fitted("linear"), dict(zip(DOMAINS, (0.5, 0.3, 0.2), strict=True))
    ours, theirs = fit.predict(shares), fit.predict(Mixture(shares))
    assert ours.losses_NM.tolist() == theirs.losses_NM.tolist()
    assert fit.predict([shares, Mixture(shares)]).objective_N.shape == (2,)
    turned = Mixture(dict(reversed(shares.items())))
    assert fit.value(turned, fit.objective) == ours.objective_N[0]
    frame = ours.frame
    assert frame["target"].to_list() == [OBJECTIVE, *TARGETS]
    assert frame["predicted"].to_list() == [ours.objective_N[0], *ours.losses_NM[0]]
    assert f"<td>{TARGETS[0]}</td>" in ours._repr_html_()
    refuses(MixtureError, "unknown domain 'webb'", fit.predict, {"webb": 1.0})
