"""The search finds optima that are known, inside the limits, and never loses what it saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mixopt_regressors.laws import LogLinearRegressor

from mixopt.constraints import CappedSimplex
from mixopt.objective import Objective
from mixopt.proposals import Problem, search


class Bowls:
    """Losses with known minima: squared distances from one mixture for each target."""

    def __init__(self, *bottoms: list[float]) -> None:
        self.bottoms_MD = np.array(bottoms)
        self.largest_batch = 0

    def predict(self, weights_ND: np.ndarray) -> np.ndarray:
        self.largest_batch = max(self.largest_batch, len(weights_ND))
        return ((weights_ND[:, None] - self.bottoms_MD) ** 2).sum(axis=2)

    def gradient(self, weights_D: np.ndarray) -> np.ndarray:
        return 2 * (weights_D - self.bottoms_MD)


class Blind:
    """The same, without a gradient."""

    def __init__(self, inner: Any) -> None:
        self.predict = inner.predict


def problem(
    regressor: Any, allowed: CappedSimplex | None = None, kind: str = "target", **options: Any
) -> Problem:
    names = ("a", "b") if kind == "worst" else ("a",)
    objective = Objective(names, kind, dict.fromkeys(names, 1.0))
    allowed = allowed or CappedSimplex.full(3)
    domains = len(allowed.lower_D)
    natural_D = np.arange(1.0, domains + 1) / np.arange(1, domains + 1).sum()
    return Problem(regressor, objective, allowed, natural_D, np.empty((0, domains)), **options)


def test_the_gradient_method_stops_at_the_limits_and_not_before():
    allowed = CappedSimplex(np.array([0.0, 0.0, 0.1]), np.array([1.0, 0.4, 1.0]))
    found = search(problem(Bowls([0.2, 0.8, 0.0]), allowed, method="gradient"))
    # The nearest allowed point to the bottom: 0.4 at its cap, and half the rest to each.
    assert found.weights_D == pytest.approx([0.4, 0.4, 0.2], abs=1e-5)


def test_the_gradient_method_meets_the_worst_of_two_halfway():
    found = search(problem(Bowls([1.0, 0, 0], [0, 1.0, 0]), kind="worst", method="gradient"))
    assert found.weights_D == pytest.approx([0.5, 0.5, 0], abs=1e-4)
    assert found.value == pytest.approx(0.5, abs=1e-6)


def test_simulation_comes_near_the_bottom():
    found = search(problem(Blind(Bowls([0.2, 0.5, 0.3]))))
    assert found.method == "simulation"
    assert found.weights_D == pytest.approx([0.2, 0.5, 0.3], abs=0.03)


def test_a_known_mixture_that_is_better_than_all_draws_is_kept():
    spike_D = np.array([0.123456, 0.654321, 1 - 0.123456 - 0.654321])

    class Spike:
        def predict(self, weights_ND: np.ndarray) -> np.ndarray:
            return (np.abs(weights_ND - spike_D).max(axis=1) > 1e-9).astype(float)[:, None]

    hidden = problem(Spike())
    known = Problem(
        hidden.regressor, hidden.objective, hidden.allowed, hidden.natural_D, spike_D[None]
    )
    assert search(known).value == 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), domains=st.integers(2, 8), worst=st.booleans())
def test_what_is_found_is_allowed_and_no_worse_than_anything_that_was_scored(seed, domains, worst):
    rng = np.random.default_rng(seed)
    inside_D = rng.dirichlet(np.ones(domains))
    lower_D, upper_D = (
        inside_D * rng.random(domains),
        inside_D + (1 - inside_D) * rng.random(domains),
    )
    bowls = Bowls(*rng.dirichlet(np.ones(domains), 2 if worst else 1).tolist())
    kind = "worst" if worst else "target"
    options = {"samples": 300, "average": 32, "seed": seed}
    asked = problem(bowls, CappedSimplex(lower_D, upper_D), kind, **options)
    found = search(asked)
    assert asked.allowed.contains(found.weights_D, tolerance=1e-12).all()
    # What SLSQP tries on its way is outside the limits, so only allowed mixtures are compared.
    scored_ND = asked.allowed.project(rng.dirichlet(np.ones(domains), 300))
    assert found.value <= asked.value(scored_ND).min() + 1e-9


def test_a_mixing_law_is_minimised_to_its_vertex():
    rng = np.random.default_rng(0)
    weights_ND = rng.dirichlet(np.ones(3), 60)
    fitted = LogLinearRegressor(1e-6).fit(weights_ND, np.exp(weights_ND @ [[-2.0], [0.0], [-1.0]]))
    found = search(problem(fitted))
    assert found.weights_D == pytest.approx([1, 0, 0], abs=1e-6)
