"""Search the allowed mixtures for the best predicted objective.

Simulation is RegMix's: draw mixtures, predict, average the best. RegMix draws from one Dirichlet
around the natural mixture; with many domains nearly all its draws are dominated by one or two, so
that the best of 819,000 is worse than the natural mixture itself for a mean of many targets. Here
half the draws spread over several concentrations around the natural and the uniform mixture, and
the other half around the average of the best so far. Draws outside the limits are moved inside.
RegMix never scores its average; here the average of the best k is taken for the largest k (128,
64, ..., 1) at which it is predicted no worse than the best single draw.

Where the regressor has a gradient, descents continue from there and from other starts, by
sequential quadratic programming. Its steps cost the cube of the number of domains: above
`MAX_SLSQP_DOMAINS`, within bounds alone, projected gradients are used, whose length follows from
how the gradient changed (Barzilai and Borwein), and the objective may rise for a few steps.
Whatever is returned is allowed, and is predicted no worse than anything that was scored.

With refits on resampled trials the search runs again on fewer draws: how far their optima are from
the proposal says how far the trials determine it.

Shapes: N mixtures, D domains, M losses, G guarded evaluation domains, B refits, K compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from mixopt.constraints import CappedSimplex, DifferentiableFunction, limits_of, minimize_slsqp
from mixopt.errors import ConfigError
from mixopt.fitting import Predictor
from mixopt.mixture import total_variation
from mixopt.proposals.problem import CHUNK, Problem, SearchResult
from mixopt.system import Array, Update, no_progress

if TYPE_CHECKING:
    from mixopt.config import ProposeConfig

STEPS, HALVINGS = 300, 30
MEMORY = 6  # the objective stays below the highest of so many values
FIRST = 0.1  # length of the first step, in weight
FALL = 1e-4  # part of the fall that the gradient promises and a step must have


def projected_descent(
    value: Callable[[Array], float],
    slope: Callable[[Array], Array],
    project: Callable[[Array], Array],
    start_D: Array,
    *,
    accuracy: float,
) -> Array:
    """Return the best mixture that the descent meets, shape (D,)."""
    here_D, slope_D = start_D, slope(start_D)
    best_D, values = start_D, [value(start_D)]
    length = FIRST / max(float(np.abs(slope_D).max()), 1e-12)
    for _ in range(STEPS):
        move_D = project(here_D - length * slope_D) - here_D
        fall = float(slope_D @ move_D)
        if fall > -accuracy:
            break
        part = _part(value, here_D, move_D, fall, max(values[-MEMORY:]))
        if part == 0:
            break
        there_D = here_D + part * move_D
        values.append(value(there_D))
        best_D = there_D if values[-1] <= min(values) else best_D
        turned_D = slope(there_D)
        bent = float((there_D - here_D) @ (turned_D - slope_D))
        moved = float(((there_D - here_D) ** 2).sum())
        length = moved / bent if bent > 1e-300 else 10.0 * length
        here_D, slope_D = there_D, turned_D
    return best_D


def _part(
    value: Callable[[Array], float], here_D: Array, move_D: Array, fall: float, highest: float
) -> float:
    """Return which part of a move is far enough down; 0 where none is."""
    part = 1.0
    for _ in range(HALVINGS):
        if value(here_D + part * move_D) <= highest + FALL * part * fall:
            return part
        part *= 0.5
    return 0.0


STARTS = 12
DESCENTS = 6  # of the starts, those that are predicted best
MAX_SLSQP_DOMAINS = 64  # domains above which a quadratic program takes too long
FINE = 1e-10  # change of the objective at which a descent stops
ROUGH = 1e-8  # change of the objective at which descents stop that are compared with each other
ROOM = 1e-6  # in the unit of the losses, by which the descent keeps guardrails
STEP = 1e-5  # in weight, of differences


def descend(
    problem: Problem, start_D: Array, *, seed: int, descents: int = DESCENTS
) -> SearchResult:
    """Return the best of what many descents reach, none of it outside the limits."""
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
    return SearchResult(pair_2D[row], float(scores_2[row]), "gradient")


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
    rows, convex = limits_of(problem.allowed)
    kept = [] if problem.guards is None else [_guards(problem, room=ROOM)]
    if problem.risk is not None:
        return minimize_slsqp(_differences(problem), start_D, rows, convex, kept, accuracy=accuracy)
    pieces, alone = _pieces(problem), len(problem.objective.pieces()) == 1
    bounds = isinstance(problem.allowed, CappedSimplex) and not kept
    if alone and bounds and len(start_D) > MAX_SLSQP_DOMAINS:
        return projected_descent(
            lambda w: float(pieces.values(w)[0]),
            lambda w: pieces.slopes(w)[0],
            problem.allowed.project,
            start_D,
            accuracy=accuracy,
        )
    if alone:
        return minimize_slsqp(pieces, start_D, rows, convex, kept, accuracy=accuracy)
    below = DifferentiableFunction(lambda w: -pieces.values(w), lambda w: -pieces.slopes(w))
    return _least_above(below, start_D, problem, kept, accuracy=accuracy)


def _least_above(
    below: DifferentiableFunction,
    start_D: Array,
    problem: Problem,
    kept: Sequence[DifferentiableFunction] = (),
    *,
    accuracy: float = FINE,
) -> Array:
    """Minimise the largest of `-below` as the least t with t + below >= 0."""
    rows, convex = limits_of(problem.allowed)
    domains = len(start_D)
    level = -below.values(start_D).min(keepdims=True)
    above = DifferentiableFunction(
        lambda x: x[domains] + below.values(x[:domains]),
        lambda x: np.column_stack(
            [below.slopes(x[:domains]), np.ones(len(below.values(x[:domains])))]
        ),
    )
    top = DifferentiableFunction(
        lambda x: x[domains : domains + 1], lambda x: np.eye(domains + 1)[domains:]
    )
    inner = [_of_weights(one, domains) for one in kept]
    start_X, positive = np.append(start_D, level), [above, *inner]
    return minimize_slsqp(top, start_X, rows, convex, positive, accuracy=accuracy)[:domains]


def _of_weights(smooth: DifferentiableFunction, domains: int) -> DifferentiableFunction:
    return DifferentiableFunction(
        lambda x: smooth.values(x[:domains]), lambda x: smooth.slopes(x[:domains])
    )


def _pieces(problem: Problem) -> DifferentiableFunction:
    """Return the pieces of the objective, shape (P,), and their slopes, (P, D)."""
    pieces_PM = problem.objective.pieces()
    return DifferentiableFunction(
        lambda w: pieces_PM @ problem.losses(w[None])[0],
        lambda w: pieces_PM @ problem.slopes(w),
    )


def _guards(problem: Problem, room: float) -> DifferentiableFunction:
    """Return by how much guardrails are kept, beyond `room`, and the slopes of that."""
    guards = problem.guards
    assert guards is not None
    reference_M = guards.compared(problem.losses)
    signs_G1 = guards.signs_G[:, None]
    return DifferentiableFunction(
        lambda w: -guards.excess(problem.losses(w[None]), reference_M)[0] - room,
        lambda w: -signs_G1 * problem.slopes(w)[list(guards.columns)],
    )


def _differences(problem: Problem) -> DifferentiableFunction:
    """Return the value and its slopes from one batch of predictions around a mixture."""

    def slopes(weights_D: Array) -> Array:
        steps_DD = STEP * np.eye(len(weights_D))
        up_DD, down_DD = weights_D + steps_DD, np.maximum(weights_D - steps_DD, 0.0)
        values_N = problem.value(np.vstack([up_DD, down_DD]))
        width_D = np.diag(up_DD) - np.diag(down_DD)
        slope_D: Array = (values_N[: len(steps_DD)] - values_N[len(steps_DD) :]) / width_D
        return np.atleast_2d(slope_D)

    return DifferentiableFunction(lambda w: problem.value(np.maximum(w, 0.0)[None]), slopes)


CONCENTRATIONS = (1.0, 4.0, 16.0, 64.0)  # of draws around the natural and the uniform mixture
NARROW = (32.0, 128.0, 512.0)  # of draws around the best so far
STARTING = 2_000  # draws at most where a descent continues from them
Method = Literal["auto", "simulation", "gradient"]


def search(
    problem: Problem,
    method: Method,
    *,
    samples: int,
    average: int,
    seed: int,
    descents: int = DESCENTS,
) -> SearchResult:
    """Find the allowed mixture with the best predicted objective."""
    if method == "gradient" and not problem.has_gradient:
        raise ConfigError(
            f"propose.method: gradient: {type(problem.regressor).__name__} has no gradient;"
            " use simulation, or auto"
        )
    if method == "simulation" or not problem.has_gradient:
        return simulate(problem, samples=samples, average=average, seed=seed)
    few = min(samples, STARTING)
    found = simulate(problem, samples=few, average=min(average, few), seed=seed)
    reached = descend(problem, found.weights_D, seed=seed, descents=descents)
    return min([found, reached], key=lambda one: one.value)


def simulate(problem: Problem, *, samples: int, average: int, seed: int) -> SearchResult:
    """Draw mixtures, predict, and average the best."""
    rng = np.random.default_rng(seed)
    uniform_D = np.full_like(problem.natural_D, 1.0 / len(problem.natural_D))
    known_ND = np.vstack([problem.known_ND, problem.natural_D, uniform_D])
    best = _Best(problem, average).add(problem.allowed.project(known_ND))
    first = (samples + 1) // 2
    centers = [(center, c) for center in (problem.natural_D, uniform_D) for c in CONCENTRATIONS]
    for draws_ND in _draws(centers, first, rng):
        best.add(problem.allowed.inside(draws_ND))
    center_D = best.average().weights_D
    for draws_ND in _draws([(center_D, c) for c in NARROW], samples - first, rng):
        best.add(problem.allowed.inside(draws_ND))
    return best.average()


class _Best:
    """The mixtures with the best predictions so far, best first."""

    def __init__(self, problem: Problem, keep: int) -> None:
        self._problem, self._keep = problem, keep
        self._weights_ND = np.empty((0, len(problem.natural_D)))
        self._values_N = np.empty(0)

    def add(self, weights_ND: Array) -> _Best:
        weights_ND = np.vstack([self._weights_ND, weights_ND])
        values_N = np.concatenate(
            [self._values_N, self._problem.score(weights_ND[len(self._values_N) :])]
        )
        order = np.argsort(values_N, kind="stable")[: self._keep]
        self._weights_ND, self._values_N = weights_ND[order], values_N[order]
        return self

    def average(self) -> SearchResult:
        """Return the average of the best k, for the largest k that costs nothing."""
        counts = [len(self._values_N)]
        while counts[-1] > 1:
            counts.append(counts[-1] // 2)
        means_KD = np.array([self._weights_ND[:count].mean(axis=0) for count in counts])
        means_KD = self._problem.allowed.inside(means_KD)
        means_KD[-1] = self._weights_ND[0]
        values_K = self._problem.score(means_KD)
        good = np.flatnonzero(values_K <= self._values_N[0])
        row = int(good[0]) if len(good) else len(counts) - 1
        return SearchResult(means_KD[row], float(values_K[row]), "simulation")


def _draws(
    centers: list[tuple[Array, float]], count: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Yield chunks of Dirichlet draws, as many around each centre."""
    for place, (center_D, concentration) in enumerate(centers):
        own = (count * (place + 1)) // len(centers) - (count * place) // len(centers)
        alpha_D = np.maximum(concentration * center_D, 1e-3)
        for at in range(0, own, CHUNK):
            yield rng.dirichlet(alpha_D, min(CHUNK, own - at))


