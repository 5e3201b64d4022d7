"""One part of a mixture is optimised with the rest held."""

import numpy as np
import pytest

from mixopt import Mixture
from mixopt.config import read_constraints
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError, InfeasibleError

SIZES = dict.fromkeys(("web/a", "web/b", "code", "law"), 100)
REFERENCE = Mixture({"web/a": 0.1, "web/b": 0.3, "code": 0.4, "law": 0.2})


def frozen(free, **limits):
    own = Constraints.from_config(read_constraints(limits), SIZES)
    return own.frozen_but(free, REFERENCE, "ref.yaml")


def test_a_branch_moves_and_the_rest_keeps_its_shares():
    drawn_ND = frozen(["web"]).simplex.from_cube(np.linspace(0, 1, 5)[:, None])
    np.testing.assert_allclose(drawn_ND[:, 2:], [[0.4, 0.2]] * 5)
    assert np.ptp(drawn_ND[:, 0]) == pytest.approx(0.4)


def test_limits_of_what_moves_still_hold():
    assert frozen(["web"], bounds={"web/a": [0, 0.15]}).upper_D[0] == 0.15


def test_what_is_held_is_one_active_constraint():
    assert frozen(["web"]).binding(REFERENCE) == [
        "2 domains are fixed (--free, at the shares of ref.yaml)"
    ]


def test_a_mixture_that_the_limits_forbid_is_named():
    with pytest.raises(InfeasibleError, match="at the shares of ref.yaml"):
        frozen(["web"], bounds={"code": [0, 0.3]})


@pytest.mark.parametrize(
    ("free", "message"),
    [
        (["wbe"], "--free wbe: unknown domain 'wbe'"),
        (["code"], "--free code: one domain alone has what the others leave"),
    ],
)
def test_what_cannot_move_is_one_line(free, message):
    with pytest.raises(ConfigError, match=message):
        frozen(free)
