"""A distance from a reference: its value, its slope, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from mixopt.constraints.limits import Radius
from mixopt.mixture import Mixture

REFERENCE = Mixture({"a": 0.5, "b": 0.5, "c": 0.0})


def radius(kind="tv", size=0.2) -> Radius:
    return Radius(REFERENCE, "natural", kind, size)


def test_total_variation_is_the_share_that_changes_domain():
    assert radius().value([[0.5, 0.5, 0], [0.3, 0.5, 0.2]]).tolist() == [0.0, 0.2]


def test_the_divergence_is_of_the_mixture_from_the_reference():
    away_N = radius("kl").value([[0.5, 0.5, 0], [1.0, 0, 0], [0.25, 0.75, 0]])
    assert away_N == pytest.approx([0.0, np.log(2), 0.25 * np.log(0.5) + 0.75 * np.log(1.5)])


def test_what_the_reference_lacks_is_infinitely_far_and_rounding_is_not():
    assert radius("kl").value([[0.4, 0.4, 0.2]])[0] == np.inf
    assert radius("kl").value([[0.5, 0.5, 1e-13]])[0] == pytest.approx(0.0, abs=1e-9)


def test_a_weight_below_0_by_rounding_counts_as_0():
    assert radius("kl").value([[1.0, -1e-15, 0.0]])[0] == pytest.approx(np.log(2))


def test_the_slope_is_that_of_the_divergence():
    weights_D, step = np.array([0.3, 0.7, 0.0]), 1e-6
    slope_D = radius("kl").slope(weights_D)
    for place in range(2):
        moved_D = step * np.eye(3)[place]
        pair_N = radius("kl").value([weights_D + moved_D, weights_D - moved_D])
        assert slope_D[place] == pytest.approx((pair_N[0] - pair_N[1]) / (2 * step), abs=1e-6)
    assert slope_D[2] == 0.0


def test_the_slope_is_finite_at_a_weight_of_0():
    assert radius("kl").slope(np.array([1.0, 0.0, 0.0]))[1] == pytest.approx(
        np.log(1e-12 / 0.5) + 1.0
    )


def test_a_least_distance_may_miss_the_radius_by_a_millionth_of_it():
    assert radius(size=0.2).allows(0.2 * (1 + 9e-7))
    assert not radius(size=0.2).allows(0.2 * (1 + 1e-5))
    assert radius("kl", 5.0).allows(5.0 * (1 + 9e-7))
    assert not radius("kl", 0.01).allows(0.01 + 1e-7)


def test_a_mixture_too_far_away_is_told_the_radius_that_would_allow_it():
    beyond = np.array([0.3, 0.3, 0.4])
    assert radius().violation(beyond, 1e-6) == (
        "the mixture is 0.4 (total variation) from natural; constraints.radius.tv is 0.2. Move "
        "it closer, or allow tv: 0.4."
    )
    assert radius("kl").violation(beyond, 1e-6) == (
        "the mixture is inf (KL divergence) from natural; constraints.radius.kl is 0.2. Move it "
        "closer."
    )


def test_a_mixture_within_the_radius_to_the_tolerance_is_not_refused():
    close = np.array([0.3, 0.5, 0.2])
    assert radius(size=0.19).violation(close, 0.011) is None
    assert radius(size=0.19).violation(close, 0.009) is not None


def test_the_radius_holds_a_mixture_that_is_at_it():
    at = np.array([0.3, 0.5, 0.2])
    found = {size: radius(size=size).binds(at) for size in (0.2, 0.25, 0.2003, 0.201, 0.15)}
    assert found == {0.2: True, 0.25: False, 0.2003: True, 0.201: False, 0.15: False}


def test_the_reference_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        radius().center_D[0] = 1.0
