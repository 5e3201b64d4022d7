"""A descent by projected gradients ends at the least value within the bounds."""

import numpy as np
from hypothesis import given, settings, strategies as st

from mixopt.constraints import CappedSimplex, DifferentiableFunction
from mixopt.proposals.search import projected_descent


def bowl(target_D, scales_D):
    return DifferentiableFunction(
        lambda w: (scales_D * (w - target_D) ** 2).sum(keepdims=True),
        lambda w: 2.0 * scales_D * (w - target_D)[None],
    )


def test_the_nearest_allowed_mixture_to_a_point_outside_is_found():
    allowed = CappedSimplex(np.zeros(3), np.array([1.0, 0.5, 1.0]))
    target = np.array([0.2, 1.4, -0.1])
    cost = bowl(target, np.ones(3))
    found = projected_descent(cost, allowed.project, np.full(3, 1 / 3), accuracy=1e-12)
    # Code has its cap; the nearest of the others on w0 + w2 = .5 is .2 and -.1, moved by .2 each.
    np.testing.assert_allclose(found, [0.4, 0.5, 0.1], atol=1e-6)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_an_uneven_bowl_of_many_domains_ends_where_its_slope_pushes_out(seed):
    rng = np.random.default_rng(seed)
    allowed = CappedSimplex(np.zeros(100), np.full(100, 0.1))
    cost = bowl(rng.normal(0.01, 0.05, 100), np.exp(rng.normal(0, 1, 100)))
    found = projected_descent(cost, allowed.project, np.full(100, 0.01), accuracy=1e-13)
    free = (found > 1e-6) & (found < 0.1 - 1e-6)
    slope_D = cost.slopes(found)[0]
    level = slope_D[free].mean()
    assert np.ptp(slope_D[free]) < 1e-3
    assert slope_D[found <= 1e-6].min(initial=np.inf) > level - 1e-3
    assert slope_D[found >= 0.1 - 1e-6].max(initial=-np.inf) < level + 1e-3
