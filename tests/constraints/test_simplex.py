import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp, qmc

from mixopt.constraints import CappedSimplex
from mixopt.errors import InfeasibleError

# Shares of the 17 domains of the Pile, to two digits (natural shares of RegMix's corpus).
PILE = np.array(
    [11, 3.9, 0.39, 11, 4.8, 1.6, 9.8, 0.46, 6.4, 0.18, 2.7, 23, 1.2, 0.97, 0.75, 3.9, 4.1]
)
PILE /= PILE.sum()
UNIT = st.floats(0, 1)


@st.composite
def simplices(draw):
    """Bounds around a point of the simplex, from loose to exactly tight."""
    domains = draw(st.integers(1, 10))
    raw = draw(arrays(np.float64, domains, elements=st.floats(0.001, 1)))
    point = raw / raw.sum()
    down, up = draw(arrays(np.float64, (2, domains), elements=UNIT))
    return CappedSimplex(point * down, np.minimum(point + (1 - point) * up, 1.0))


def sobol(simplex, power, seed=0):
    return simplex.from_cube(qmc.Sobol(simplex.dimensions, rng=seed).random_base2(power))


def rejected(simplex, draws=1_000_000, seed=0):
    """Uniform points of the capped simplex by rejection: the reference."""
    rng = np.random.default_rng(seed)
    room = 1 - simplex.lower_D.sum()
    points = simplex.lower_D + room * rng.dirichlet(np.ones(len(simplex.lower_D)), draws)
    return points[simplex.contains(points)]


@settings(deadline=None)
@given(simplex=simplices(), data=st.data())
def test_every_point_of_the_cube_lands_inside_the_bounds_and_adds_up_to_1(simplex, data):
    cube = data.draw(arrays(np.float64, (5, simplex.dimensions), elements=UNIT))
    assert simplex.contains(simplex.from_cube(cube), tolerance=1e-12).all()


@settings(deadline=None)
@given(simplex=simplices(), data=st.data())
def test_a_projection_is_inside_the_bounds_and_adds_up_to_1(simplex, data):
    shape = (3, len(simplex.lower_D))
    points = data.draw(arrays(np.float64, shape, elements=st.floats(-1e3, 1e3)))
    assert simplex.contains(simplex.project(points), tolerance=1e-12).all()


@settings(deadline=None)
@given(simplex=simplices(), data=st.data())
def test_projecting_a_point_of_the_set_leaves_it(simplex, data):
    cube = data.draw(arrays(np.float64, (3, simplex.dimensions), elements=UNIT))
    points = simplex.from_cube(cube)
    np.testing.assert_allclose(simplex.project(points), points, atol=1e-12)


@settings(deadline=None)
@given(simplex=simplices(), data=st.data())
def test_no_point_of_the_set_is_nearer_than_the_projection(simplex, data):
    domains = len(simplex.lower_D)
    point = data.draw(arrays(np.float64, domains, elements=st.floats(-3, 3)))
    cube = data.draw(arrays(np.float64, (20, simplex.dimensions), elements=UNIT))
    nearest = np.linalg.norm(simplex.project(point) - point)
    assert nearest <= np.linalg.norm(simplex.from_cube(cube) - point, axis=1).min() + 1e-9


def test_the_projection_of_one_point_is_the_hand_computed_one():
    simplex = CappedSimplex(np.array([0.0, 0.0, 0.1]), np.array([0.5, 1.0, 1.0]))
    # The first is held at 0.5, the last at 0.1; the second takes the rest.
    np.testing.assert_allclose(simplex.project([2.0, 0.9, -1.0]), [0.5, 0.4, 0.1], atol=1e-15)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ([0] * 5, [1] * 5),
        ([0] * 4, [0.3, 0.5, 0.4, 0.35]),
        ([0] * 8, [0.2] * 8),
        ([0.1, 0, 0.05, 0], [0.3, 0.5, 0.2, 0.6]),
        ([0.2, 0.2, 0.3], [1, 1, 1]),
        ([0] * 3, [0.9, 0.5, 0.02]),
    ],
    ids=["full", "capped", "many equal caps", "both bounds", "floors", "one small"],
)
def test_sobol_points_are_spread_as_uniform_points_found_by_rejection(lower, upper):
    simplex = CappedSimplex(np.array(lower, float), np.array(upper, float))
    points, reference = sobol(simplex, 13), rejected(simplex)
    assert len(reference) > 10_000
    # Largest distance of the distributions: a sample of 10,000 misses by 0.0163 in 1% of cases.
    for d in range(len(lower)):
        assert ks_2samp(points[:, d], reference[:, d]).statistic < 0.0163
    np.testing.assert_allclose(np.cov(points.T), np.cov(reference.T), atol=4e-4)


def test_without_bounds_the_map_is_stick_breaking_to_rounding():
    cube = qmc.Sobol(4, rng=0).random_base2(8)
    left, expected = np.ones(len(cube)), []
    for place, column in enumerate(cube.T):
        expected.append(left * (1 - (1 - column) ** (1 / (4 - place))))
        left = left - expected[-1]
    points = CappedSimplex.full(5).from_cube(cube)
    np.testing.assert_allclose(points, np.stack([*expected, left], axis=1), atol=1e-9)


def test_sobol_points_are_spread_as_a_hit_and_run_walk_under_caps_of_1_14_times_the_natural_share():
    simplex = CappedSimplex(np.zeros(17), 1.14 * PILE)
    points, walk = sobol(simplex, 12), hit_and_run(simplex, 400_000)
    scale = walk.std(axis=0)
    # The walk forgets slowly: its means are known to about 3% of a standard deviation.
    np.testing.assert_allclose(
        points.mean(axis=0) / scale, walk.mean(axis=0) / scale, atol=0.1, rtol=0
    )
    np.testing.assert_allclose(points.std(axis=0) / scale, 1, atol=0.1)


