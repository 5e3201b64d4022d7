"""Descents of several points together end where SciPy's of each would."""

import itertools

import numpy as np
import pytest
from mixopt_regressors.laws.descent import minimise
from scipy.optimize import minimize, rosen, rosen_der

STARTS_FP = np.array([[-1.2, 1.0, 0.5, 2.0], [3.0, -2.0, 1.5, 0.0], [0.1, 0.1, 0.1, 0.1]])
SCALES = np.arange(1, 5)


def steep(x):  # nearly level at first: the first steps are far too short
    return np.log1p((x**4).sum()), 4 * x**3 / (1 + (x**4).sum())


def waves(x):
    return (x**2).sum() / 20 + np.sin(3 * x).sum(), x / 10 + 3 * np.cos(3 * x)


def kinks(x):  # a search ends in a narrow bracket, or without a lower point
    return np.abs(x).sum(), np.sign(x)


def uneven(x):
    return SCALES @ np.abs(x), SCALES * np.sign(x)


def hollows(x):  # a search ends in a bracket that interpolation hardly narrows
    roots = np.sqrt(np.abs(x) + 0.01)
    return roots.sum(), np.sign(x) / (2 * roots)


def together(cost_of):
    def cost(points_FP):
        values, slopes = zip(*map(cost_of, points_FP), strict=True)
        return np.array(values), np.array(slopes)

    return cost


@pytest.mark.parametrize(
    "cost_of", [lambda x: (rosen(x), rosen_der(x)), steep, waves, kinks, uneven, hollows]
)
@pytest.mark.parametrize("steps", [1, 4, 12, 100])
def test_a_descent_ends_where_scipys_does(cost_of, steps):
    options = {"maxiter": steps, "maxcor": 10, "ftol": 1e-7, "gtol": 0.0}
    theirs = [
        minimize(cost_of, x, jac=True, method="L-BFGS-B", options=options).x for x in STARTS_FP
    ]
    ours_FP = minimise(together(cost_of), STARTS_FP, steps)
    assert ours_FP == pytest.approx(np.array(theirs), abs=1e-6)


def test_the_line_search_steps_back_from_a_cost_that_is_not_finite():
    def barrier(x):
        return (x - np.log(x)).sum(), 1 - 1 / x

    ends_FP = minimise(together(barrier), np.array([[1e-3, 5.0], [40.0, 0.2]]), 100)
    assert ends_FP == pytest.approx(np.ones((2, 2)), abs=1e-3)


def test_a_descent_without_a_lower_point_discards_its_steps_and_continues():
    evaluations = itertools.count()

    def gap(x):  # the 20 step lengths of one search have no cost
        return np.nan if 3 <= next(evaluations) < 23 else (SCALES * x**2).sum(), 2 * SCALES * x

    assert np.abs(minimise(together(gap), STARTS_FP[:1], 100)).max() < 1e-3


@pytest.mark.parametrize("cost", [1.0, np.nan])
@pytest.mark.parametrize("slope", [0.0, 1.0, 1e90, np.nan, np.inf])
@pytest.mark.parametrize("later", [0.0, 1.0])
def test_a_descent_without_a_lower_cost_stays_where_it_is(cost, slope, later):
    def level(points_FP):
        times_F1 = np.where(points_FP == STARTS_FP[:1], 1.0, later)
        return np.full(len(points_FP), cost), slope * times_F1

    assert np.array_equal(minimise(level, STARTS_FP[:1], 9), STARTS_FP[:1])
