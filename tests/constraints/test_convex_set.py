"""Groups and a radius cut the simplex: every map keeps to what is left, and reaches all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mixopt.config import ConstraintsConfig
from mixopt.constraints import CappedSimplex, Constraints, limits_of
from mixopt.constraints.convex_set import ConvexSet
from mixopt.constraints.limits import Radius
from mixopt.errors import InfeasibleError
from mixopt.mixture import Mixture, total_variation

INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL_D = np.array([0.4, 0.3, 0.2, 0.1])
TEXT = {"groups": {"text": {"domains": ["prose", "law"], "bounds": (0.5, 0.6)}}}
NEAR = {"radius": {"tv": 0.2}}
RARE = {"radius": {"kl": 0.05}, "bounds": {"mail": (0.12, 1.0)}}
TIED = {"groups": {"text": {"domains": ["prose", "law"], "bounds": (0.5, 0.5)}}}


def allowed(fields) -> ConvexSet:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY).allowed


SETS = {
    "group": TEXT,
    "tv": NEAR,
    "kl": RARE,
    "tied": TIED,
    "both": {**TEXT, "radius": {"tv": 0.1}},
}
ALL = [pytest.param(allowed(fields), id=name) for name, fields in SETS.items()]


def cubes(seed: int, rows: int, dimensions: int) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, dimensions))


def is_off(one: ConvexSet, weights_D: np.ndarray) -> bool:
    return not one.contains(weights_D[None], tolerance=1e-9)[0]


@pytest.mark.parametrize(
    ("fields", "weights", "inside"),
    [
        (TEXT, [0.4, 0.3, 0.25, 0.05], True),
        (TEXT, [0.5, 0.3, 0.1, 0.1], False),
        (TEXT, [0.3, 0.4, 0.25, 0.05], False),
        (TEXT, [0.5, 0.3, 0.2, 0.0], True),
        (NEAR, [0.6, 0.2, 0.1, 0.1], True),
        (NEAR, [0.61, 0.2, 0.1, 0.09], False),
        (RARE, [0.4, 0.3, 0.18, 0.12], True),
        (RARE, [0.4, 0.3, 0.2, 0.1], False),
        (RARE, [0.1, 0.3, 0.4, 0.2], False),
    ],
)
def test_a_mixture_is_in_the_set_when_bounds_groups_and_radius_all_hold(fields, weights, inside):
    assert allowed(fields).contains(weights).tolist() == [inside]


def test_a_tolerance_lets_a_group_and_a_radius_be_missed_by_as_much():
    text, near = [0.505, 0.3, 0.195, 0.0], [0.605, 0.2, 0.1, 0.095]
    for one, weights in ((allowed(TEXT), text), (allowed(NEAR), near)):
        assert one.contains(weights, tolerance=0.006)[0]
        assert not one.contains(weights, tolerance=0.004)[0]


@pytest.mark.parametrize("one", ALL)
def test_every_point_of_the_cube_is_a_mixture_of_the_set_and_no_two_are_one(one):
    drawn_ND = one.from_cube(cubes(0, 300, one.dimensions))
    assert one.contains(drawn_ND, tolerance=1e-9).all()
    assert len(np.unique(drawn_ND.round(7), axis=0)) == 300


def test_the_cube_fills_the_set_to_its_ends():
    text_N = allowed(TEXT).from_cube(cubes(0, 2000, 3))[:, 1:3].sum(axis=1)
    assert text_N.min() < 0.503
    assert text_N.max() > 0.597
    away_N = total_variation(allowed(NEAR).from_cube(cubes(0, 2000, 3)), NATURAL_D)
    assert away_N.max() > 0.19
    assert away_N.min() < 0.05


def test_what_is_cut_off_is_not_heaped_up_at_the_limits():
    text_N = allowed(TEXT).from_cube(cubes(0, 500, 3))[:, 1:3].sum(axis=1)
    assert (np.minimum(text_N - 0.5, 0.6 - text_N) > 1e-7).all()
    away_N = total_variation(allowed(NEAR).from_cube(cubes(0, 500, 3)), NATURAL_D)
    assert (away_N < 0.2 - 1e-7).all()


def test_limits_that_cut_nothing_off_leave_the_map_of_the_bounds():
    base = CappedSimplex(np.array([0.0, 0.1, 0, 0]), np.array([0.7, 1, 0.5, 1]))
    loose = ConvexSet(base, np.array([[1.0, 1, 0, 0]]), np.zeros(1), np.ones(1))
    cube = cubes(1, 50, 3)
    np.testing.assert_allclose(loose.from_cube(cube), base.from_cube(cube), atol=1e-9)


@pytest.mark.parametrize("one", ALL)
def test_no_mixture_of_the_set_is_nearer_than_the_projection(one):
    rng = np.random.default_rng(0)
    points_ND = rng.normal(0.25, 0.5, (15, 4))
    drawn_ND = one.from_cube(rng.random((2000, one.dimensions)))
    near_ND = one.project(points_ND)
    assert one.contains(near_ND, tolerance=1e-9).all()
    away_N = np.linalg.norm(near_ND - points_ND, axis=1)
    others_N = np.linalg.norm(drawn_ND[None] - points_ND[:, None], axis=2).min(axis=1)
    assert (away_N <= others_N + 1e-6).all()


def test_a_projection_onto_a_group_is_the_hand_computed_one():
    # The group comes up to 0.5, shared evenly; the weight of mail is 0 before and after.
    near_D = allowed(TEXT).project([1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(near_D, [0.5, 0.25, 0.25, 0.0], atol=1e-6)


@pytest.mark.parametrize("one", ALL)
def test_what_is_in_the_set_is_left_where_it_is(one):
    drawn_ND = one.from_cube(cubes(2, 20, one.dimensions))
    np.testing.assert_allclose(one.inside(drawn_ND), drawn_ND, atol=1e-9)
    np.testing.assert_allclose(one.project(drawn_ND), drawn_ND, atol=1e-9)


@pytest.mark.parametrize("fields", [TEXT, NEAR, RARE])
def test_what_is_outside_is_pulled_straight_to_the_middle_and_no_farther_than_it_must(fields):
    one = allowed(fields)
    points_ND = np.random.default_rng(3).dirichlet(np.full(4, 0.3), 50)
    outside_ND = points_ND[~one.contains(points_ND)]
    assert len(outside_ND) > 20
    start_ND = one.base.project(outside_ND)
    moved_ND = one.inside(outside_ND)
    assert one.contains(moved_ND, tolerance=1e-9).all()
    for start_D, moved_D in zip(start_ND, moved_ND, strict=True):
        way_D, whole_D = moved_D - one.interior_point_D, start_D - one.interior_point_D
        part = float(way_D @ whole_D / (whole_D @ whole_D))
        np.testing.assert_allclose(way_D, part * whole_D, atol=1e-8)
        if part < 1.0 - 1e-6:
            assert is_off(one, one.interior_point_D + (part + 1e-5) * whole_D)


@pytest.mark.parametrize("one", ALL)
def test_the_middle_is_in_the_set_with_room_on_every_side_that_has_some(one):
    assert one.contains(one.interior_point_D)[0]
    for place in range(one.dimensions):
        cube = np.full((2, one.dimensions), 0.5)
        cube[:, place] = (0.1, 0.9)
        for end_D in one.from_cube(cube):
            way_D = 1e-4 * (end_D - one.interior_point_D)
            assert one.contains(one.interior_point_D - way_D, tolerance=1e-12)[0]


def test_a_step_goes_all_the_way_or_to_the_first_limit():
    one = allowed(TEXT)
    start_ND = np.array([[0.45, 0.3, 0.25, 0.0]] * 3)
    moves_ND = np.array([[-0.02, 0.02, 0, 0], [-0.2, 0.1, 0.1, 0], [0.0, -0.5, 0.5, 0]])
    expected = [[0.43, 0.32, 0.25, 0], [0.4, 0.325, 0.275, 0], [0.45, 0.0, 0.55, 0]]
    np.testing.assert_allclose(one.step(start_ND, moves_ND), expected, atol=1e-12)


def test_a_step_stops_at_the_radius():
    one = allowed(NEAR)
    start_1D, move_1D = NATURAL_D[None], np.array([[0.5, -0.25, -0.2, -0.05]])
    (end_D,) = one.step(start_1D, move_1D)
    np.testing.assert_allclose(end_D, NATURAL_D + 0.4 * move_1D[0], atol=1e-9)


def test_a_group_that_is_fixed_holds_for_all_and_is_a_tie_for_a_descent():
    one = allowed(TIED)
    drawn_ND = one.from_cube(cubes(0, 100, one.dimensions))
    np.testing.assert_allclose(drawn_ND[:, 1:3].sum(axis=1), 0.5, atol=1e-9)
    rows, convex = limits_of(one)
    ties_ED, values_E = rows.ties
    assert convex == ()
    assert len(ties_ED) == 2
    np.testing.assert_allclose(ties_ED @ drawn_ND.T, values_E[:, None] + np.zeros(100), atol=1e-9)
    assert rows.rows_RD.shape == (0, 4)


def test_a_domain_that_is_fixed_by_its_group_is_fixed_in_a_descent():
    fields = {
        "bounds": {"prose": (0.2, 1.0), "law": (0.3, 1.0)},
        "groups": {"text": {"domains": ["prose", "law"], "bounds": (0.0, 0.5)}},
    }
    rows, _ = limits_of(allowed(fields))
    np.testing.assert_allclose(rows.lower_D[1:3], [0.2, 0.3], atol=1e-9)
    np.testing.assert_allclose(rows.upper_D[1:3], [0.2, 0.3], atol=1e-9)
    assert rows.upper_D[0] == 1.0


def test_bounds_alone_are_rows_without_a_tie():
    simplex = CappedSimplex(np.array([0.1, 0.0]), np.array([1.0, 0.5]))
    rows, convex = limits_of(simplex)
    assert convex == ()
    assert rows.ties is None
    assert rows.rows_RD.shape == (0, 2)
    assert (rows.lower_D.tolist(), rows.upper_D.tolist()) == ([0.1, 0.0], [1.0, 0.5])


def test_a_radius_with_room_for_one_mixture_alone_has_no_dimensions():
    one = allowed({"bounds": {"mail": (0.3, 1.0)}, "radius": {"tv": 0.2 * (1 + 1e-12)}})
    assert one.dimensions == 0
    (drawn_D, same_D) = one.from_cube(np.empty((2, 0)))
    assert drawn_D.tolist() == same_D.tolist()
    assert drawn_D[3] == pytest.approx(0.3, abs=1e-6)
    assert total_variation(drawn_D, NATURAL_D) == pytest.approx(0.2, abs=1e-6)


def test_a_domain_that_the_reference_lacks_stays_out_of_a_divergence():
    reference = Mixture({"code": 0.5, "prose": 0.5, "law": 0.0})
    radius = Radius(reference, "old", "kl", 0.3)
    none_0D = np.empty((0, 3))
    one = ConvexSet(CappedSimplex.full(3), none_0D, np.empty(0), np.empty(0), (radius,))
    assert one.upper_D.tolist() == [1.0, 1.0, 0.0]
    assert one.from_cube(cubes(0, 50, one.dimensions))[:, 2].max() == 0.0


def test_groups_that_no_mixture_meets_are_refused():
    groups_GD = np.array([[1.0, 1.0, 0.0]])
    base = CappedSimplex(np.zeros(3), np.array([1.0, 1.0, 0.3]))
    with pytest.raises(
        InfeasibleError, match="no mixture satisfies these bounds of domains and group"
    ):
        ConvexSet(base, groups_GD, np.zeros(1), np.array([0.6]))


def test_a_radius_that_no_mixture_meets_is_refused_with_the_radius():
    radius = Radius(Mixture.from_array(tuple(INVENTORY), NATURAL_D), "natural", "tv", 0.1)
    base = CappedSimplex(np.array([0.0, 0, 0, 0.3]), np.ones(4))
    with pytest.raises(InfeasibleError, match=r"has total variation from natural <= 0.1"):
        ConvexSet(base, np.empty((0, 4)), np.empty(0), np.empty(0), (radius,))


def radii(kl, tv):
    uniform = Radius(Mixture.uniform(tuple(INVENTORY)), "uniform", "kl", kl)
    return uniform, Radius(Mixture.from_array(tuple(INVENTORY), NATURAL_D), "natural", "tv", tv)


@settings(max_examples=25, deadline=None)
@given(kl=st.floats(0.02, 0.3), tv=st.floats(0.12, 0.3), seed=st.integers(0, 99))
def test_two_convex_limits_hold_together(kl, tv, seed):
    none = np.empty((0, 4)), np.empty(0), np.empty(0)
    one = ConvexSet(CappedSimplex.full(4), *none, radii(kl, tv))
    points_ND = np.random.default_rng(seed).dirichlet(np.ones(4), 6)
    for mapped_ND in (one.project(points_ND), one.inside(points_ND), one.from_cube(cubes(0, 9, 3))):
        for limit in radii(kl, tv):
            assert (limit.value(mapped_ND) <= limit.size + 1e-8).all()
    assert len(np.unique(one.from_cube(cubes(0, 9, 3)).round(7), axis=0)) == 9
    first_D = one.project(points_ND[0])
    drawn_ND = one.inside(np.random.default_rng(1).dirichlet(np.ones(4), 3000))
    away_N = np.linalg.norm(drawn_ND - points_ND[0], axis=1)
    assert np.linalg.norm(first_D - points_ND[0]) <= away_N.min() + 1e-6


def test_two_convex_limits_without_a_common_mixture_are_refused_with_both():
    none = np.empty((0, 4)), np.empty(0), np.empty(0)
    with pytest.raises(InfeasibleError, match="uniform <= 0.001 and total variation from natural"):
        ConvexSet(CappedSimplex.full(4), *none, radii(0.001, 0.01))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_all_maps_keep_to_random_groups_around_a_mixture(seed):
    rng = np.random.default_rng(seed)
    inside_D, groups_GD = rng.dirichlet(np.ones(5)), (rng.random((2, 5)) < 0.5).astype(float)
    sums_G = groups_GD @ inside_D
    least_G, most_G = sums_G * rng.random(2), sums_G + (1 - sums_G) * rng.random(2)
    one = ConvexSet(CappedSimplex.full(5), groups_GD, least_G, most_G)
    points_ND = rng.dirichlet(np.full(5, 0.3), 8)
    for mapped_ND in (
        one.project(points_ND),
        one.inside(points_ND),
        one.from_cube(rng.random((8, one.dimensions))),
        one.step(one.inside(points_ND), points_ND - points_ND[::-1]),
    ):
        assert one.contains(mapped_ND, tolerance=1e-8).all()
