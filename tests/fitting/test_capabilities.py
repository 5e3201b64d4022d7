"""What a regressor can do is asked of the object, in one module."""

import numpy as np
from mixopt_regressors.linear import LinearRegressor
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
)
from mixopt.fitting.pilots import CarriedRegressor

QUESTIONS = [getattr(capabilities, name) for name in dir(capabilities) if name[:9] == "supports_"]
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(3), 24)
LOSSES = 3 - WEIGHTS[:, :2] ** 0.5


def test_a_plain_regressor_of_scikit_learn_has_no_ability_but_deviations():
    assert [ask.__name__ for ask in QUESTIONS if ask(LinearRegression())] == []
    assert supports_deviations(GaussianProcessRegressor())
    means_NM, stds_NM = predict_with_std(LinearRegression().fit(WEIGHTS, LOSSES), WEIGHTS)
    assert means_NM.shape == stds_NM.shape == (24, 2)
    assert not stds_NM.any()


def test_a_wrapper_has_a_gradient_where_what_it_wraps_has_one():
    def has(regressor):
        fitted = regressor.fit(WEIGHTS, LOSSES)
        carried = CarriedRegressor("some", fitted, None, np.zeros(2), LinearRegressor)
        return [supports(item, "gradient") for item in (select_targets(fitted, [1]), carried)]

    assert has(LinearRegression()) == [False] * 2
    assert has(LinearRegressor()) == [True] * 2


def test_a_combination_can_do_what_all_its_members_can():
    def abilities(*members):
        fitted = make_regressor("auto", 0).set_params(candidates=members).fit(WEIGHTS, LOSSES)
        assert not supports(fitted, "covariance")
        return supports(fitted, "gradient"), supports_saving(fitted)

    assert abilities("linear", "log_linear") == (True, True)
    assert abilities("linear", "lightgbm") == (False, True)
    assert abilities("sklearn.svm:SVR") == (False, False)


def test_one_that_declares_no_format_of_ours_is_not_saved():
    def declaring(formats):
        return type("Declares", (LinearRegressor,), {"saved_as": formats})()

    mute = type("Mute", (), {"saved_as": ("npz",), "save": print})()
    others = declaring(()), declaring(("json", "pickle")), declaring(["json"]), mute
    assert [supports_saving(item) for item in (LinearRegressor(), *others)] == [True] + [False] * 4


def test_parameters_of_parts_are_found_by_their_own_name():
    class Repeats(LinearRegressor):
        def __init__(self, inventory=None, tokens=None):
            self.inventory, self.tokens = inventory, tokens

    pipeline = make_pipeline(PolynomialFeatures(2), Repeats())
    assert supports_repetition(pipeline)
    assert parameters_called(pipeline, "tokens") == {"repeats__tokens": None}
