"""What a regressor can do is asked of the object, in one module."""

from __future__ import annotations

import numpy as np
import pytest
from ridge import Ridge
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from mixopt.fitting import (
    make_regressor,
    parameters_called,
    predict_with_std,
    regressor as capabilities,
    select_targets,
    supports,
    supports_deviations,
    supports_repetition,
    supports_saving,
    supports_sizes,
)
from mixopt.fitting.pilot_correction import PilotLines
from mixopt.fitting.pilots import CarriedRegressor
from mixopt.system import no_progress

QUESTIONS = [getattr(capabilities, name) for name in dir(capabilities) if name[:9] == "supports_"]
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(3), 24)
LOSSES = 3 - WEIGHTS[:, :2] ** 0.5
ABILITIES = {
    *("gradient", "select", "tuned", "cross_fit", "held_out_members", "explain", "uses_scale"),
    *("at", "save", "load", "can_be_saved", "get_params", "set_params", "return_std"),
}


def corrected(regressor):
    """Return the fitted regressor as pilots carry it."""
    fitted = regressor.fit(WEIGHTS, LOSSES)
    seen_KM = np.asarray(fitted.predict(WEIGHTS[:3]))
    spread_M, noise_M = LOSSES.std(axis=0), np.full(2, 0.01)
    lines = PilotLines(WEIGHTS[:3], seen_KM, seen_KM + 1, spread_M, noise_M).drawn_together()
    return CarriedRegressor("some", fitted, lines, np.zeros(2), lambda: regressor, LOSSES)


def test_a_plain_regressor_of_scikit_learn_has_parameters_and_no_other_ability():
    made = LinearRegression()
    assert [name for name in sorted(ABILITIES) if supports(made, name)] == [
        "get_params",
        "set_params",
    ]
    assert [ask.__name__ for ask in QUESTIONS if ask(made)] == []


def test_deviations_of_scikit_learn_are_found_where_there_are_some():
    assert supports_deviations(GaussianProcessRegressor())
    assert not supports_deviations(make_pipeline(PolynomialFeatures(2), LinearRegression()))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("gaussian_process", (supports_deviations, "gradient", "cross_fit")),
        ("lightgbm", (supports_deviations, "tuned", "select", supports_saving)),
        ("epochs", (supports_repetition, "gradient")),
        ("scaling", (supports_sizes, "tuned")),
        ("auto", ("cross_fit", "explain", supports_repetition)),
    ],
)
def test_installed_regressors_have_what_they_are_used_for(name, asked):
    made = make_regressor(name, 0)
    has = [supports(made, ask) if isinstance(ask, str) else ask(made) for ask in asked]
    assert has == [True] * len(asked)


def test_members_are_known_after_a_cross_fit_alone():
    made = make_regressor("auto", 0)
    made.set_params(candidates=("linear", "log_linear"))
    assert not supports(made, "held_out_members")
    made.cross_fit(WEIGHTS, LOSSES, np.arange(24) % 2, no_progress)
    assert supports(made, "held_out_members")


@pytest.mark.parametrize(("regressor", "has"), [(LinearRegression(), False), (Ridge(), True)])
def test_a_wrapper_has_a_gradient_where_what_it_wraps_has_one(regressor, has):
    fitted = regressor.fit(WEIGHTS, LOSSES)
    carried = corrected(regressor)
    for one in (fitted, select_targets(fitted, [1]), carried, carried.select([1])):
        assert supports(one, "gradient") == has


def test_a_combination_has_a_gradient_where_all_members_have_one():
    made = make_regressor("auto", 0)
    for members, has in ((("linear", "log_linear"), True), (("linear", "lightgbm"), False)):
        fitted = made.set_params(candidates=members).fit(WEIGHTS, LOSSES)
        assert supports(fitted, "gradient") == has


def test_a_regressor_without_deviations_has_zeros():
    means_NM, stds_NM = predict_with_std(LinearRegression().fit(WEIGHTS, LOSSES), WEIGHTS)
    assert means_NM.shape == stds_NM.shape == (24, 2)
    assert not stds_NM.any()


def test_a_combination_is_saved_where_all_members_are():
    made = make_regressor("auto", 0)
    for member, has in (("log_linear", True), ("sklearn.linear_model:Ridge", False)):
        fitted = made.set_params(candidates=("linear", member)).fit(WEIGHTS, LOSSES)
        assert supports_saving(fitted) == has


def test_one_that_writes_and_cannot_read_is_not_saved():
    assert supports_saving(Ridge())
    assert not supports_saving(type("Mute", (), {"saved_as": ("npz",), "save": print})())


@pytest.mark.parametrize("formats", [None, (), ("pickle",), ("json", "joblib"), "json"])
def test_one_that_declares_no_format_of_ours_is_not_saved(formats):
    class Undeclared(Ridge):
        saved_as = formats

    assert not supports_saving(Undeclared())


def test_parameters_of_parts_are_found_by_their_own_name():
    class Repeats(Ridge):
        def __init__(self, inventory=None, tokens=None):
            self.inventory, self.tokens = inventory, tokens

    pipeline = make_pipeline(PolynomialFeatures(2), Repeats())
    assert supports_repetition(pipeline)
    assert parameters_called(pipeline, "tokens") == {"repeats__tokens": None}
