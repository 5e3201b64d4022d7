"""Domains that no loss measures keep a share of their natural weight, where that is allowed."""

from __future__ import annotations

import numpy as np

from mixopt.config import ConstraintsConfig
from mixopt.constraints import Constraints
from mixopt.mixture import Mixture
from mixopt.proposals.best_mixture import keeping_unmeasured

INVENTORY = {"code": 500, "law": 300, "mail": 200}
NATURAL = Mixture.natural(INVENTORY)


def constraints(**fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY)


def test_a_floor_is_a_share_of_the_natural_weight_and_gives_way():
    limits = constraints(bounds={"mail": (0.0, 0.05)})
    kept, names = keeping_unmeasured(limits, NATURAL, ("code",), 0.5)
    assert names == ("law", "mail")
    np.testing.assert_allclose(kept.lower_D, [0.0, 0.15, 0.05])
    assert keeping_unmeasured(limits, NATURAL, ("code",), 0.0) == (limits, ())
    assert keeping_unmeasured(limits, NATURAL, ("math",), 0.5) == (limits, ())


def test_floors_that_leave_no_mixture_are_left_out():
    limits = constraints(groups={"rest": {"domains": ["law", "mail"], "bounds": (0.0, 0.1)}})
    assert keeping_unmeasured(limits, NATURAL, ("code",), 1.0) == (limits, ())


def test_a_domain_without_tokens_gets_no_floor():
    natural = Mixture({"code": 0.5, "law": 0.5, "mail": 0.0})
    assert keeping_unmeasured(constraints(), natural, ("code",), 0.5)[1] == ("law",)
