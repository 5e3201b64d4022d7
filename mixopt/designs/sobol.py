"""Scrambled Sobol points among the allowed mixtures: evenly spread, and none is rejected.

Shapes: N mixtures, D domains, K dimensions of the cube.
"""

from __future__ import annotations

import math

import numpy as np

from mixopt.constraints import Allowed, CappedSimplex
from mixopt.system import Array


def sobol_mixtures(
    allowed: Allowed, count: int, *, minimum: float, rng: np.random.Generator
) -> Array:
    """Return the first `count` scrambled Sobol points on the capped simplex, shape (N, D).

    Args:
        allowed: Bounds of the weights.
        count: How many.
        minimum: Weights below become 0, where the bounds leave room for that.
        rng: Scrambles the points.
    """
    if allowed.dimensions == 0:
        return np.tile(allowed.project(allowed.lower_D), (count, 1))
    weights_ND = allowed.from_cube(_points(count, allowed.dimensions, rng))
    return np.array([_without_crumbs(weights_D, allowed, minimum) for weights_D in weights_ND])


def _points(count: int, dimensions: int, rng: np.random.Generator) -> Array:
    """Return points of the cube, shape (N, K); random ones beyond the dimensions of Sobol's."""
    from scipy.stats import qmc

    if dimensions > qmc.Sobol.MAXDIM:
        return rng.random((count, dimensions))
    sobol = qmc.Sobol(dimensions, scramble=True, rng=rng)
    points: Array = sobol.random_base2(math.ceil(math.log2(count)) if count > 1 else 0)[:count]
    return points


def _without_crumbs(weights_D: Array, allowed: Allowed, minimum: float) -> Array:
    """Set weights below the minimum to 0 and give their share to the others, within the bounds."""
    crumbs_D = (weights_D < minimum) & (weights_D > 0) & (allowed.lower_D == 0)
    upper_D = np.where(crumbs_D, 0.0, allowed.upper_D)
    if not crumbs_D.any() or upper_D.sum() < 1:
        return weights_D
    cleaned_D = CappedSimplex(allowed.lower_D, upper_D).project(weights_D)
    return cleaned_D if allowed.contains(cleaned_D)[0] else weights_D
