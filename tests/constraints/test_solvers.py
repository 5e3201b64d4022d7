"""Programs over mixtures, against answers that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.constraints import DifferentiableFunction, minimize_slsqp
from mixopt.constraints.limits import Radius
from mixopt.constraints.solvers import LinearConstraints
from mixopt.mixture import Mixture

DOMAINS = ("a", "b", "c")


def rows(
    *limits: tuple[list[float], float], lower=(0, 0, 0), upper=(1, 1, 1), gives=None
) -> LinearConstraints:
    """Return rows `coefficients . w <= most` over three domains."""
    return LinearConstraints(
        np.array([row for row, _ in limits], dtype=float).reshape(-1, 3),
        np.array([most for _, most in limits], dtype=float),
        np.array(lower, dtype=float),
        np.array(upper, dtype=float),
        None if gives is None else np.array(gives, dtype=float),
    )


def radius(kind, size: float, weights=(0.5, 0.3, 0.2)) -> Radius:
    return Radius(Mixture.from_array(DOMAINS, weights), "natural", kind, size)


def closest(limits, around):
    """Return the least distance from a reference, and a mixture that has it."""
    near_D = limits.deepest([around])
    return None if near_D is None else (float(around.value(near_D[None])[0]), near_D)


def bowl(bottom) -> DifferentiableFunction:
    bottom_D = np.array(bottom)
    return DifferentiableFunction(
        lambda w: ((w - bottom_D) ** 2).sum(keepdims=True), lambda w: 2 * (w - bottom_D)[None]
    )


def test_the_lowest_point_is_a_corner_of_bounds_and_rows():
    limits = rows(([1, 1, 0], 0.7), upper=(0.5, 1, 1), lower=(0, 0, 0.1))
    np.testing.assert_allclose(limits.lowest(np.array([-3.0, -2.0, 0.0])), [0.5, 0.2, 0.3])
    np.testing.assert_allclose(limits.lowest(np.array([1.0, 2.0, 0.0])), [0, 0, 1], atol=1e-9)


def test_rows_without_a_mixture_have_no_lowest_point():
    assert rows(([1, 1, 1], 0.9)).lowest(np.zeros(3)) is None


@pytest.mark.parametrize(("gap", "exists"), [(1e-10, True), (1e-8, False)])
def test_limits_that_leave_out_a_hundred_millionth_of_the_tokens_have_no_mixture(gap, exists):
    most_R = np.array([0.5, 0.5 - gap])
    rows = LinearConstraints(
        np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), most_R, np.zeros(3), np.ones(3)
    )
    assert (rows.lowest(np.array([1.0, 2.0, 3.0])) is not None) == exists


def test_the_closest_mixture_in_total_variation_is_as_far_as_the_weight_that_must_move():
    distance, near_D = closest(rows(lower=(0, 0, 0.6)), radius("tv", 0.1))
    assert distance == pytest.approx(0.4)
    assert near_D[2] == pytest.approx(0.6)
    assert near_D.sum() == pytest.approx(1.0)


def test_the_closest_mixture_in_divergence_keeps_the_proportions_of_the_others():
    distance, near_D = closest(rows(lower=(0, 0, 0.6)), radius("kl", 0.1))
    np.testing.assert_allclose(near_D, [0.25, 0.15, 0.6], atol=1e-5)
    assert distance == pytest.approx(0.6 * np.log(3) + 0.4 * np.log(0.5), abs=1e-8)


def test_a_mixture_that_needs_what_the_reference_lacks_is_at_no_distance():
    lacking = radius("kl", 0.1, (0.6, 0.4, 0.0))
    assert closest(rows(lower=(0, 0, 0.1)), lacking) is None
    distance, near_D = closest(rows(), lacking)
    assert distance == pytest.approx(0.0, abs=1e-9)
    assert near_D[2] == 0.0


def test_bounds_that_could_give_way_do_not_for_the_closest_mixture():
    held = rows(([0, 0, -1], -0.6), gives=[1])
    assert closest(held, radius("tv", 0.1))[0] == pytest.approx(0.4)


def test_no_mixture_is_closest_where_there_is_none():
    for kind in ("tv", "kl"):
        assert closest(rows(([1, 1, 1], 0.9)), radius(kind, 0.1)) is None


def test_the_least_change_is_what_the_bounds_lack_for_each_unit_that_they_give():
    # 1 - 0.7 is missing; the first bound gives one, the second two for each unit.
    short = rows(([1, 1, 0], 0.5), ([0, 0, 1], 0.2), gives=[1, 2])
    assert short.least_change() == pytest.approx(0.1)
    assert rows(([1, 1, 0], 0.5), gives=[1]).least_change() == pytest.approx(0.0)
    assert rows(([1, 1, 1], 0.9), gives=[0]).least_change() is None


def test_a_change_is_what_it_takes_to_come_within_a_radius_too():
    # With c <= 0.05 the rest must rise by 0.15; within 0.1 in total variation, c is 0.1 or more.
    short = rows(([0, 0, 1], 0.05), gives=[1])
    assert short.least_change() == pytest.approx(0.0)
    assert short.least_change([radius("tv", 0.1)]) == pytest.approx(0.05)
    assert short.least_change([radius("tv", 0.2)]) == pytest.approx(0.0)


def test_a_change_within_a_divergence_is_where_the_closest_mixture_is_just_within():
    short, around = rows(([0, 0, 1], 0.05), gives=[1]), radius("kl", 0.02)
    change = short.least_change([around])
    assert 0.0 < change < 0.15
    assert closest(short.changed(change), around)[0] <= 0.02
    assert closest(short.changed(0.999 * change), around)[0] > 0.02
    assert short.least_change([radius("kl", 0.5)]) == pytest.approx(0.0)


def test_no_change_is_enough_where_the_bounds_that_give_are_not_the_ones_in_the_way():
    stuck = rows(([0, 1, 0], 0.2), lower=(0, 0, 0.6), gives=[1])
    assert stuck.least_change([radius("kl", 0.01)]) is None
    assert stuck.least_change([radius("tv", 0.01)]) is None


def test_changed_rows_give_way_no_more():
    moved = rows(([1, 0, 0], 0.2), ([0, 1, 0], 0.3), gives=[1, 0.5]).changed(0.2)
    np.testing.assert_allclose(moved.most_R, [0.4, 0.4])
    assert moved.gives_R is None


def test_the_nearest_mixture_to_a_point_is_the_hand_computed_one():
    limits = rows(([1, 0, 0], 0.4))
    start_D = np.full(3, 1 / 3)
    near_D = limits.nearest(np.array([1.0, 0.5, 0.1]), start_D, ())
    np.testing.assert_allclose(near_D, [0.4, 0.5, 0.1], atol=1e-6)


def test_a_descent_ends_at_a_radius_of_either_kind():
    start_D = np.array([0.5, 0.3, 0.2])
    for kind, size in (("tv", 0.1), ("kl", 0.02)):
        around = radius(kind, size)
        end_D = minimize_slsqp(bowl([0, 0, 1.0]), start_D, rows(), [around])
        assert around.value(end_D[None])[0] == pytest.approx(size, abs=1e-6)
        assert end_D.sum() == pytest.approx(1.0)
        assert end_D[2] > 0.25


def test_a_descent_within_a_total_variation_moves_weight_from_where_it_costs_least():
    start_D, around = np.array([0.5, 0.3, 0.2]), radius("tv", 0.1)
    end_D = minimize_slsqp(bowl([0, 0, 1.0]), start_D, rows(), [around])
    # The larger weight costs more, so it alone gives.
    np.testing.assert_allclose(end_D, [0.4, 0.3, 0.3], atol=1e-5)


@pytest.mark.parametrize("around", [None, ("tv", 0.5), ("kl", 2.0)])
def test_a_descent_keeps_conditions_rows_and_bounds(around):
    above = DifferentiableFunction(lambda w: w[:1] - 0.3, lambda w: np.eye(3)[:1])
    limits = rows(([0, 0, 1], 0.5), lower=(0, 0.05, 0))
    within = [] if around is None else [radius(*around)]
    start_D = np.array([0.4, 0.3, 0.3])
    end_D = minimize_slsqp(bowl([0, 0, 1.0]), start_D, limits, within, [above])
    np.testing.assert_allclose(end_D, [0.3, 0.2, 0.5], atol=1e-5)


def test_further_variables_have_no_bounds():
    cost = DifferentiableFunction(
        lambda x: ((x[:3] - [1, 0, 0]) ** 2).sum(keepdims=True) + (x[3:] + 5) ** 2,
        lambda x: np.append(2 * (x[:3] - [1, 0, 0]), 2 * (x[3] + 5))[None],
    )
    start_X = np.array([0.5, 0.3, 0.2, 0.0])
    for around in ([], [radius("tv", 0.1)], [radius("kl", 0.02)]):
        end_X = minimize_slsqp(cost, start_X, rows(), around)
        assert end_X.shape == (4,)
        assert end_X[3] == pytest.approx(-5.0, abs=1e-4)


def test_a_descent_into_nothing_stays_where_it_began():
    lost = DifferentiableFunction(lambda w: w[:1], lambda w: np.full((1, 3), np.nan))
    start_D = np.array([0.5, 0.3, 0.2])
    assert minimize_slsqp(lost, start_D, rows()).tolist() == start_D.tolist()
