"""Go downhill on the predicted objective, inside all limits, from many starts.

Sequential quadratic programming (mixopt.constraints.solvers), exact in bounds, groups and radius;
one start is not enough on a law that is not convex. The worst of several losses has kinks, so it is
minimised as the least t above all of them. Guardrails are conditions on predictions; they are kept
with a little room, so that rounding breaks none. What risk adds has no gradient of its own: its
slopes are differences. Where bounds are all there is and domains are many, projected gradients take
its place (mixopt.proposals.projected_descent).

Shapes: D domains, M losses, P pieces of the objective, S starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixopt.constraints import CappedSimplex, Smooth, downhill, limits_of
from mixopt.proposals.problem import Found, Problem
from mixopt.proposals.projected_descent import projected_descent
from mixopt.system import Array

STARTS = 12
DESCENTS = 6  # of the starts, those that are predicted best
MANY = 64  # domains above which a quadratic program takes too long
FINE = 1e-10  # change of the objective at which a descent stops
ROUGH = 1e-8  # change of the objective at which descents stop that are compared with each other
ROOM = 1e-6  # in the unit of the losses, by which the descent keeps guardrails
STEP = 1e-5  # in weight, of differences


def descend(problem: Problem, start_D: Array, *, seed: int, descents: int = DESCENTS) -> Found:
    """Return the best of what many descents reach, none of it outside the limits.

    Args:
        problem: What is minimised over what.
        start_D: The first start; it goes downhill in any case.
        seed: Of the starts at random.
        descents: How many starts go downhill, the others being those that are predicted best.
    """
    rng = np.random.default_rng(seed)
    cube_SK = rng.random((STARTS, problem.allowed.dimensions))
    centers_ND = np.vstack([start_D, problem.natural_D, problem.known_ND[:4]])
    starts_SD = np.vstack([problem.allowed.project(centers_ND), problem.allowed.from_cube(cube_SK)])
    order_S = 1 + np.argsort(problem.score(starts_SD[1:]), kind="stable")
    chosen_SD = starts_SD[np.append(0, order_S[: descents - 1])]
    ends_SD = np.array([_minimise(problem, one_D, ROUGH) for one_D in chosen_SD])
    every_ND = np.vstack([starts_SD, problem.allowed.inside(ends_SD)])
    best_D = every_ND[int(np.argmin(problem.score(every_ND)))]
    # Only the best continues: near a weight of 0 most steps are for the last digits.
    last_D = problem.allowed.inside(_minimise(problem, best_D, FINE)[None])[0]
    pair_2D = np.stack([best_D, last_D])
    scores_2 = problem.score(pair_2D)
    row = int(np.argmin(scores_2))
    return Found(pair_2D[row], float(scores_2[row]), "gradient")


def least_broken(problem: Problem, start_D: Array) -> Array:
    """Return an allowed mixture at which the most broken guardrail is broken least, shape (D,)."""
    conditions = _guards(problem, room=0.0)
    end_D = _least_above(conditions, start_D, problem)
    candidates_ND = np.vstack([start_D, problem.allowed.inside(end_D[None])])
    worst_N = problem.excess(candidates_ND).max(axis=1)
    nearest_D: Array = candidates_ND[int(np.argmin(worst_N))]
    return nearest_D


def _minimise(problem: Problem, start_D: Array, accuracy: float) -> Array:
    """Return where one descent ends, to rounding inside the limits."""
    rows, radius = limits_of(problem.allowed)
    kept = [] if problem.guards is None else [_guards(problem, room=ROOM)]
    if problem.risk is not None:
        return downhill(_differences(problem), start_D, rows, radius, kept, accuracy=accuracy)
    pieces, alone = _pieces(problem), len(problem.objective.pieces()) == 1
    bounds = isinstance(problem.allowed, CappedSimplex) and not kept
    if alone and bounds and len(start_D) > MANY:
        return projected_descent(
            lambda w: float(pieces.values(w)[0]),
            lambda w: pieces.slopes(w)[0],
            problem.allowed.project,
            start_D,
            accuracy=accuracy,
        )
    if alone:
        return downhill(pieces, start_D, rows, radius, kept, accuracy=accuracy)
    below = Smooth(lambda w: -pieces.values(w), lambda w: -pieces.slopes(w))
    return _least_above(below, start_D, problem, kept, accuracy=accuracy)


def _least_above(
    below: Smooth,
    start_D: Array,
    problem: Problem,
    kept: Sequence[Smooth] = (),
    *,
    accuracy: float = FINE,
) -> Array:
    """Minimise the largest of `-below` as the least t with t + below >= 0."""
    rows, radius = limits_of(problem.allowed)
    domains = len(start_D)
    level = -below.values(start_D).min(keepdims=True)
    above = Smooth(
        lambda x: x[domains] + below.values(x[:domains]),
        lambda x: np.column_stack(
            [below.slopes(x[:domains]), np.ones(len(below.values(x[:domains])))]
        ),
    )
    top = Smooth(lambda x: x[domains : domains + 1], lambda x: np.eye(domains + 1)[domains:])
    inner = [_of_weights(one, domains) for one in kept]
    start_X, positive = np.append(start_D, level), [above, *inner]
    return downhill(top, start_X, rows, radius, positive, accuracy=accuracy)[:domains]


def _of_weights(smooth: Smooth, domains: int) -> Smooth:
    return Smooth(lambda x: smooth.values(x[:domains]), lambda x: smooth.slopes(x[:domains]))


def _pieces(problem: Problem) -> Smooth:
    """Return the pieces of the objective, shape (P,), and their slopes, (P, D)."""
    pieces_PM = problem.objective.pieces()
    return Smooth(
        lambda w: pieces_PM @ problem.losses(w[None])[0],
        lambda w: pieces_PM @ problem.slopes(w),
    )


def _guards(problem: Problem, room: float) -> Smooth:
    """Return by how much guardrails are kept, beyond `room`, and the slopes of that."""
    guards = problem.guards
    assert guards is not None
    reference_M = guards.compared(problem.losses)
    signs_G1 = guards.signs_G[:, None]
    return Smooth(
        lambda w: -guards.excess(problem.losses(w[None]), reference_M)[0] - room,
        lambda w: -signs_G1 * problem.slopes(w)[list(guards.columns)],
    )


def _differences(problem: Problem) -> Smooth:
    """Return the value and its slopes from one batch of predictions around a mixture."""

    def slopes(weights_D: Array) -> Array:
        steps_DD = STEP * np.eye(len(weights_D))
        up_DD, down_DD = weights_D + steps_DD, np.maximum(weights_D - steps_DD, 0.0)
        values_N = problem.value(np.vstack([up_DD, down_DD]))
        width_D = np.diag(up_DD) - np.diag(down_DD)
        slope_D: Array = (values_N[: len(steps_DD)] - values_N[len(steps_DD) :]) / width_D
        return np.atleast_2d(slope_D)

    return Smooth(lambda w: problem.value(np.maximum(w, 0.0)[None]), slopes)
