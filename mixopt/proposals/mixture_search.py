"""Search the allowed mixtures for the best predicted objective.

Simulation is RegMix's: draw mixtures, predict, average the best. RegMix draws from one Dirichlet
around the natural mixture; with many domains nearly all its draws are dominated by one or two, so
that the best of 819,000 is worse than the natural mixture itself for a mean of many targets. Here
half the draws spread over several concentrations around the natural and the uniform mixture, and
the other half around the average of the best so far. Draws outside the limits are moved inside.
RegMix never scores its average; here the average of the best k is taken for the largest k (128,
64, ..., 1) at which it is predicted no worse than the best single draw.

The gradient method (mixopt.proposals.gradient_search) continues from there and from other starts.
Whatever is returned is allowed, and is predicted no worse than anything that was scored. A mixture
that breaks a guardrail is worse than any that keeps them all, and the less it breaks the better.

Shapes: N mixtures, D domains, M losses, G guarded evaluation domains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from mixopt.errors import ConfigError
from mixopt.proposals.gradient_search import DESCENTS, descend
from mixopt.proposals.problem import CHUNK, Found, Problem
from mixopt.system import Array

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
) -> Found:
    """Find the allowed mixture with the best predicted objective.

    Args:
        problem: What is minimised over what.
        method: `simulation`, `gradient`, or `auto`: the gradient where there is one.
        samples: How many mixtures are drawn; with the gradient, at most `STARTING`.
        average: How many of the best are averaged, at most.
        seed: Of the draws.
        descents: How many starts go downhill, where there is a gradient.

    Raises:
        ConfigError: `gradient` with a regressor that has none.
    """
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


def simulate(problem: Problem, *, samples: int, average: int, seed: int) -> Found:
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

    def average(self) -> Found:
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
