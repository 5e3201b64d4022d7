"""JavaScript predicts what Python does: losses, slopes, intervals and objective, to 1e-6."""

import numpy as np
import pytest
from law_answers import browser_answers, mixtures, python_answers
from made_fit import TARGETS, fitted, make_trials, objective
from made_laws import TARGET_SIZE, one_size, pilot_runs, sized_trials, two_sizes

from mixopt.fitting import ModelSize
from mixopt.objective import Objective

CLOSE = 1e-6
HALF = {"code": 0.5, "law": 0.5}
OBJECTIVES = {
    "mean": objective("code", "law"),
    "target": objective("code", kind="target"),
    "worst": objective("code", "law", "math", kind="worst"),
    "higher": Objective(TARGETS, "target", {"code": 1.0}, higher=("code",)),
    "spread": Objective(
        TARGETS, "mean", HALF, higher=("law",), scale="spread", spreads={"code": 0.2, "law": 0.05}
    ),
}


def assert_same(open_page, fit, asked=None):
    weights_KD = mixtures(len(fit.domains))
    ours = python_answers(fit, weights_KD, asked)
    theirs = browser_answers(open_page, fit, weights_KD, asked)
    for name, expected in ours.items():
        # A slope at a weight of 0 may be huge; all else is in the unit of the losses.
        size = np.maximum(1.0, np.abs(expected)) if "gradient" in name else 1.0
        assert (np.abs(theirs[name] - expected) / size).max() < CLOSE, name


@pytest.fixture(scope="module")
def proxies():
    """A fit of trials of one size."""
    return fitted("gaussian_process", trials=one_size(), folds=3)


@pytest.fixture(scope="module")
def sized():
    """A fit of trials of two sizes, which predicts at a third."""
    return two_sizes().fit(size=ModelSize(*map(float, TARGET_SIZE)))


@pytest.mark.parametrize(
    "name",
    [
        "gaussian_process",
        "power",
        "made_laws:few_units",
        "linear",
        "log_linear",
        "epochs",
        "made_laws:few_trees",
        "made_laws:few_members",
        "made_laws:few_candidates",
    ],
)
def test_a_browser_predicts_what_python_does(open_page, name):
    assert_same(open_page, fitted(name, trials=make_trials(count=20, replicates=2), folds=3))


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_browser_values_every_kind_of_objective(open_page, proxies, kind):
    assert_same(open_page, proxies, OBJECTIVES[kind])


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_browser_carries_predictions_to_the_size_of_pilots(open_page, proxies, count, kind):
    assert_same(open_page, proxies.with_pilots(pilot_runs(count)), OBJECTIVES[kind])


def test_a_browser_predicts_at_a_size_that_no_trial_had(open_page, sized):
    assert_same(open_page, sized)


def test_a_browser_carries_a_fit_at_a_size_to_that_of_pilots(open_page, sized):
    larger = sized_trials("pilot", np.repeat([(10**9, 10**11)], 9, axis=0), seed=1)
    assert_same(open_page, sized.with_pilots(larger), OBJECTIVES["mean"])


def test_trees_are_carried_without_a_gradient(open_page):
    fit = fitted("made_laws:few_trees", trials=one_size(), folds=3).with_pilots(pilot_runs(4))
    assert_same(open_page, fit)
