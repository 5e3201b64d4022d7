"""What a search minimises: the objective, guardrails first, and mixtures that are worth a look."""

from __future__ import annotations

import numpy as np
import pytest
from made_fit import table

from mixopt.config import ConstraintsConfig, FitConfig
from mixopt.constraints import CappedSimplex, Constraints, Guards
from mixopt.constraints.guardrails import Guardrails
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Problem, ProposalRequest
from mixopt.proposals.search import FAR, KNOWN, descend, least_broken

DOMAINS = ("code", "law", "mail")
TARGETS = ("code", "law", "math")
INVENTORY = {"code": 500, "law": 300, "mail": 200}
NATURAL = Mixture.natural(INVENTORY)
UNIFORM_D = np.full(3, 1 / 3)


class Slopes:
    """Losses that are linear in the weights."""

    def __init__(self, *slopes_MD) -> None:
        self.slopes_MD = np.array(slopes_MD, dtype=float)

    def predict(self, weights_ND, return_std=False):
        means_NM = weights_ND @ self.slopes_MD.T
        return (means_NM, weights_ND[:, :1] + 0 * means_NM) if return_std else means_NM

    def gradient(self, _):
        return self.slopes_MD


def problem(regressor, names=("a",), kind="target", known=(), **fields) -> Problem:
    weights = {"a": 1.0} if kind == "target" else dict.fromkeys(names, 1.0)
    objective = Objective(names, kind, weights)
    known_ND = np.array(known, dtype=float).reshape(-1, 3)
    return Problem(regressor, objective, CappedSimplex.full(3), NATURAL.array, known_ND, **fields)


def guards(margin: float, names=("a", "b"), reference_D=UNIFORM_D) -> Guards:
    objective = Objective(names, "target", {"a": 1.0})
    return Guards.on(objective, Guardrails("uniform", None, {"b": margin}), reference_D)


def constraints(**fields) -> Constraints:
    return Constraints.from_config(ConstraintsConfig(**fields), INVENTORY)


def test_a_broken_guardrail_is_worse_than_any_value_and_the_more_the_worse():
    asked = problem(Slopes([1, 0, 0], [0, 3, 0]), ("a", "b"), guards=guards(0.5))
    weights_ND = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0.6, 0.4], [0, 1.0, 0]])
    np.testing.assert_allclose(asked.excess(weights_ND)[:, 0], [-1.5, 0.0, 0.3, 1.5], atol=1e-12)
    assert asked.value(weights_ND).tolist() == [1.0, 0.0, 0.0, 0.0]
    scores_N = asked.score(weights_ND)
    np.testing.assert_allclose(scores_N, [1.0, 0.0, 1.3 * FAR, 2.5 * FAR])


# The problem of a fit ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit():
    weights_ND = np.random.default_rng(0).dirichlet(np.ones(3), 24)
    losses_NM = 4.0 - weights_ND @ np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]])
    objective, trials = Objective(TARGETS, "target", {"math": 1.0}), (DOMAINS, TARGETS)
    return fit_trials(
        table(weights_ND, losses_NM, *trials),
        FitConfig(regressors=["linear"], folds=4),
        objective,
        0,
    )


def of(fit, limits: Constraints, collapsed=None) -> Problem:
    return Problem.of(ProposalRequest(fit, limits, NATURAL, collapsed=collapsed))


def test_the_losses_that_are_needed_are_the_measured_ones_then_the_guarded(fit):
    def needed(**fields):
        return ProposalRequest(fit, constraints(**fields), NATURAL).needed_columns

    assert needed() == [2]
    assert needed(guardrails={"targets": {"code": 0.1, "math": 0.1}}) == [2, 0]
    assert needed(guardrails={"margin": 0.1}) == [2, 0, 1]


def test_the_search_of_a_fit_predicts_what_is_needed_and_knows_the_best_trials(fit):
    asked = of(fit, constraints(bounds={"law": (0.1, 1.0)}, guardrails={"targets": {"code": 0.2}}))
    predicted_NM = fit.predict(np.eye(3), fit.objective).losses_NM
    np.testing.assert_allclose(asked.losses(np.eye(3)), predicted_NM[:, [2, 0]])
    assert asked.objective.evaluation == ("math", "code")
    assert asked.allowed.lower_D.tolist() == [0.0, 0.1, 0.0]
    assert asked.natural_D.tolist() == NATURAL.array.tolist()
    order = np.argsort(fit.trials.losses("bits_per_byte")[:, 2])[:KNOWN]
    assert asked.known_ND.tolist() == fit.trials.weights()[order].tolist()
    assert asked.guards.reference_D.tolist() == NATURAL.array.tolist()
    assert asked.avoided is None


# Draws and descents -----------------------------------------------------------------------------


def test_a_descent_finds_a_vertex_and_keeps_a_guardrail_with_a_little_room():
    free = problem(Slopes([-1, 0, 0]))
    np.testing.assert_allclose(descend(free, UNIFORM_D).weights_D, [1, 0, 0], atol=1e-9)
    asked = problem(Slopes([-1, 0, 0], [1, 0, 0]), ("a", "b"), guards=guards(0.1))
    found = descend(asked, UNIFORM_D)
    assert found.weights_D[0] == pytest.approx(1 / 3 + 0.1, abs=1e-5)
    assert asked.excess(found.weights_D[None])[0, 0] <= 0.0
    assert found.value == pytest.approx(-found.weights_D[0])


def test_a_descent_of_the_worst_loss_keeps_guardrails_too():
    names = ("a", "b", "c")
    asked = Problem(
        Slopes([-1, 0, 0], [0, -1, 0], [1, 1, 0]),
        Objective(names, "worst", {"a": 1.0, "b": 1.0}),
        CappedSimplex.full(3),
        NATURAL.array,
        np.empty((0, 3)),
        guards=Guards.on(
            Objective(names, "target", {"a": 1.0}),
            Guardrails("uniform", None, {"c": 0.1}),
            UNIFORM_D,
        ),
    )
    found = descend(asked, UNIFORM_D)
    both = (2 / 3 + 0.1) / 2
    np.testing.assert_allclose(found.weights_D, [both, both, 1 - 2 * both], atol=1e-4)


def test_the_least_broken_mixture_breaks_the_worst_guardrail_least():
    rails = Guardrails("uniform", 0.0)
    names = ("a", "b")
    asked = problem(
        Slopes([-1, 0, 0], [0, -1, 0]),
        names,
        guards=Guards.on(Objective(names, "target", {"a": 1.0}), rails, np.array([0.6, 0.4, 0])),
    )
    bounds = CappedSimplex(np.array([0, 0, 0.2]), np.ones(3))
    asked = Problem(
        asked.regressor, asked.objective, bounds, NATURAL.array, asked.known_ND, asked.guards
    )
    # 0.2 is missing; half of it from each.
    nearest_D = least_broken(asked, np.array([0.8, 0.0, 0.2]))
    np.testing.assert_allclose(nearest_D, [0.5, 0.3, 0.2], atol=1e-5)


# Edges -----------------------------------------------------------------------------------------


def test_a_guardrail_that_is_broken_by_what_a_tolerance_misses_counts_as_kept():
    asked = problem(Slopes([1, 0, 0], [0, 1, 0]), ("a", "b"), guards=guards(0.0))
    just, more = (np.array([[0.0, 1 / 3 + over, 2 / 3 - over]]) for over in (5e-10, 1e-4))
    assert asked.score(just).tolist() == [0.0]
    assert asked.score(more)[0] > FAR
