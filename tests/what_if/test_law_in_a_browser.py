"""JavaScript predicts what Python does: losses, slopes, intervals, objective."""

import numpy as np
import pytest
from law_answers import browser_answers, mixtures, python_answers
from made_fit import fitted, objective

CLOSE = 1e-6
OBJECTIVES = {
    "mean": objective("code", "law"),
    "target": objective("code", kind="target"),
    "worst": objective("code", "law", "math", kind="worst"),
}


def assert_same(open_page, fit, asked=None):
    weights_KD = mixtures(len(fit.domains))
    theirs, ours = (
        browser_answers(open_page, fit, weights_KD, asked),
        python_answers(fit, weights_KD, asked),
    )
    for name, expected in ours.items():
        # A slope at a weight of 0 may be huge; all else is in the unit of the losses.
        size = np.maximum(1.0, np.abs(expected)) if "gradient" in name else 1.0
        assert (np.abs(theirs[name] - expected) / size).max() < CLOSE, name


@pytest.mark.parametrize("name", ["gaussian_process", "power", "skills", "auto", "ensemble"])
def test_a_browser_predicts_what_python_does(open_page, name):
    assert_same(open_page, fitted(name))


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_browser_values_every_kind_of_objective_as_python_does(open_page, kind):
    assert_same(open_page, fitted("gaussian_process"), OBJECTIVES[kind])
