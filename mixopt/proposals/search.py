"""Search the allowed mixtures for the best predicted objective.

Simulation is RegMix's: draw mixtures, predict, average the best. RegMix draws from one Dirichlet
around the natural mixture; with many domains nearly all its draws are dominated by one or two, so
that the best of 819,000 is worse than the natural mixture itself for a mean of many targets. Here
half the draws spread over several concentrations around the natural and the uniform mixture, and
the other half around the average of the best so far. Draws outside the limits are moved inside.
RegMix never scores its average; here the average of the best k is taken for the largest k (128,
64, ..., 1) at which it is predicted no worse than the best single draw.

The gradient method (mixopt.proposals.gradient_search) goes on from there and from other starts.
Whatever is returned is allowed, and is predicted no worse than anything that was scored. A mixture
that breaks a guardrail is worse than any that keeps them all, and the less it breaks the better.

Shapes: N mixtures, D domains, M losses, G guarded evaluation domains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mixopt.constraints import MISSED, Allowed, Guards
from mixopt.errors import ConfigError
from mixopt.objective import Objective
from mixopt.proposals.collapsed_experts import Avoided
from mixopt.proposals.risk import Risk
from mixopt.system import Array

CHUNK = 16_384
CONCENTRATIONS = (1.0, 4.0, 16.0, 64.0)  # of draws around the natural and the uniform mixture
NARROW = (32.0, 128.0, 512.0)  # of draws around the best so far
FAR = 1e9  # what a mixture that breaks a guardrail has before it is compared with others
Method = Literal["auto", "simulation", "gradient"]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is minimised over which mixtures.

    Attributes:
        regressor: A fitted regressor of the losses that the objective and the guardrails need.
        objective: The objective over these losses.
        allowed: The mixtures that may be proposed.
        natural_D: Where draws are centred.
        known_ND: Mixtures that are worth scoring, such as the trials' best.
        guards: Guardrails on these losses; None for none.
        risk: What is added to the prediction for being unsure; None for nothing.
        avoided: Trials that no proposal may be nearest to; None for none. Descents do not see
            it, and what they find is held against it.
    """

    regressor: Any
    objective: Objective
    allowed: Allowed
    natural_D: Array
    known_ND: Array
    guards: Guards | None = None
    risk: Risk | None = None
    avoided: Avoided | None = None

    def losses(self, weights_ND: Array) -> Array:
        """Return predicted losses, shape (N, M)."""
        return np.asarray(self.regressor.predict(weights_ND)).reshape(len(weights_ND), -1)

    def value(self, weights_ND: Array) -> Array:
        """Return the predicted objective, risk included, shape (N,)."""
        return self._in_chunks(weights_ND)[0]

    def score(self, weights_ND: Array) -> Array:
        """Return what the search minimises, shape (N,): the value, or how far guardrails break."""
        value_N, excess_N = self._in_chunks(weights_ND)
        return np.where(excess_N > MISSED, FAR * (1.0 + excess_N), value_N)

    def excess(self, weights_ND: Array) -> Array:
        """Return by how much each guardrail is broken, shape (N, G); below 0 it is kept."""
        if self.guards is None:
            return np.zeros((len(weights_ND), 0))
        reference_M = self.losses(self.guards.reference_D[None])[0]
        return self.guards.excess(self.losses(weights_ND), reference_M)

    @property
    def has_gradient(self) -> bool:
        """Tell whether the regressor gives gradients."""
        return hasattr(self.regressor, "gradient")

    def _in_chunks(self, weights_ND: Array) -> tuple[Array, Array]:
        """Return values, and the most by which a guardrail is broken, shape (N,) each."""
        pairs = [
            self._scored(weights_ND[at : at + CHUNK]) for at in range(0, len(weights_ND), CHUNK)
        ]
        values, excesses = zip(*pairs, strict=True)
        return np.concatenate(values), np.concatenate(excesses)

    def _scored(self, weights_ND: Array) -> tuple[Array, Array]:
        losses_NM = self.losses(weights_ND)
        if self.risk is None:
            value_N = self.objective.value(losses_NM)
        else:
            value_N = self.risk.value(self.regressor, self.objective, weights_ND)
        excess_N = np.zeros(len(weights_ND))
        if self.avoided is not None:
            excess_N = np.maximum(excess_N, self.avoided.excess(weights_ND))
        if self.guards is not None:
            reference_M = self.losses(self.guards.reference_D[None])[0]
            broken_NG = self.guards.excess(losses_NM, reference_M)
            excess_N = np.maximum(excess_N, broken_NG.max(axis=1))
        return value_N, excess_N


@dataclass(frozen=True, eq=False)
class Found:
    """The best mixture of a search: its weights, its score, and which method."""

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
    from mixopt.proposals.gradient_search import descend

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