def hit_and_run(simplex, steps, seed=1):
    """Move weight between two random domains, uniformly over what the bounds allow."""
    rng = np.random.default_rng(seed)
    domains = len(simplex.lower_D)
    weights = simplex.project(PILE)
    first = rng.integers(domains, size=steps)
    second = (first + rng.integers(1, domains, size=steps)) % domains
    places = rng.random(steps)
    kept = []
    for step, (i, j, place) in enumerate(zip(first, second, places, strict=True)):
        both = weights[i] + weights[j]
        least = max(simplex.lower_D[i], both - simplex.upper_D[j])
        most = min(simplex.upper_D[i], both - simplex.lower_D[j])
        weights[i] = least + place * (most - least)
        weights[j] = both - weights[i]
        if step % 20 == 0:
            kept.append(weights.copy())
    return np.array(kept)


@pytest.mark.parametrize("usage", [1.0001, 1.14, 1.33, 2, 15])
def test_tight_caps_give_points_without_rejection(usage):
    simplex = CappedSimplex(np.zeros(17), np.minimum(usage * PILE, 1))
    points = sobol(simplex, 9)
    assert simplex.contains(points, tolerance=1e-12).all()
    assert len(np.unique(points.round(9), axis=0)) == len(points)


def test_three_hundred_domains_are_no_more_trouble_than_three():
    simplex = CappedSimplex(np.zeros(300), np.full(300, 0.02))
    points = sobol(simplex, 8)
    assert simplex.contains(points, tolerance=1e-12).all()
    np.testing.assert_allclose(points.mean(axis=0), 1 / 300, rtol=0.2)


def test_different_points_of_the_cube_are_different_mixtures():
    simplex = CappedSimplex(np.zeros(4), np.array([0.3, 0.5, 0.4, 0.35]))
    grid = np.array(list(itertools.product([0.1, 0.5, 0.9], repeat=3)))
    assert len(np.unique(simplex.from_cube(grid).round(9), axis=0)) == 27


def test_a_set_of_one_point_needs_no_cube():
    simplex = CappedSimplex(np.array([0.4, 0.6]), np.array([0.4, 0.6]))
    assert simplex.dimensions == 0
    np.testing.assert_allclose(simplex.from_cube(np.zeros((2, 0))), [[0.4, 0.6]] * 2)


def test_caps_that_add_up_to_1_but_for_rounding_hold_their_one_point():
    simplex = CappedSimplex(np.zeros(10), np.full(10, 0.1))
    np.testing.assert_allclose(simplex.project(np.arange(10.0)), 0.1, atol=1e-9)


def test_every_weight_may_be_off_by_the_tolerance_and_the_sum_by_all_of_them_together():
    simplex = CappedSimplex(np.zeros(4), np.full(4, 0.25))
    for sign in (1, -1):
        assert simplex.contains(np.full(4, 0.25 + sign * 9e-4), tolerance=1e-3)[0]
    assert not simplex.contains([0.2511, 0.25, 0.25, 0.2489], tolerance=1e-3)[0]
    assert not CappedSimplex.full(2).contains([0.5, 0.503], tolerance=1e-3)[0]


def test_a_projection_from_far_away_loses_no_digits():
    far = np.array([1e8 + 0.2, 1e8, 1e8 - 0.3])
    near = CappedSimplex.full(3).project(far)
    assert near.sum() == pytest.approx(1.0, abs=1e-14)


def test_a_lower_bound_that_is_above_its_upper_by_rounding_wins():
    simplex = CappedSimplex(np.array([0.5 + 5e-10, 0.0]), np.array([0.5, 1.0]))
    assert simplex.upper_D[0] == simplex.lower_D[0] == 0.5 + 5e-10


def test_a_cube_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match="2 dimensions, not 3"):
        CappedSimplex.full(4).from_cube([[0.5, 0.5]])


def test_a_fixed_domain_takes_no_dimension():
    simplex = CappedSimplex(np.array([0, 0.2, 0]), np.array([1, 0.2, 1]))
    assert simplex.dimensions == 1
    np.testing.assert_allclose(simplex.from_cube([[0.25]])[0, 1], 0.2)


def test_bounds_cannot_be_changed_from_outside():
    lower = np.zeros(3)
    simplex = CappedSimplex(lower, np.ones(3))
    lower[0] = 0.5
    assert simplex.lower_D[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        simplex.upper_D[0] = 0.1


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.6, 0.6], [1, 1], "lower bounds add up to 1.2, more than 1"),
        ([0, 0], [0.3, 0.4], "upper bounds add up to 0.7, less than 1"),
        ([0.5, 0], [0.4, 1], "domain 0: bounds 0.5 and 0.4"),
        ([-0.1, 0], [1, 1], "domain 0: bounds -0.1 and 1"),
        ([float("nan"), 0], [1, 1], "domain 0: bounds nan and 1"),
        ([0, 0, 0], [1, 1], "bounds of shapes"),
    ],
)
def test_bounds_that_hold_no_mixture_are_refused(lower, upper, message):
    with pytest.raises(InfeasibleError, match=message):
        CappedSimplex(np.array(lower, float), np.array(upper, float))


@settings(max_examples=30, deadline=None)
@given(power=st.integers(0, 8))
def test_the_same_cube_gives_the_same_mixtures(power):
    simplex = CappedSimplex.full(5)
    assert np.array_equal(sobol(simplex, power), sobol(simplex, power))
