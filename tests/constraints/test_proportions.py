"""Domains in fixed ratios: what is drawn, projected, refused."""

import numpy as np
import pytest

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, InfeasibleError
from mixopt.mixture import Mixture

INVENTORY = {"web": 600, "books": 300, "forums": 100, "code": 50, "maths": 50}
NATURAL = ["web", "books", "forums"]


def limits(given=NATURAL, **others):
    config = ConstraintsConfig.model_validate({"proportions": {"base": given}, **others})
    return Constraints.from_config(config, INVENTORY, 1000)


def in_ratio(weights_ND, ratios=(0.6, 0.3, 0.1)):
    total_N1 = weights_ND[:, :3].sum(axis=1, keepdims=True)
    return np.abs(weights_ND[:, :3] - np.array(ratios) * total_N1).max() < 1e-9


def test_all_that_is_drawn_is_in_the_ratios_and_fills_what_is_left():
    allowed = limits().simplex
    assert allowed.dimensions == 4
    drawn_ND = allowed.from_cube(np.random.default_rng(0).random((500, allowed.dimensions)))
    assert in_ratio(drawn_ND)
    assert np.ptp(drawn_ND[:, 3]) > 0.5
    assert np.ptp(drawn_ND[:, 0]) > 0.3


def test_a_point_is_projected_into_the_ratios():
    points_ND = np.random.default_rng(1).dirichlet(np.ones(5), size=50)
    assert in_ratio(limits().simplex.project(points_ND))


def test_ratios_may_be_given_as_weights_and_a_domain_may_have_none():
    drawn_ND = limits({"web": 3, "books": 1, "forums": 0}).simplex.project(np.eye(5))
    assert in_ratio(drawn_ND, (0.75, 0.25, 0.0))


def test_bounds_hold_beside_the_ratios():
    drawn_ND = limits(bounds={"web": [0, 0.3]}).simplex.project(np.eye(5))
    assert in_ratio(drawn_ND)
    assert drawn_ND[:, 0].max() <= 0.3 + 1e-9


def test_a_mixture_out_of_the_ratios_violates_them():
    mixture = Mixture({"web": 0.5, "books": 0.1, "forums": 0.1, "code": 0.3, "maths": 0.0})
    (line,) = limits().violations(mixture)
    assert "'web': a weight of 0.5 is not in the ratios of constraints.proportions.base" in line
    assert limits().violations(Mixture.natural(INVENTORY)) == []


def test_bounds_that_contradict_the_ratios_are_refused():
    with pytest.raises(InfeasibleError, match=r"no mixture keeps the ratios of .*\.base"):
        limits(bounds={"books": [0.2, 1], "web": [0, 0.1]})


def test_an_unknown_domain_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown domain 'book'; did you mean 'books'"):
        limits({"web": 1, "book": 1})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["web"], "two domains or more"),
        ({"web": 0, "books": 0}, "all 0"),
    ],
)
def test_ratios_that_cannot_be_right_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        limits(given)
