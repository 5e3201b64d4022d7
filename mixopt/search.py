"""Search the allowed mixtures for the best predicted objective.

Simulation is RegMix's: draw mixtures, predict, average the best. RegMix draws from one Dirichlet
around the natural mixture; with many domains nearly all its draws are dominated by one or two, so
that the best of 819,000 is worse than the natural mixture itself for a mean of many targets. Here
half the draws spread over several concentrations around the natural and the uniform mixture, and
the other half around the average of the best so far. Draws outside the limits are moved to the
nearest allowed mixture. RegMix never scores its average; here the average of the best k is taken
for the largest k (128, 64, ..., 1) at which it is predicted no worse than the best single draw.

The gradient method is sequential quadratic programming from many starts (one start is not enough
on a law that is not convex), exact in the bounds. The worst of several losses has kinks, so it is
minimised as the least t above all of them.

Whatever is returned is allowed, and is predicted no worse than anything that was scored.

Shapes: N mixtures, D domains, P pieces of the objective, S starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mixopt.errors import ConfigError
from mixopt.objective import Array, Objective
from mixopt.simplex import CappedSimplex

CHUNK = 16_384
CONCENTRATIONS = (1.0, 4.0, 16.0, 64.0)  # of draws around the natural and the uniform mixture
NARROW = (32.0, 128.0, 512.0)  # of draws around the best so far
STARTS = 12
Method = Literal["auto", "simulation", "gradient"]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is minimised over which mixtures.

    Attributes:
        regressor: A fitted regressor of the objective's measured losses.
        objective: The objective over these losses.
        allowed: The mixtures that may be proposed.
        natural_D: Where draws are centred.
        known_ND: Mixtures that are worth scoring, such as the trials' best.
    """

    regressor: Any
    objective: Objective
    allowed: CappedSimplex
    natural_D: Array
    known_ND: Array

    def value(self, weights_ND: Array) -> Array:
        """Return the predicted objective, shape (N,)."""
        chunks = [weights_ND[at : at + CHUNK] for at in range(0, len(weights_ND), CHUNK)]
        losses_NM = np.concatenate([np.asarray(self.regressor.predict(c)) for c in chunks])
        return self.objective.value(losses_NM.reshape(len(weights_ND), -1))

    @property
    def has_gradient(self) -> bool:
        """Tell whether the regressor gives gradients."""
        return hasattr(self.regressor, "gradient")


@dataclass(frozen=True, eq=False)
class Found:
    """The best mixture of a search: its weights, its predicted objective, and which method."""

    weights_D: Array
    value: float
    method: str


def search(problem: Problem, method: Method, *, samples: int, average: int, seed: int) -> Found:
    """Find the allowed mixture with the best predicted objective.

    Args:
        problem: What is minimised over what.
        method: `simulation`, `gradient`, or `auto`: simulation, and the gradient where there
            is one.
        samples: How many mixtures are drawn.
        average: How many of the best are averaged, at most.
        seed: Of the draws.

    Raises:
        ConfigError: `gradient` with a regressor that has none.
    """
    if method == "gradient" and not problem.has_gradient:
        raise ConfigError(
            f"propose.method: gradient: {type(problem.regressor).__name__} has no gradient;"
            " use simulation, or auto"
        )
    few = min(samples, 2_000) if method == "gradient" else samples
    found = simulate(problem, samples=few, average=average, seed=seed)
    if method == "simulation" or not problem.has_gradient:
        return found
    return min([found, descend(problem, found.weights_D, seed=seed)], key=lambda one: one.value)


def simulate(problem: Problem, *, samples: int, average: int, seed: int) -> Found:
    """Draw mixtures, predict, and average the best."""
    rng = np.random.default_rng(seed)
    uniform_D = np.full_like(problem.natural_D, 1.0 / len(problem.natural_D))
    known_ND = np.vstack([problem.known_ND, problem.natural_D, uniform_D])
    best = _Best(problem, average).add(problem.allowed.project(known_ND))
    first = (samples + 1) // 2
    centers = [(center, c) for center in (problem.natural_D, uniform_D) for c in CONCENTRATIONS]
    for draws_ND in _draws(centers, first, rng):
        best.add(problem.allowed.project(draws_ND))
    center_D = best.average().weights_D
    for draws_ND in _draws([(center_D, c) for c in NARROW], samples - first, rng):
        best.add(problem.allowed.project(draws_ND))
    return best.average()


