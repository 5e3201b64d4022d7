"""A power law of the samples seen, fitted to one domain's training losses as ADO fits it.

    log L = log(exp(a) n^-alpha + exp(e)),   Huber loss with 1e-3

with 0 <= alpha <= 0.8, a <= 6.5, e >= 0.5 (github.com/yidingjiang/ado). The published fit descends
from each of 8 x 8 x 8 points; here the best a of each (alpha, e) is a median, the best of these 64
is where one descent begins, and the published penalties, which outweigh the Huber loss, are bounds.

Shapes: N losses, G points of the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixopt.system import Array

HUBER = 1e-3
EXPONENTS = np.arange(0.0, 0.8, 0.1)
FLOORS = 8
MOST_A, LEAST_E, MOST_ALPHA = 6.5, 0.5, 0.8
FEWEST = 4  # losses that can tell three parameters apart


def fit_law(samples_N: Array, losses_N: Array) -> Array | None:
    """Return a, e and alpha; None where fewer than four losses are known.

    Args:
        samples_N: Samples seen; what was measured at 0 is left out.
        losses_N: Mean loss there, nats; NaN where unknown.
    """
    known_N = np.isfinite(losses_N) & (losses_N > 0) & (samples_N > 0)
    if known_N.sum() < FEWEST:
        return None
    from scipy.optimize import minimize

    logs_N, targets_N = np.log(samples_N[known_N]), np.log(losses_N[known_N])
    # The published floor of e is for losses of several nats; smaller ones need a lower one.
    least_e = min(LEAST_E, targets_N.min() - 1.0)
    found = minimize(
        _descent,
        _start(logs_N, targets_N, least_e),
        args=(logs_N, targets_N),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, MOST_A), (least_e, None), (0.0, MOST_ALPHA)],
    )
    return np.array(found.x) if np.isfinite(found.x).all() else None


def _start(logs_N: Array, targets_N: Array, least_e: float) -> Array:
    """Return the best point of the grid, over G floors and exponents."""
    floors = np.linspace(least_e, max(targets_N.min() - 1e-3, least_e), FLOORS)
    e_G, alpha_G = (axis.ravel() for axis in np.meshgrid(floors, EXPONENTS))
    above_GN = np.log(np.maximum(np.exp(targets_N) - np.exp(e_G)[:, None], 1e-6))
    a_G = np.minimum(np.median(above_GN + np.outer(alpha_G, logs_N), axis=1), MOST_A)
    misses_GN = _misses((a_G[:, None], e_G[:, None], alpha_G[:, None]), logs_N, targets_N)
    best = int(np.argmin(_huber(misses_GN)))
    return np.array([a_G[best], e_G[best], alpha_G[best]])


def _misses(point: Any, logs_N: Array, targets_N: Array) -> Array:
    a, e, alpha = point
    misses: Array = np.logaddexp(a - alpha * logs_N, e) - targets_N
    return misses


def _descent(point: Array, logs_N: Array, targets_N: Array) -> tuple[float, Array]:
    """Return the mean Huber loss in units of its width, and its gradient."""
    a, _, alpha = point
    misses_N = _misses(point, logs_N, targets_N)
    falling_N = np.exp(a - alpha * logs_N - misses_N - targets_N)  # the part that can be learned
    slopes_N3 = np.stack([falling_N, 1.0 - falling_N, -logs_N * falling_N], axis=1)
    unit = HUBER * len(logs_N)
    pull_N = np.clip(misses_N, -HUBER, HUBER) / unit
    gradient: Array = (pull_N[:, None] * slopes_N3).sum(axis=0)
    return float(_huber(misses_N[None])[0]) / unit, gradient


def _huber(misses_GN: Array) -> Array:
    size_GN = np.abs(misses_GN)
    far_GN = HUBER * (size_GN - 0.5 * HUBER)
    total_G: Array = np.where(size_GN > HUBER, far_GN, 0.5 * size_GN**2).sum(axis=1)
    return total_G
