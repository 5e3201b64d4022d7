"""Sets of mixtures: every map keeps to the limits, reaches all that they leave, and is even."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from refusals import refuses
from scipy.stats import ks_2samp, qmc

from mixopt.config import ConstraintsConfig
from mixopt.constraints import CappedSimplex, Constraints, DifferentiableFunction, FeasibleSet
from mixopt.errors import InfeasibleError
from mixopt.mixture import Mixture, total_variation

UNIT = st.floats(0, 1)
INVENTORY = {"code": 400, "prose": 300, "law": 200, "mail": 100}
NATURAL_D = np.array([0.4, 0.3, 0.2, 0.1])
TEXT = {"groups": {"text": {"domains": ["prose", "law"], "bounds": (0.5, 0.6)}}}
NEAR = {"radius": {"tv": 0.2}}
SETS = {
    "group": TEXT,
    "tv": NEAR,
    "kl": {"radius": {"kl": 0.05}, "bounds": {"mail": (0.12, 1.0)}},
    "tied": {"groups": {"text": {"domains": ["prose", "law"], "bounds": (0.5, 0.5)}}},
    "all": {**TEXT, "radius": {"tv": 0.1}},
}


def allowed(fields, inventory=INVENTORY) -> FeasibleSet:
    return Constraints.from_config(ConstraintsConfig(**fields), inventory).allowed


@st.composite
def simplices(draw):
    """Bounds around a point of the simplex, from loose to exactly tight."""
    domains = draw(st.integers(1, 10))
    raw = draw(arrays(np.float64, domains, elements=st.floats(0.001, 1)))
    point = raw / raw.sum()
    down, up = draw(arrays(np.float64, (2, domains), elements=UNIT))
    return CappedSimplex(point * down, np.minimum(point + (1 - point) * up, 1.0))


@given(simplex=simplices(), data=st.data())
def test_cube_and_projection_land_in_the_bounds_and_no_point_of_them_is_nearer(simplex, data):
    cube = data.draw(arrays(np.float64, (20, simplex.dimensions), elements=UNIT))
    drawn_ND = simplex.from_cube(cube)
    assert simplex.contains(drawn_ND, tolerance=1e-12).all()
    np.testing.assert_allclose(simplex.project(drawn_ND), drawn_ND, atol=1e-12)
    shape = (3, len(simplex.lower_D))
    points_ND = data.draw(arrays(np.float64, shape, elements=st.floats(-1e3, 1e3)))
    near_ND = simplex.project(points_ND)
    assert simplex.contains(near_ND, tolerance=1e-12).all()
    away_N = np.linalg.norm(near_ND - points_ND, axis=1)
    others_NK = np.linalg.norm(drawn_ND[None] - points_ND[:, None], axis=2)
    assert (away_N <= others_NK.min(axis=1) + 1e-9).all()


def test_sobol_points_are_spread_as_uniform_points_found_by_rejection():
    lower, upper = [0.1, 0, 0.05, 0], [0.3, 0.5, 0.2, 0.6]
    simplex = CappedSimplex(np.array(lower), np.array(upper))
    points = simplex.from_cube(qmc.Sobol(simplex.dimensions, rng=0).random_base2(13))
    room, rng = 1 - simplex.lower_D.sum(), np.random.default_rng(0)
    drawn = simplex.lower_D + room * rng.dirichlet(np.ones(len(lower)), 1_000_000)
    reference = drawn[simplex.contains(drawn)]
    assert len(reference) > 10_000
    # Largest distance of the distributions: a sample of 10,000 misses by 0.0163 in 1% of cases.
    for d in range(len(lower)):
        assert ks_2samp(points[:, d], reference[:, d]).statistic < 0.0163
    np.testing.assert_allclose(np.cov(points.T), np.cov(reference.T), atol=4e-4)


@pytest.mark.parametrize(
    "upper_D",
    [
        1.0001 * np.random.default_rng(0).dirichlet(np.full(17, 0.5)),
        pytest.param(np.full(300, 0.02), marks=pytest.mark.nightly),
    ],
)
def test_tight_caps_and_many_domains_give_different_points_without_rejection(upper_D):
    simplex = CappedSimplex(np.zeros(len(upper_D)), upper_D)
    points = simplex.from_cube(qmc.Sobol(simplex.dimensions, rng=0).random_base2(8))
    assert simplex.contains(points, tolerance=1e-12).all()
    assert len(np.unique(points.round(9), axis=0)) == len(points)


def test_bounds_that_leave_one_point_or_fix_a_domain_take_no_dimension():
    point = CappedSimplex(np.array([0.4, 0.6]), np.array([0.4, 0.6]))
    np.testing.assert_allclose(point.from_cube(np.zeros((2, 0))), [[0.4, 0.6]] * 2)
    fixed = CappedSimplex(np.array([0, 0.2, 0]), np.array([1, 0.2, 1]))
    assert fixed.dimensions == 1
    np.testing.assert_allclose(fixed.from_cube([[0.25]])[0, 1], 0.2)
    full = CappedSimplex(np.zeros(10), np.full(10, 0.1))
    np.testing.assert_allclose(full.project(np.arange(10.0)), 0.1, atol=1e-9)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.6, 0.6], [1, 1], "lower bounds add up to 1.2, more than 1"),
        ([0, 0], [0.3, 0.4], "upper bounds add up to 0.7, less than 1"),
        ([float("nan"), 0], [1, 1], "domain 0: bounds nan and 1"),
        ([0.0] * 2, [1.0] * 3, r"bounds of shapes \(2,\) and \(3,\)"),
    ],
)
def test_bounds_that_hold_no_mixture_and_points_of_another_cube_are_refused(lower, upper, message):
    refuses(InfeasibleError, message, CappedSimplex, np.array(lower, float), np.array(upper, float))
    for dimensions in (1, 3):
        with pytest.raises(ValueError, match=f"cube points of {dimensions} dimensions, not 2"):
            CappedSimplex.full(3).from_cube([0.5] * dimensions)


@pytest.mark.parametrize("fields", SETS.values(), ids=SETS)
def test_every_map_keeps_to_groups_and_a_radius_and_loses_nothing(fields):
    region, rng = allowed(fields), np.random.default_rng(0)
    drawn_ND = region.from_cube(rng.random((2000, region.dimensions)))
    assert region.contains(drawn_ND, tolerance=1e-9).all()
    assert len(np.unique(drawn_ND.round(7), axis=0)) == 2000
    np.testing.assert_allclose(region.inside(drawn_ND[:20]), drawn_ND[:20], atol=1e-9)
    np.testing.assert_allclose(region.project(drawn_ND[:20]), drawn_ND[:20], atol=1e-9)
    points_ND = rng.normal(0.25, 0.5, (15, 4))
    near_ND = region.project(points_ND)
    assert region.contains(near_ND, tolerance=1e-9).all()
    away_N = np.linalg.norm(near_ND - points_ND, axis=1)
    others_N = np.linalg.norm(drawn_ND[None] - points_ND[:, None], axis=2).min(axis=1)
    assert (away_N <= others_N + 1e-6).all()


@pytest.mark.parametrize("fields", [TEXT, NEAR], ids=["group", "tv"])
def test_what_is_outside_is_pulled_straight_to_the_middle_and_no_farther_than_it_must(fields):
    region = allowed(fields)
    points_ND = np.random.default_rng(3).dirichlet(np.full(4, 0.3), 50)
    outside_ND = points_ND[~region.contains(points_ND)]
    start_ND, moved_ND = region.bounds.project(outside_ND), region.inside(outside_ND)
    assert region.contains(moved_ND, tolerance=1e-9).all()
    for start_D, moved_D in zip(start_ND, moved_ND, strict=True):
        way_D, whole_D = moved_D - region.interior_point_D, start_D - region.interior_point_D
        part = float(way_D @ whole_D / (whole_D @ whole_D))
        np.testing.assert_allclose(way_D, part * whole_D, atol=1e-8)
        beyond_D = region.interior_point_D + (part + 1e-5) * whole_D
        assert part > 1.0 - 1e-6 or not region.contains(beyond_D, tolerance=1e-9)[0]


def test_the_cube_fills_the_set_to_its_ends_and_heaps_nothing_up_there():
    cube_NK = np.random.default_rng(0).random((2000, 3))
    text_N = allowed(TEXT).from_cube(cube_NK)[:, 1:3].sum(axis=1)
    assert 0.5 + 1e-7 < text_N.min() < 0.503
    assert 0.597 < text_N.max() < 0.6 - 1e-7
    away_N = total_variation(allowed(NEAR).from_cube(cube_NK), NATURAL_D)
    assert 0.19 < away_N.max() < 0.2 - 1e-7
    assert away_N.min() < 0.05


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_all_maps_keep_to_random_groups_around_a_mixture(seed):
    rng = np.random.default_rng(seed)
    inside_D, groups_GD = rng.dirichlet(np.ones(5)), (rng.random((2, 5)) < 0.5).astype(float)
    sums_G = groups_GD @ inside_D
    least_G, most_G = sums_G * rng.random(2), sums_G + (1 - sums_G) * rng.random(2)
    rows_RD, upper_R = np.vstack([groups_GD, -groups_GD]), np.concatenate([most_G, -least_G])
    region = FeasibleSet(CappedSimplex.full(5), rows_RD, upper_R)
    points_ND = rng.dirichlet(np.full(5, 0.3), 8)
    for mapped_ND in (
        region.project(points_ND),
        region.inside(points_ND),
        region.from_cube(rng.random((8, region.dimensions))),
        region.step(region.inside(points_ND), points_ND - points_ND[::-1]),
    ):
        assert region.contains(mapped_ND, tolerance=1e-8).all()


def test_a_step_goes_all_the_way_or_to_the_first_limit():
    start_ND = np.array([[0.45, 0.3, 0.25, 0.0]] * 3)
    moves_ND = np.array([[-0.02, 0.02, 0, 0], [-0.2, 0.1, 0.1, 0], [0.0, -0.5, 0.5, 0]])
    expected = [[0.43, 0.32, 0.25, 0], [0.4, 0.325, 0.275, 0], [0.45, 0.0, 0.55, 0]]
    np.testing.assert_allclose(allowed(TEXT).step(start_ND, moves_ND), expected, atol=1e-12)
    move_1D = np.array([[0.5, -0.25, -0.2, -0.05]])
    (end_D,) = allowed(NEAR).step(NATURAL_D[None], move_1D)
    np.testing.assert_allclose(end_D, NATURAL_D + 0.4 * move_1D[0], atol=1e-9)


def test_a_radius_with_room_for_one_mixture_alone_has_no_dimensions():
    region = allowed({"bounds": {"mail": (0.3, 1.0)}, "radius": {"tv": 0.2 * (1 + 1e-12)}})
    assert region.dimensions == 0
    (drawn_D, same_D) = region.from_cube(np.empty((2, 0)))
    assert drawn_D.tolist() == same_D.tolist()
    assert total_variation(drawn_D, NATURAL_D) == pytest.approx(0.2, abs=1e-6)


def test_a_domain_that_the_reference_lacks_stays_out_of_a_divergence(tmp_path):
    Mixture({"code": 0.5, "prose": 0.5, "law": 0.0, "mail": 0.0}).to_file(tmp_path / "old.yaml")
    region = allowed({"radius": {"kl": 0.3, "reference": str(tmp_path / "old.yaml")}})
    assert region.upper_D.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert region.from_cube(np.random.default_rng(0).random((50, 1)))[:, 2:].max() == 0.0


def bowl(bottom) -> DifferentiableFunction:
    bottom_D = np.array(bottom)
    return DifferentiableFunction(
        lambda w: ((w - bottom_D) ** 2).sum(keepdims=True), lambda w: 2 * (w - bottom_D)[None]
    )


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"radius": {"tv": 0.1}}, [0.4 - 0.1 / 3, 0.3 - 0.1 / 3, 0.2 - 0.1 / 3, 0.2]),
        (SETS["tied"], [0.0, 0.3, 0.2, 0.5]),
        ({"bounds": {"prose": (0.3, 0.3)}}, [0.1, 0.3, 0.0, 0.6]),
    ],
)
def test_a_descent_ends_at_the_lowest_allowed_mixture(fields, end):
    end_D = allowed(fields).minimize(bowl([0.2, 0.1, 0.0, 0.7]), NATURAL_D)
    np.testing.assert_allclose(end_D, end, atol=1e-4)


def test_a_descent_keeps_conditions_and_a_divergence_and_stays_where_it_finds_nothing():
    above = DifferentiableFunction(lambda w: w[:1] - 0.3, lambda w: np.eye(4)[:1])
    region = allowed({"radius": {"kl": 0.1}})
    (radius,) = region.convex
    end_D = region.minimize(bowl([0, 0, 0, 1.0]), NATURAL_D, [above])
    assert end_D[0] >= 0.3 - 1e-6
    assert radius.value(end_D[None])[0] == pytest.approx(0.1, abs=1e-6)
    lost = DifferentiableFunction(lambda w: w[:1], lambda w: np.full((1, 4), np.nan))
    assert FeasibleSet.full(4).minimize(lost, NATURAL_D).tolist() == NATURAL_D.tolist()