SAMPLES = 2_000
FEWER = 400  # where a descent continues from them
REFIT_DESCENTS = 2


@dataclass(frozen=True, eq=False)
class Refits:
    """What the refits say."""

    optima_BD: Array
    values_BK: Array

    def movement(self, proposal_D: Array) -> Array:
        """Return the total variation between the proposal and each optimum, shape (B,)."""
        return total_variation(self.optima_BD, proposal_D)


def search_again(
    fits: Sequence[Predictor],
    problem: Problem,
    compared_KD: Array,
    *,
    config: ProposeConfig,
    seed: int,
    update: Update = no_progress,
) -> Refits:
    """Search with each refit as the proposal was searched, on fewer draws."""
    optima, values = [], []
    for regressor in fits:
        again = replace(problem, regressor=regressor, risk=None)
        if again.has_gradient:
            # From the proposal too, near which the optimum of a refit often is.
            known_KD = np.vstack([compared_KD[:1], problem.known_ND])
            again = replace(again, known_ND=known_KD)
        most = FEWER if again.has_gradient and config.method != "simulation" else SAMPLES
        few = min(config.samples, most)
        kept = max(config.average * few // config.samples, 1)
        found = search(
            again, config.method, samples=few, average=kept, seed=seed, descents=REFIT_DESCENTS
        )
        optima.append(found.weights_D)
        values.append(again.value(compared_KD))
        update(len(optima), "")
    return Refits(np.array(optima), np.array(values))