def descend(problem: Problem, start_D: Array, *, seed: int) -> Found:
    """Go downhill from many starts inside the limits."""
    rng = np.random.default_rng(seed)
    cube_SK = rng.random((STARTS, problem.allowed.dimensions))
    centers_ND = np.vstack([start_D, problem.natural_D, problem.known_ND[:4]])
    starts_SD = np.vstack([problem.allowed.project(centers_ND), problem.allowed.from_cube(cube_SK)])
    ends_SD = [_minimise(problem, one_D) for one_D in starts_SD]
    reached_SD = problem.allowed.project(np.array(ends_SD))
    every_ND = np.vstack([starts_SD, reached_SD])
    values_N = problem.value(every_ND)
    row = int(np.argmin(values_N))
    return Found(every_ND[row], float(values_N[row]), "gradient")


class _Best:
    """The mixtures with the best predictions so far, best first."""

    def __init__(self, problem: Problem, keep: int) -> None:
        self._problem, self._keep = problem, keep
        self._weights_ND = np.empty((0, len(problem.natural_D)))
        self._values_N = np.empty(0)

    def add(self, weights_ND: Array) -> _Best:
        weights_ND = np.vstack([self._weights_ND, weights_ND])
        values_N = np.concatenate(
            [self._values_N, self._problem.value(weights_ND[len(self._values_N) :])]
        )
        order = np.argsort(values_N, kind="stable")[: self._keep]
        self._weights_ND, self._values_N = weights_ND[order], values_N[order]
        return self

    def average(self) -> Found:
        """Return the average of the best k, for the largest k that costs nothing."""
        counts = [len(self._values_N)]
        while counts[-1] > 1:
            counts.append(counts[-1] // 2)
        means_KD = np.array([self._weights_ND[:count].mean(axis=0) for count in counts])
        means_KD = self._problem.allowed.project(means_KD)
        means_KD[-1] = self._weights_ND[0]
        values_K = self._problem.value(means_KD)
        good = np.flatnonzero(values_K <= self._values_N[0])
        row = int(good[0]) if len(good) else len(counts) - 1
        return Found(means_KD[row], float(values_K[row]), "simulation")


def _draws(
    centers: list[tuple[Array, float]], count: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Yield chunks of Dirichlet draws, as many around each centre."""
    for place, (center_D, concentration) in enumerate(centers):
        own = (count * (place + 1)) // len(centers) - (count * place) // len(centers)
        alpha_D = np.maximum(concentration * center_D, 1e-3)
        for at in range(0, own, CHUNK):
            yield rng.dirichlet(alpha_D, min(CHUNK, own - at))


def _minimise(problem: Problem, start_D: Array) -> Array:
    """Return where sequential quadratic programming ends, to rounding inside the limits."""
    from scipy.optimize import minimize

    pieces_PM = problem.objective.pieces()
    one, level = len(pieces_PM) == 1, problem.value(start_D[None])
    start = start_D if one else np.concatenate([start_D, level])
    losses, slopes = _smooth(problem, pieces_PM)
    adds_up: dict[str, Any] = {
        "type": "eq",
        "fun": lambda x: x[: len(start_D)].sum() - 1.0,
        "jac": lambda x: (np.arange(len(x)) < len(start_D)).astype(float),
    }
    above: dict[str, Any] = {
        "type": "ineq",
        "fun": lambda x: x[-1] - losses(x[:-1]),
        "jac": lambda x: np.hstack([-slopes(x[:-1]), np.ones((len(pieces_PM), 1))]),
    }
    bounds = list(zip(problem.allowed.lower_D, problem.allowed.upper_D, strict=True))
    result = minimize(
        (lambda x: float(losses(x)[0])) if one else (lambda x: float(x[-1])),
        start,
        jac=(lambda x: slopes(x)[0]) if one else (lambda x: np.eye(len(x))[-1]),
        bounds=bounds if one else [*bounds, (None, None)],
        constraints=[adds_up] if one else [adds_up, above],
        method="SLSQP",
        options={"maxiter": 200, "ftol": 1e-10},
    )
    end_D = np.asarray(result.x, dtype=np.float64)[: len(start_D)]
    return end_D if np.isfinite(end_D).all() else start_D


def _smooth(
    problem: Problem, pieces_PM: Array
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return the pieces of the objective, shape (P,), and their slopes, (P, D), at a mixture."""

    def losses(weights_D: Array) -> Array:
        predicted = np.asarray(problem.regressor.predict(weights_D[None])).reshape(-1)
        value: Array = pieces_PM @ predicted
        return value

    def slopes(weights_D: Array) -> Array:
        slope: Array = pieces_PM @ np.asarray(problem.regressor.gradient(weights_D))
        return slope

    return losses, slopes
